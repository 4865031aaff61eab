"""Why the packet died: every cause that holds is found, and the strongest is the verdict.

A cause at the place where the packet was lost, and one that something moved between the two
readings proves, outweighs what may have been so for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from testbed.verify.trace import (
    announcing,
    bridging,
    dispatch,
    links,
    misled,
    netfilter,
    outcome,
    queues,
    routes,
    routing,
    tunnels,
)
from testbed.verify.trace.case import Case, Finding, Question, Scene, scene
from testbed.verify.trace.model import Diagnosis

__all__ = ["CAUSES", "diagnose", "questions"]

CAUSES = {
    "no-route": "no route leads there, or only the default route",
    "wrong-route": "a route leads elsewhere",
    "blackhole": "a route of type blackhole, unreachable or prohibit",
    "wrong-source": "a pod sent from an address that is not its own",
    "wrong-tunnel": "the VXLAN device has another VNI, UDP port or address than it must",
    "no-fdb": "the VXLAN device knows no node for the destination's MAC",
    "wrong-fdb": "the VXLAN device sends to another node, or a bridge to another port",
    "no-neighbour": "the entry for the next hop is wrong, or one that the CNI installs is missing",
    "arp-unanswered": "the next hop does not answer ARP",
    "nat": "a NAT rule gave it another destination, or a pod's packet another source",
    "no-endpoints": "the Service has no ready endpoints, and kube-proxy rejects",
    "no-local-endpoints": "a traffic policy is Local, no endpoint is on the node: it drops",
    "no-port": "the Service has no such port; ICMP has none at all",
    "no-dnat": "the node by which it came in did not translate the Service's address",
    "stale-endpoint": "it was translated to what is no endpoint of the Service",
    "no-undnat": "the reply was not translated back",
    "no-snat": "it was not masqueraded, so the reply takes another way",
    "rule": "a rule of iptables, nftables or tc dropped or rejected it, or a queue holds it",
    "policy": "a network policy, or a chain's policy DROP",
    "rp-filter": "the reverse path filter: the way back leaves by another interface",
    "mtu": "it is larger than what fits",
    "interface-down": "an interface on the path is down, missing, not on its bridge or blocked",
    "forwarding-off": "the node does not forward",
    "pod-gone": "the pod, its namespace, its veth or its address is gone",
    "not-asked": "the agent of the node where it got lost did not answer",
    "node-down": "the node or router does not run",
    "no-listener": "nobody listens on the port",
    "no-answer": "it was delivered, and nobody answered",
    "ttl-exceeded": "its TTL ran out, as in a loop",
    "unknown": "nothing that was read says why",
}
"""The stable words of :attr:`Diagnosis.cause`, and what each means."""

_JUDGES: tuple[Callable[[Case, Scene], Iterator[Finding]], ...] = (
    links.gone,
    links.silent,
    links.too_large,
    links.down,
    links.unbridged,
    bridging.blocked,
    bridging.misplaced,
    dispatch.refused,
    dispatch.untranslated,
    dispatch.unmasqueraded,
    dispatch.undone,
    announcing.unannounced,
    announcing.untold,
    netfilter.dropped,
    queues.overflowed,
    misled.impersonating,
    misled.exposed,
    misled.translated,
    misled.misaddressed,
    routing.reverse_path,
    routing.not_forwarding,
    routes.no_way,
    routing.unresolved,
    tunnels.different,
    tunnels.misdirected,
    outcome.ttl_exceeded,
    outcome.unanswered,
)


def questions(case: Case) -> tuple[Question, ...]:
    """What to ask the kernels' routing before :func:`diagnose`, put into ``case.answers``."""
    found = scene(case)
    return tuple(dict.fromkeys(routing.questions(case, found))) if found else ()


def diagnose(case: Case) -> Diagnosis | None:
    """The verdict; ``None``: answered, and every hop was as expected."""
    found = scene(case)
    if found is None:
        return None
    findings = [finding for judge in _JUDGES for finding in judge(case, found)]
    # The first of equal weight: judges are in order, and each names the nearest place first.
    worst = max(findings, key=lambda finding: finding.weight, default=None)
    worst = worst or outcome.unknown(case, found)
    expected = _name(found)
    return Diagnosis(
        cause=worst.cause,
        leg=worst.leg or found.role,
        last=_last(case, found),
        expected=expected,
        place=worst.place,
        summary=worst.summary,
        evidence=tuple(dict.fromkeys((*worst.evidence, *_translated(case), *_sent_back(case)))),
        advice=worst.advice + _entered(case, worst),
    )


def _entered(case: Case, finding: Finding) -> str:
    """How to run a command in the network namespace of a pod, which itself may not change it."""
    name = str(case.observed.pods.get(finding.place, {}).get("netns") or "").rpartition("/")[2]
    if not name or f" on {finding.place}" not in finding.advice:
        return ""
    return f"; from its node: `testbed exec {case.node(finding.place)} -- ip netns exec {name} …`"


def _name(found: Scene) -> str:
    hop = found.next or next(iter(found.leg.expected), None)
    return f"{hop.place}/{hop.interface}" if hop else ""


def _last(case: Case, found: Scene) -> str:
    """The last sight of a packet that died, wherever that was."""
    walk = case.walk
    if case.answered and found.last is not None:
        return f"{found.last.place}/{found.last.interface}"
    hops = found.leg.observed or walk.request.observed
    events = [hop.event for hop in hops if hop.expected or "bridged" not in hop.happened][-1:]
    events += [each for each in walk.strays if not walk.reply.observed]
    if not events:
        return ""
    event = max(reversed(events), key=lambda each: each.packet.time_ns)
    return f"{event.place}/{event.interface}"


def _translated(case: Case) -> Iterator[str]:
    if case.service is not None and case.service.translated:
        yield dispatch.told(case.service, case.service.entered)


def _sent_back(case: Case) -> Iterator[str]:
    """ICMP errors, each as it was first seen, and what the socket made of them."""
    senders = set()
    for event in case.walk.errors:
        packet = event.packet.innermost
        if packet.source not in senders:
            senders.add(packet.source)
            yield outcome.error_in_words(event)
    if case.error:
        yield f"the probe from {case.source.place}: {case.error}"
