"""Bringing the kernel from one set of Services' units to another.

A unit is in native terms: one fragment or structure per tool, named after its Service; the unit
``""`` is what all of them share. As kube-proxy's partial syncs do, what was applied last is trusted
and only what differs is fed; the kernel is read at a full pass. What one tool is fed is one
transaction, and is kept to be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import rules
from .rules import Fragment, Tables

__all__ = ["NATIVE", "Units", "apply", "note"]

NATIVE = "/etc/testbed/native/services"
_PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-")
"""Chains of nat that are kube-proxy's whatever follows."""

Units = Mapping[str, Mapping[str, Any]]


def apply(before: Units, now: Units, verify: bool) -> list[str]:
    """Make the kernel hold ``now``; return the lines that tools were fed.

    Args:
        before: what was applied last.
        now: what is wanted; with ``verify`` everything, else what may differ.
        verify: compare with the kernel, and not only with ``before``.

    Raises:
        AgentError: a tool refused a line.
    """
    names = sorted({*before, *now})
    changed = [name for name in names if verify or before.get(name) != now.get(name)]
    old = {name: before[name] for name in changed if name in before}
    new = {name: now[name] for name in changed if name in now}
    changes: list[str] = []
    if _have(old, new, "ipset"):
        from . import ipsets

        changes += ipsets.apply(_contents(new, "ipset"))
    if _have(old, new, "iptables"):
        changes += _iptables(_fragments(old), _fragments(new), verify)
    if _have(old, new, "nft"):
        from . import nftables

        changes += nftables.apply(_only(before, "nft"), _only(now, "nft"), verify)
    if _have(old, new, "ipvs") or _have(old, new, "addresses"):
        from . import ipvs

        done = ipvs.apply(before, now)
        note("ipvs", "\n".join(done))
        changes += done
    if _have(old, new, "ipset"):
        changes += ipsets.remove(_contents(now, "ipset"), _contents(old, "ipset"))
    return changes


def _have(old: Units, new: Units, key: str) -> bool:
    return any(key in unit for units in (old, new) for unit in units.values())


def _contents(units: Units, key: str) -> list[dict[str, Any]]:
    return [{"content": unit[key]} for unit in units.values() if key in unit]


def _only(units: Units, key: str) -> dict[str, Any]:
    return {name: unit[key] for name, unit in units.items() if key in unit}


def _fragments(units: Units) -> list[Fragment]:
    return [Fragment(unit["iptables"]) for unit in units.values() if "iptables" in unit]


def _iptables(old: list[Fragment], new: list[Fragment], verify: bool) -> list[str]:
    if verify:
        names = {name for each in (*old, *new) for name in each.chains()}
        have = rules.installed(lambda name: name in names or name.startswith(_PREFIXES))
        old = [*old, _strays(have)]
    else:
        have = _assumed(old)
    text = rules.difference(new, old, have)
    if text:
        note("iptables", text)
    return rules.feed(text)


def _assumed(fragments: Iterable[Fragment]) -> Tables:
    """What the kernel has if it has the fragments."""
    have: Tables = {}
    for each in fragments:
        for parts in (each.owned, each.first, each.last):
            for table, chains in parts.items():
                for name, lines in chains.items():
                    present = have.setdefault(table, {})
                    present[name] = present.get(name, []) + lines
    return have


def _strays(have: Tables) -> Fragment:
    """Everything in nat that is kube-proxy's by its name: what nobody wants of it goes."""
    names = [name for name in have.get("nat", {}) if name.startswith(_PREFIXES)]
    return Fragment("\n".join(["*nat", *(f":{name} - [0:0]" for name in names), "COMMIT"]))


def note(name: str, text: str) -> None:
    """Keep what a tool is fed, for people to read."""
    path = Path(NATIVE, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8")
