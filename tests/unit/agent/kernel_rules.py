"""A kernel's iptables as far as ``iptables-save`` and ``iptables-restore --noflush`` show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from testbed.agent.command import Completed
from testbed.agent.errors import CommandError

BUILT_IN = {
    "nat": ("PREROUTING", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "mangle": (),
}


class Kernel:
    """Tables in memory; a transaction is applied whole or not at all."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, list[str]]] = {
            table: {chain: [] for chain in chains} for table, chains in BUILT_IN.items()
        }
        self.fed: list[str] = []
        """The text of every ``iptables-restore``."""
        self.saved = 0
        """How often ``iptables-save`` was run."""
        self.ran: list[list[str]] = []
        """Every other command."""
        self.answers: dict[str, Completed] = {}
        """First word → what it answers."""

    def lines(self, argv: Sequence[str], **_: Any) -> Iterator[str]:
        """``iptables-save``."""
        assert list(argv) == ["iptables-save"]
        self.saved += 1
        for table, chains in self.tables.items():
            yield f"*{table}"
            yield from (f":{name} - [0:0]" for name in chains)
            yield from (rule for rules in chains.values() for rule in rules)
            yield "COMMIT"

    def run(self, argv: Sequence[str], stdin: bytes = b"", **_: Any) -> bytes:
        """``iptables-restore``; whatever else is noted."""
        if argv[0] != "iptables-restore":
            self.ran.append(list(argv))
            return b""
        self.fed.append(stdin.decode())
        tables = deepcopy(self.tables)
        chains: dict[str, list[str]] = {}
        for number, line in enumerate(self.fed[-1].splitlines(), start=1):
            if line.startswith("*"):
                chains = tables[line[1:]]
            elif line != "COMMIT" and not _apply(chains, line):
                raise CommandError(tuple(argv), f"line {number}: RULE_APPEND failed", 1)
        self.tables = tables
        return b""

    def execute(self, argv: Sequence[str], **_: Any) -> Completed:
        """A look at a chain, or a command whose answer the test has set."""
        if argv[0] == "iptables":
            table, chain = argv[argv.index("-t") + 1], argv[-1]
            return Completed(int(chain not in self.tables[table]), b"", b"")
        self.ran.append(list(argv))
        return self.answers.get(argv[0], Completed(0, b"", b""))


def _apply(chains: dict[str, list[str]], line: str) -> bool:
    """One line of a transaction; whether the kernel took it."""
    if line.startswith(":"):
        chains[line[1:].split()[0]] = []
        return True
    verb, name = line.split()[:2]
    target = line.rpartition(" -j ")[2] if " -j KUBE-" in line else name
    if name not in chains or target not in chains:
        return False
    rule = f"-A{line[2:]}"
    if verb == "-A":
        chains[name].append(rule)
    elif verb == "-I":
        chains[name].insert(0, rule)
    elif verb == "-D":
        chains[name].remove(rule)
    elif verb == "-F":
        chains[name] = []
    elif verb == "-X":
        del chains[name]
        return not any(rule.endswith(f" -j {name}") for rules in chains.values() for rule in rules)
    return True
