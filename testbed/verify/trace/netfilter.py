"""Rules that dropped or rejected the packet: iptables, nftables and tc, by their counters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbed.packets.packet import Packet
from testbed.verify.trace.case import Case, Finding, Scene
from testbed.verify.trace.facts import in_words
from testbed.verify.trace.happened import turned
from testbed.verify.trace.routing import without_return
from testbed.verify.trace.rulesets import Rule, iptables, nftables, tc

__all__ = ["counted", "dropped"]

_POLICY_CHAINS = ("cali-", "KUBE-NWPLCY", "KUBE-POD-FW", "KUBE-POLICY")
_ARRIVING = frozenset({"prerouting", "input", "ingress"})
_LEAVING = frozenset({"output", "postrouting", "egress"})
_HERE, _ELSEWHERE, _UNCOUNTED = 90, 30, 20


def dropped(case: Case, scene: Scene) -> Iterator[Finding]:
    """Rules whose counter moved and that can have meant this packet, the nearest place first."""
    forms = list(scene.forms(case))
    path = [hop.place for hop in scene.leg.expected]
    ends = scene.places
    if scene.next is None:  # it arrived: what answers it is dropped where it begins, or made up
        path, ends = [], tuple(dict.fromkeys((*scene.places, case.target.place)))
        forms += [turned(form) for form in forms]
    for place in dict.fromkeys((*ends, *path)):
        near = place in ends
        interfaces = {hop.interface for hop in scene.leg.expected if hop.place == place} | {"lo"}
        for rule, before in counted(case, place):
            if rule.drops and rule.may_match(forms, interfaces):
                weight = _HERE if near else _ELSEWHERE
                found = _finding(case, scene, place, rule, before, weight)
                yield found._replace(leg=_leg(case, scene, place, rule))
        if near:
            yield from _uncounted(case, scene, place, forms, interfaces)


def _leg(case: Case, scene: Scene, place: str, rule: Rule) -> str:
    """Where the request came to the last interface, a rule behind that can have dropped it yet.

    Or the reply, which then was not seen; where it was, only a rule that rejects can have made it.
    """
    if scene.next is not None or place != case.target.place or rule.hook in _LEAVING:
        return ""
    if case.walk.reply.complete and not rule.rejects:
        return ""
    request = (hop.event.packet.innermost for hop in case.walk.request.observed[-1:])
    meant = rule.hook in _ARRIVING or any(map(rule.match.packet, request))
    return "request" if meant else ""


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


def _finding(case: Case, scene: Scene, place: str, rule: Rule, before: int, weight: int) -> Finding:
    packets = (rule.packets or 0) - before
    count = "1 packet" if packets == 1 else f"{packets} packets"
    evidence = (f"{place}: {rule.evidence}: {before} → {rule.packets} packets",)
    done = "rejected" if rule.rejects else "dropped"
    if "rpfilter" in rule.text:
        summary = f"{place} dropped it: {rule} checks the reverse path, and counted {count}"
        return _reverse_path(case, scene, Finding(weight, "rp-filter", place, summary, evidence))
    if rule.is_policy or rule.chain.startswith(_POLICY_CHAINS):
        advice = (
            f"`{rule.undo}`, or accept such packets in that chain"
            if rule.is_policy
            else "allow it in the network policy of the pod"
        )
        summary = f"{place} {done} it: {rule} counted {count}"
        return Finding(weight, "policy", place, summary, evidence, advice)
    summary = f"{place} {done} it: {rule} counted {count}"
    advice = f"remove the rule (`{rule.undo}`)"
    return Finding(weight, "rule", place, summary, evidence, f"{advice} on {place}")


def _reverse_path(case: Case, scene: Scene, found: Finding) -> Finding:
    """What is known of the way back; that there is none at all is the cause itself."""
    if scene.packet is None or scene.last is None:
        return found._replace(advice="make the way back symmetric")
    sender, space = str(scene.packet.innermost.source), case.space(found.place)
    route = space.route(sender)
    told = in_words(route) if route else f"no route to {sender}"
    found = found._replace(evidence=(*found.evidence, f"{found.place}: {told}"))
    if route is None or route.get("type", "unicast") != "unicast":
        return found._replace(
            cause=without_return(space, sender),
            summary=f"{found.summary}; there is no route back to {sender}",
            advice=case.repair(found.place),
        )
    return found._replace(advice=f"make the way back to {sender} leave by {scene.last.interface}")


def _uncounted(
    case: Case, scene: Scene, place: str, forms: Sequence[Packet], interfaces: set[str]
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
                    f"remove it (`{rule.undo}`) on {place}, and see",
                    _leg(case, scene, place, rule),
                )
