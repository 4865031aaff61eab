"""Queueing disciplines that dropped the packet on its way out, by what they counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from testbed.verify.trace.case import Case, Finding, Scene
from testbed.verify.trace.rulesets import Rule, tc

__all__ = ["overflowed"]

_HOLDERS = ("clsact", "ingress")
"""They hold filters and queue nothing: what they count, a filter has dropped."""


def overflowed(case: Case, scene: Scene) -> Iterator[Finding]:
    """A queue of the interface by which it had to leave, which was full or shapes too much."""
    hop = scene.next
    if hop is None or hop.direction != "out" or hop.place != scene.where:
        return
    space = case.space(hop.place)
    before = _drops(space.before, hop.interface)
    for name, drops in _drops(space.after, hop.interface).items():
        filters = _filters(space.after, hop.interface) if name.startswith(_HOLDERS) else []
        if drops > before.get(name, drops) and filters:
            yield Finding(
                78,
                "rule",
                hop.place,
                f"{hop.place} dropped it: {filters[0]}, where {name.split()[0]} counted"
                f" {drops - before[name]} dropped",
                tuple(f"{hop.place}: {each.evidence}" for each in filters),
                f"`{filters[0].undo}` on {hop.place}",
            )
        elif drops > before.get(name, drops):
            yield Finding(
                78,
                "rule",
                hop.place,
                f"{hop.place} dropped it: the queueing discipline {name} of {hop.interface} counted"
                f" {drops - before[name]} dropped",
                (f"{hop.place}: tc -s qdisc show dev {hop.interface}: {name}: dropped {drops}",),
                f"`tc qdisc del dev {hop.interface} root` on {hop.place}",
            )


def _filters(facts: Mapping[str, object], device: str) -> list[Rule]:
    """Those of a device's way out that can drop."""
    found = tc(str(facts.get("filters", "")))
    return [rule for rule in found if rule.drops and rule.chain == f"{device} egress"]


def _drops(facts: Mapping[str, object], device: str) -> dict[str, int]:
    """Of each queueing discipline of a device how many packets it has dropped."""
    found = facts.get("qdiscs", ())
    rows = found if isinstance(found, list) else []
    return {
        f"{row['kind']} {str(row.get('handle', '')).rstrip(':')}".strip(): int(row.get("drops", 0))
        for row in rows
        if row.get("dev") == device
    }
