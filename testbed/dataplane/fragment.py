"""Writing fragments of ``iptables-save`` files, for :class:`testbed.dataplane.spec.Ruleset`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Table", "fragment"]


@dataclass(frozen=True, slots=True)
class Table:
    """What somebody has in one table: chains of its own, and jumps at the top of the kernel's.

    Rules are in ``iptables-save``'s own spelling, without ``-A`` and the chain.
    """

    chains: Mapping[str, Iterable[str]] = field(default_factory=dict)
    """Chain → its rules."""
    first: Mapping[str, Iterable[str]] = field(default_factory=dict)
    """Kernel chain → rules at its top, in the order in which packets meet them."""


def fragment(tables: Mapping[str, Table]) -> str:
    """The text; the order of tables is the mapping's, and tables that hold nothing are left out."""
    return "".join(_text(name, each) for name, each in tables.items() if each.chains or each.first)


def _text(name: str, table: Table) -> str:
    lines = [f"*{name}", *(f":{chain} - [0:0]" for chain in table.chains)]
    for letter, chains in (("I", table.first), ("A", table.chains)):
        lines += [f"-{letter} {chain} {rule}" for chain, rules in chains.items() for rule in rules]
    return "\n".join([*lines, "COMMIT"]) + "\n"
