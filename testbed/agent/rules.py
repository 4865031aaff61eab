"""Applying fragments of ``iptables-save`` files without disturbing anybody else's rules.

A chain declared by a fragment belongs to it whole and is replaced when it differs; a rule of any
other chain (a jump) is one of several there, ours and others'. All that changes in a table is one
transaction, so that packets meet the old rules or the new. The comparison is by text: fragments
are written exactly as ``iptables-save`` prints them. kube-proxy has thousands of chains, of which
only those that matter are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .command import lines, run
from .errors import AgentError, CommandError

__all__ = ["Fragment", "apply", "difference", "feed", "installed", "parse"]

Chains = dict[str, list[str]]
"""Chain → rules (``-A CHAIN …`` lines) in order."""
Tables = dict[str, Chains]


class Fragment:
    """The chains that a ruleset owns, and what it puts first (``-I``) and last in others."""

    def __init__(self, text: str) -> None:
        self.owned: Tables = {}
        self.first: Tables = {}
        self.last: Tables = {}
        for table, chains in parse(text).items():
            declared = set(_declared(text, table))
            self.owned[table] = {name: chains.get(name, []) for name in declared}
            shared = {name: rules for name, rules in chains.items() if name not in declared}
            self.first[table] = {
                name: [_added(rule) for rule in rules if rule.startswith("-I")]
                for name, rules in shared.items()
            }
            self.last[table] = {
                name: [rule for rule in rules if rule.startswith("-A")]
                for name, rules in shared.items()
            }

    def chains(self) -> Iterator[str]:
        """The names of all chains that it has to do with."""
        for tables in (self.owned, self.first, self.last):
            for chains in tables.values():
                yield from chains


def parse(text: str) -> Tables:
    """Read ``iptables-save`` output or a fragment; counters in brackets are left out."""
    return _read(text.splitlines())


def installed(concerns: Callable[[str], bool]) -> Tables:
    """What the kernel has of the chains whose names ``concerns`` wants to know of."""

    def wanted() -> Iterator[str]:
        for line in lines(["iptables-save"]):
            if line.startswith("*"):
                yield line
            elif line.startswith((":", "-A ")):
                name = line[1:] if line[0] == ":" else line[3:]
                if concerns(name[: name.index(" ")]):
                    yield line

    return _read(wanted())


def _read(text: Iterable[str]) -> Tables:
    tables: Tables = {}
    chains: Chains = {}
    for line in text:
        if line.startswith("*"):
            chains = tables.setdefault(line[1:], {})
        elif line.startswith(":"):
            chains.setdefault(line[1:].split()[0], [])
        elif line.startswith(("-A ", "-I ")):
            chains.setdefault(line.split()[1], []).append(line)
    return tables


def _added(rule: str) -> str:
    """As ``iptables-save`` prints it."""
    return f"-A{rule[2:]}"


def _declared(text: str, table: str) -> list[str]:
    inside, names = False, []
    for line in text.splitlines():
        if line.startswith("*"):
            inside = line[1:] == table
        elif inside and line.startswith(":"):
            names.append(line[1:].split()[0])
    return names


def difference(wanted: Sequence[Fragment], previous: Sequence[Fragment], have: Tables) -> str:
    """What ``iptables-restore --noflush`` must read so that ``have`` comes to hold ``wanted``.

    What only ``previous`` had, goes. Fragments are as if applied one after the other: the rules
    that a later one puts first (last) are before (after) those of an earlier one.
    """
    tables = dict.fromkeys(table for each in (*wanted, *previous) for table in each.owned)
    return "".join(
        _transaction(table, _changes(table, wanted, previous, have.get(table, {})))
        for table in tables
    )


def _changes(
    table: str, wanted: Sequence[Fragment], previous: Sequence[Fragment], present: Chains
) -> list[str]:
    """Chains, rules in others' chains, then what goes: nothing refers to it any more."""
    owned = _merged(each.owned[table] for each in wanted if table in each.owned)
    before = _merged(each.owned[table] for each in previous if table in each.owned)
    gone = sorted(name for name in before if name in present and name not in owned)
    differing = [name for name in sorted(owned) if present.get(name) != owned[name]]
    # iptables-nft looks for each chain's place from the end: four times as fast in this order.
    lines = [f":{name} - [0:0]" for name in reversed(differing)]
    lines += [rule for name in differing for rule in owned[name]]
    first = _merged(each.first[table] for each in reversed(wanted) if table in each.first)
    last = _merged(each.last[table] for each in wanted if table in each.last)
    old = [each for each in previous if table in each.owned]
    stale = _merged(rules[table] for each in old for rules in (each.first, each.last))
    for chain in dict.fromkeys((*first, *last, *stale)):
        if chain not in owned and chain not in gone:
            known = {*first.get(chain, ()), *last.get(chain, ()), *stale.get(chain, ())}
            ours = [rule for rule in present.get(chain, ()) if rule in known]
            lines += _shared(ours, first.get(chain, []), last.get(chain, []))
    return [*lines, *(f"-F {name}" for name in gone), *(f"-X {name}" for name in gone)]


def _shared(ours: list[str], first: list[str], last: list[str]) -> list[str]:
    """Put our rules of somebody else's chain in their order; theirs may be in between.

    Args:
        ours: those that are there and that this or the previous spec has, in order.
        first: those wanted, to be put first where they are not.
        last: and last.
    """
    kept = [rule for rule in ours if rule in first or rule in last]
    lines = [f"-D{rule[2:]}" for rule in ours if rule not in kept]
    if kept != [*first, *last]:
        lines += [f"-D{rule[2:]}" for rule in kept]
        lines += [f"-I{rule[2:]}" for rule in reversed(first)]  # each goes before the one above it
        lines += last
    return lines


def _merged(tables: Iterable[Chains]) -> Chains:
    found: Chains = {}
    for chains in tables:
        for name, rules in chains.items():
            found[name] = found.get(name, []) + rules
    return found


def _transaction(table: str, lines: list[str]) -> str:
    return "\n".join([f"*{table}", *lines, "COMMIT"]) + "\n" if lines else ""


def apply(
    wanted: Iterable[Mapping[str, Any]], previous: Iterable[Mapping[str, Any]] = ()
) -> list[str]:
    """Bring the kernel's rules to ``wanted``; return the lines fed to ``iptables-restore``.

    Raises:
        AgentError: ``iptables-restore`` refused a line.
    """
    fragments = [Fragment(item["content"]) for item in wanted]
    old = [Fragment(item["content"]) for item in previous]
    if not fragments and not old:
        return []
    names = {name for each in (*fragments, *old) for name in each.chains()}
    return feed(difference(fragments, old, installed(names.__contains__)))


def feed(text: str) -> list[str]:
    """Run what :func:`difference` returned, if anything; return its lines.

    Raises:
        AgentError: ``iptables-restore`` refused a line; none was applied.
    """
    if not text:
        return []
    try:
        run(["iptables-restore", "--noflush", "--wait"], stdin=text.encode())
    except CommandError as error:
        line = _refused(text.splitlines(), error.output)
        raise AgentError("iptables-restore refused the rules", line, error.output) from None
    return [line for line in text.splitlines() if line[0] not in "*C"]


def _refused(text: list[str], output: str) -> str:
    """The line that is meant by ``line 7: RULE_APPEND failed``; the first few if none is.

    Of a chain that is not there, iptables-nft gives the name, and the line of ``COMMIT``.
    """
    match = re.search(r"line:? (\d+)", output)
    number = int(match[1]) if match else 0
    line = text[number - 1] if 0 < number <= len(text) else "; ".join(text[:3])
    missing = re.search(r"Chain '(\S+)' does not exist", output)
    if missing:
        return next((each for each in text if missing[1] in each.split()), line)
    return line
