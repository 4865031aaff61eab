"""Why a packet from outside did not come to a node that takes it for a Service.

A load balancer's address is announced by ARP from one node, or by BGP from several; an external IP
that is no node's is announced by nobody, and whoever asks needs a route of his own.
"""

from __future__ import annotations

from collections.abc import Iterator

from testbed.verify.trace.case import Case, Finding, Scene
from testbed.verify.trace.devices import UPLINK
from testbed.verify.trace.dispatch import arrived, known
from testbed.verify.trace.facts import in_words, network_of
from testbed.verify.trace.model import LOAD_BALANCER, NODE_PORT, Endpoint, Service

__all__ = ["unannounced", "untold"]

_DECIDED, _MISLED = 96, 94


def unannounced(case: Case, scene: Scene) -> Iterator[Finding]:
    """No node announces the address, nothing leads there, or a stale entry leads elsewhere."""
    service = case.service
    if service is None or service.kind == NODE_PORT or scene.role != "request":
        return
    if case.source.node == service.entered or (service.entered and arrived(case, service)):
        return
    if not service.entrances:
        yield _nowhere(case, service)
    elif route := _by_default(case, case.source.place, service.ip):
        yield _routeless(case, service, route)
    elif service.kind == LOAD_BALANCER:
        yield from _by_arp(case, service)


def _nowhere(case: Case, service: Service) -> Finding:
    """Nobody is to announce it: MetalLB and BGP announce only what somebody answers."""
    where = f"svc/{service.key} ({service.address}/{service.protocol})"
    unready = not any(each.ready for each in service.endpoints)
    if unready and (service.known or service.protocol == "icmp"):
        return Finding(
            _DECIDED,
            "no-endpoints",
            case.source.place,
            f"{where} has no ready endpoints, so no node announces {service.ip}",
            known(service),
            "look at the Service's selector, and whether its pods run and are ready",
        )
    return Finding(
        _DECIDED,
        "no-route",
        case.source.place,
        f"no node announces {service.ip} to {case.source.place}: it speaks no BGP with one that "
        "may, or none that may runs",
        (),
        "give it an as_number in x-testbed.clients, or trace from one that has it",
    )


def untold(case: Case, _: Scene) -> Iterator[Finding]:
    """A router or client that nobody told of pods, so that the topology demands no way either."""
    request, reply = case.walk.request, case.walk.reply
    if case.service is not None:
        return
    if not request.expected and case.target.pod:
        yield from _untold(case, case.source, case.target, "trace from a pod or a node")
    elif request.complete and not reply.expected and case.source.pod and not case.answered:
        advice = "let nodes masquerade what pods send to others (nat_outgoing: true)"
        yield from _untold(case, case.target, case.source, advice)


def _untold(case: Case, machine: Endpoint, pod: Endpoint, advice: str) -> Iterator[Finding]:
    place = machine.place
    if route := _by_default(case, place, pod.ip):
        yield Finding(
            _DECIDED,
            "no-route",
            place,
            f"{place} has no route to {pod.ip} but its default route: pods are known to "
            "nodes, and to those that speak BGP with them",
            (f"{place}: {route}",),
            f"{advice}, or `ip route add {pod.ip} via {case.address(pod.node)}` on {place}",
        )


def _by_default(case: Case, place: str, ip: str) -> str:
    """The default route that has to do where none leads to the address; empty: one does."""
    space = case.space(place)
    route = space.route(ip)
    if not space.known or (route is not None and network_of(route).prefixlen):
        return ""
    return in_words(route) if route else "no route at all"


def _routeless(case: Case, service: Service, route: str) -> Finding:
    place, nodes = case.source.place, [each.node for each in service.entrances]
    names = ", ".join(nodes)
    if service.kind == LOAD_BALANCER:
        why = f"none of the nodes that may ({names}) announces it by BGP"
        advice = f"`testbed status -v` shows BGP sessions; look at BIRD on {names}"
    else:
        why = "nobody announces external IPs"
        advice = f"`ip route add {service.ip} via {case.address(nodes[0])}` on {place}"
    return Finding(
        _DECIDED,
        "no-route",
        place,
        f"{place} has no route to {service.ip} but its default route, as {why}",
        (f"{place}: {route}",),
        advice,
    )


def _by_arp(case: Case, service: Service) -> Iterator[Finding]:
    """The address is on no node, or the sender believes that another one has it."""
    nodes = [each.node for each in service.entrances]
    holders = [node for node in case.facts if case.space(node).holds(service.ip, UPLINK)]
    if not holders:
        yield Finding(
            _DECIDED,
            "arp-unanswered",
            nodes[0],
            f"no node has load balancer address {service.ip}, so nobody answers ARP for it "
            f"(to announce it: {' or '.join(nodes)})",
            tuple(f"{node}: {service.ip} is not on {UPLINK}" for node in nodes),
            f"see whether keepalived runs there (`testbed status -v`, `testbed logs {nodes[0]}`)",
        )
        return
    for hop in case.walk.request.observed:
        mac, place = hop.event.packet.destination_mac, hop.event.place
        entry = case.space(place).neighbour(service.ip, hop.event.interface) or {}
        if not mac or mac != entry.get("lladdr") or mac in case.space(holders[0]).macs:
            continue
        other = next((node for node in case.facts if mac in case.space(node).macs), "nobody")
        yield Finding(
            _MISLED,
            "no-neighbour",
            place,
            f"{place} sent it to {mac} ({other}), but {holders[0]} has {service.ip}: its neighbour "
            "entry is wrong",
            (f"{place}: ip neigh: {service.ip} dev {hop.event.interface} lladdr {mac}",),
            f"`ip neigh del {service.ip} dev {hop.event.interface}` on {place}",
        )
        return
