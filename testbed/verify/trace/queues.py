"""Queueing disciplines that dropped or hold the packet on its way out, by what they counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from testbed.verify.trace.case import Case, Finding, Scene, shapers
from testbed.verify.trace.model import ExpectedHop
from testbed.verify.trace.rulesets import Rule, tc
from testbed.verify.trace.walk import crosses

__all__ = ["overflowed"]

_HOLDERS = ("clsact", "ingress")
"""They hold filters and queue nothing: what they count, a filter has dropped."""


def overflowed(case: Case, scene: Scene) -> Iterator[Finding]:
    """A queue of the interface by which it had to leave, which was full or shapes too much.

    Also of what shapes the packets of a pod that does not answer, or of whose fragments some came.
    """
    hop = scene.next
    hops = [hop] if hop and hop.direction == "out" and hop.place == scene.where else []
    hops += [each for each, _ in shapers(case, scene)]
    for each in dict.fromkeys(hops):
        yield from _dropped(case, each)
        if not _passed(case, each):
            yield from _held(case, each)


def _passed(case: Case, hop: ExpectedHop) -> bool:
    """Whether the packet was seen to leave a queue, in which others may wait."""
    legs = case.walk.request, case.walk.reply
    return any(crosses(each.event, hop) for leg in legs for each in leg.observed)


def _held(case: Case, hop: ExpectedHop) -> Iterator[Finding]:
    """A queue in which packets wait although the probe's time is over."""
    for row in _rows(case.space(hop.place).after, hop.interface):
        if not row.get("qlen"):
            continue
        waiting = f"{row['qlen']} packets ({row.get('backlog', 0)} bytes)"
        yield Finding(
            77,
            "rule",
            hop.place,
            f"{hop.place} holds it back: in the queueing discipline {_name(row)} of {hop.interface}"
            f" {waiting} wait",
            (f"{hop.place}: tc -s qdisc show dev {hop.interface}: {_name(row)}: {waiting}",),
            "wait until they have left, or allow more than the limit of this queue",
        )


def _dropped(case: Case, hop: ExpectedHop) -> Iterator[Finding]:
    """A queue that counted a drop."""
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
    return {_name(row): int(row.get("drops", 0)) for row in _rows(facts, device)}


def _rows(facts: Mapping[str, object], device: str) -> list[Mapping[str, Any]]:
    found = facts.get("qdiscs", ())
    rows = found if isinstance(found, list) else []
    return [row for row in rows if row.get("dev") == device]


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['kind']} {str(row.get('handle', '')).rstrip(':')}".strip()
