"""Rules that dropped or rejected the packet: iptables, nftables and tc, by their counters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbed.packets.packet import Packet
from testbed.verify.trace.case import Case, Finding, Scene
from testbed.verify.trace.rulesets import Rule, iptables, nftables, tc

__all__ = ["counted", "dropped"]

_POLICY_CHAINS = ("cali-", "KUBE-NWPLCY", "KUBE-POD-FW", "KUBE-POLICY")
_HERE, _ELSEWHERE, _UNCOUNTED = 90, 30, 20


def dropped(case: Case, scene: Scene) -> Iterator[Finding]:
    """Rules whose counter moved and that can have meant this packet, the nearest place first."""
    forms = list(scene.forms(case))
    path = [hop.place for hop in scene.leg.expected]
    if scene.next is None:
        path = []
    for place in dict.fromkeys((*scene.places, *path)):
        near = place in scene.places
        interfaces = {hop.interface for hop in scene.leg.expected if hop.place == place} | {"lo"}
        for rule, before in counted(case, place):
            if rule.drops and rule.may_match(forms, interfaces):
                yield _finding(place, rule, before, _HERE if near else _ELSEWHERE)
        if near:
            yield from _uncounted(case, place, forms, interfaces)


def counted(case: Case, place: str) -> Iterator[tuple[Rule, int]]:
    """Rules that matched anything while the probe was under way, with their counter before."""
    space = case.space(place)
    for key, parse in (
        ("iptables", iptables),
        ("iptables_legacy", iptables),
        ("nft", nftables),
        ("filters", tc),
    ):
        before = {rule.key: rule.packets or 0 for rule in parse(space.before.get(key, ""))}
        for rule in parse(space.after.get(key, "")):
            earlier = before.get(rule.key, 0)
            if (rule.packets or 0) > earlier:
                yield rule, earlier


def _finding(place: str, rule: Rule, before: int, weight: int) -> Finding:
    packets = (rule.packets or 0) - before
    count = "1 packet" if packets == 1 else f"{packets} packets"
    evidence = (f"{place}: {rule.evidence}: {before} → {rule.packets} packets",)
    done = "rejected" if rule.rejects else "dropped"
    if "rpfilter" in rule.text:
        summary = f"{place} dropped it: {rule} checks the reverse path, and counted {count}"
        return Finding(weight, "rp-filter", place, summary, evidence, "make the way back symmetric")
    if rule.is_policy or rule.chain.startswith(_POLICY_CHAINS):
        advice = (
            f"`{rule.undo}`, or accept such packets in that chain"
            if rule.is_policy
            else "allow it in the network policy of the pod"
        )
        summary = f"{place} {done} it: {rule} counted {count}"
        return Finding(weight, "policy", place, summary, evidence, advice)
    summary = f"{place} {done} it: {rule} counted {count}"
    advice = f"remove the rule (`{_undo(rule)}`)"
    return Finding(weight, "rule", place, summary, evidence, f"{advice} on {place}")


def _undo(rule: Rule) -> str:
    """The command that takes a rule away, or shows the handle that nft needs to do so."""
    return rule.undo or f"nft -a list chain {rule.table} {rule.chain}"


def _uncounted(
    case: Case, place: str, forms: Sequence[Packet], interfaces: set[str]
) -> Iterator[Finding]:
    """Rules that drop and have no counter: they may be it, where nothing else is."""
    space = case.space(place)
    for key, parse in (("nft", nftables), ("filters", tc)):
        for rule in parse(space.after.get(key, "")):
            if rule.drops and rule.packets is None and rule.may_match(forms, interfaces):
                yield Finding(
                    _UNCOUNTED,
                    "policy" if rule.is_policy else "rule",
                    place,
                    f"{place} can have dropped it: {rule}, which counts nothing",
                    (f"{place}: {rule.evidence}",),
                    f"remove it (`{_undo(rule)}`) on {place}, and see",
                )
