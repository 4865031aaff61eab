"""Applying fragments of ``iptables-save`` files without disturbing anybody else's rules.

A chain declared by a fragment belongs to it whole and is replaced in one transaction when it
differs; a rule of any other chain (a jump) is added when it is missing. The comparison is by text,
so fragments are written exactly as ``iptables-save`` prints them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .command import run
from .errors import AgentError, CommandError

__all__ = ["Fragment", "apply", "difference", "parse", "removal"]

Tables = dict[str, dict[str, list[str]]]
"""Table → chain → rules (``-A CHAIN …`` lines) in order."""


class Fragment:
    """The chains that a ruleset owns and the single rules it adds to other chains."""

    def __init__(self, text: str) -> None:
        self.owned: Tables = {}
        self.shared: dict[str, list[str]] = {}
        for table, chains in parse(text).items():
            declared = set(_declared(text, table))
            self.owned[table] = {name: chains.get(name, []) for name in declared}
            self.shared[table] = [
                rule for name, rules in chains.items() if name not in declared for rule in rules
            ]


def parse(text: str) -> Tables:
    """Read ``iptables-save`` output or a fragment; counters in brackets are left out."""
    tables: Tables = {}
    chains: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            chains = tables.setdefault(line[1:], {})
        elif line.startswith(":"):
            chains.setdefault(line[1:].split()[0], [])
        elif line.startswith(("-A ", "-I ")):
            chains.setdefault(line.split()[1], []).append(line)
    return tables


def _declared(text: str, table: str) -> list[str]:
    inside, names = False, []
    for line in text.splitlines():
        if line.startswith("*"):
            inside = line[1:] == table
        elif inside and line.startswith(":"):
            names.append(line[1:].split()[0])
    return names


def difference(fragment: Fragment, have: Tables) -> str:
    """What ``iptables-restore --noflush`` must read so that ``have`` comes to hold the fragment."""
    text = ""
    for table, chains in fragment.owned.items():
        present = have.get(table, {})
        differing = [name for name in sorted(chains) if present.get(name) != chains[name]]
        lines = [f":{name} - [0:0]" for name in differing]
        lines += [rule for name in differing for rule in chains[name]]
        lines += [rule for rule in fragment.shared[table] if not _holds(present, rule)]
        text += _transaction(table, lines)
    return text


def removal(fragment: Fragment, have: Tables, keep: Fragment | None = None) -> str:
    """What removes a fragment, but for what ``keep`` has too: jumps first, then the chains."""
    text = ""
    for table, chains in fragment.owned.items():
        present = have.get(table, {})
        kept_rules = keep.shared.get(table, []) if keep else []
        kept_chains = keep.owned.get(table, {}) if keep else {}
        lines = [
            "-D" + rule[2:]
            for rule in fragment.shared[table]
            if rule not in kept_rules and _holds(present, rule)
        ]
        gone = [name for name in sorted(chains) if name in present and name not in kept_chains]
        lines += [f"-F {name}" for name in gone] + [f"-X {name}" for name in gone]
        text += _transaction(table, lines)
    return text


def _holds(present: Mapping[str, list[str]], rule: str) -> bool:
    return "-A" + rule[2:] in present.get(rule.split()[1], [])


def _transaction(table: str, lines: list[str]) -> str:
    return "\n".join([f"*{table}", *lines, "COMMIT"]) + "\n" if lines else ""


def apply(
    wanted: Iterable[Mapping[str, Any]], previous: Iterable[Mapping[str, Any]] = ()
) -> list[str]:
    """Bring the kernel's rules to ``wanted``; return the lines fed to ``iptables-restore``.

    Raises:
        AgentError: ``iptables-restore`` refused a line.
    """
    fragments = {item["name"]: Fragment(item["content"]) for item in wanted}
    old = {item["name"]: Fragment(item["content"]) for item in previous}
    if not fragments and not old:
        return []
    have = parse(run(["iptables-save"]).decode())
    text = "".join(removal(each, have, fragments.get(name)) for name, each in old.items())
    text += "".join(difference(each, have) for each in fragments.values())
    if not text:
        return []
    try:
        run(["iptables-restore", "--noflush", "--wait"], stdin=text.encode())
    except CommandError as error:
        raise AgentError("iptables-restore refused the rules", text, error.output) from None
    return [line for line in text.splitlines() if line[0] not in "*C"]
