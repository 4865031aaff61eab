"""Tracing one packet: taps everywhere, one probe, and what was seen laid beside what must be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from testbed.packets import capturefile
from testbed.packets.decoder import VXLAN_PORTS
from testbed.packets.merging import merged
from testbed.packets.packet import is_group
from testbed.topology.model import Cluster
from testbed.verify import oracle
from testbed.verify.observed import Observed
from testbed.verify.trace import diagnosis, path, translation
from testbed.verify.trace.case import Case
from testbed.verify.trace.conversation import Conversation, Sent, conversing, marked
from testbed.verify.trace.correlation import correlate
from testbed.verify.trace.entrance import enter, masked
from testbed.verify.trace.facts import space_of
from testbed.verify.trace.model import (
    IN,
    Diagnosis,
    Endpoint,
    Event,
    Facts,
    Probe,
    Service,
    Trace,
)
from testbed.verify.trace.service_path import expect
from testbed.verify.trace.walk import follow

if TYPE_CHECKING:
    import docker

__all__ = ["events", "flooded", "trace", "traced"]


def trace(
    client: docker.DockerClient,
    cluster: Cluster,
    containers: Mapping[str, str],
    observed: Observed,
    source: Endpoint,
    target: Endpoint,
    *,
    protocol: str = "icmp",
    port: int = 0,
    size: int = 56,
    dont_fragment: bool = False,
    service: Service | None = None,
) -> tuple[Trace, bytes]:
    """Send one probe from ``source`` to ``target`` and follow it there and back.

    Whatever goes wrong with it is part of the trace. A packet that is answered takes as long as it
    takes: when the answer is there, so are all frames that led to it. One that is not is waited
    for half a second.

    Args:
        client: the engine's.
        cluster: the topology.
        containers: the nodes and routers that run, by name.
        observed: what they say of themselves.
        source: who sends.
        target: who is to answer.
        protocol: ``icmp``, ``tcp`` or ``udp``.
        port: of the target, for TCP and UDP.
        size: bytes of payload; a TCP probe has none.
        dont_fragment: whether routers must not fragment it, nor the sender.
        service: what is asked for, where that is a Service.

    Returns:
        The trace, and the pcapng file of all frames that were seen.
    """
    probe = marked(protocol, target.ip, port, size, dont_fragment=dont_fragment)
    behind = [each.end for each in service.endpoints] if service else []
    with conversing(client, containers, (source, target, *behind)) as nodes:
        return traced(nodes, cluster, observed, source, target, probe, service)


def traced(
    nodes: Conversation,
    cluster: Cluster,
    observed: Observed,
    source: Endpoint,
    target: Endpoint,
    probe: Probe,
    service: Service | None = None,
) -> tuple[Trace, bytes]:
    """:func:`trace` with nodes whose taps are open."""
    before = nodes.facts
    ways = oracle.encapsulations(cluster)
    sent = _sent(nodes, probe, source, target)
    probe = replace(probe, sequence=sent.sequence)
    wireguard = [way.port for way in ways if isinstance(way, oracle.Wireguard)]
    frames = nodes.collect(sent, wireguard, facts=not sent.answered)
    capture = merged(frames, "testbed trace")
    ports = VXLAN_PORTS | {way.port for way in ways if isinstance(way, oracle.Vxlan)}
    behind = [each.end for each in service.endpoints] if service else []
    seen = events(capture, ports, (source, target, *behind))
    entries: tuple[str, ...] = ()
    if service is None:
        legs = path.expect(cluster, observed, source, target, before)
        expected = path.addressed(legs, source, target, masked=masked(cluster))
    else:
        sights = correlate(seen, probe)
        service = enter(service, before, sights.request)
        asked = translation.arguments(probe, service.entered, sights.request, sent.local_port)
        entries = nodes.conntrack(service.entered, asked)
        made = translation.translated(service, source, sights.request, entries)
        service = replace(service, translated=made)
        both = sights.request, sights.reply
        target, expected = expect(cluster, observed, source, service, before, both)
    places = {hop.place for leg in expected for hop in leg}
    seen = [each for each in seen if each.place in places or not flooded(each, before)]
    macs = {end.place: space_of(before, end.node, end.place).macs for end in (source, target)}
    began = translation.sent(source, service.entered, entries) if service else None
    walk = follow(
        *(seen, probe, expected, source, target),
        nodes=observed.node_ips,
        macs=macs,
        sent=began,
        delivered=service is None or service.served,
    )
    told = sent.answered, sent.error
    case = Case(probe, source, target, walk, observed, {}, *told, service=service)
    found = Trace(
        testbed=cluster.name,
        source=source,
        target=target,
        probe=probe,
        request=walk.request,
        reply=walk.reply,
        answered=sent.answered,
        error="; ".join(filter(None, (sent.error, _lost(nodes)))),
        errors=walk.errors,
        diagnosis=None,
        strays=walk.strays,
        service=service,
        conntrack=entries,
    )
    return replace(found, diagnosis=None if found.ok else _diagnosed(nodes, case)), capture


def _sent(nodes: Conversation, probe: Probe, source: Endpoint, target: Endpoint) -> Sent:
    if not target.ip:
        return Sent(answered=False, error=f"{target.place} has no address")
    return nodes.send(probe, source)


def _lost(nodes: Conversation) -> str:
    """Why hops may be missing from the walk; empty: none is."""
    room = [f"{nodes.dropped} frames found no room in the taps"] if nodes.dropped else []
    return "; ".join([*room, *(f"{node}: {why}" for node, why in nodes.problems.items())])


def _diagnosed(nodes: Conversation, case: Case) -> Diagnosis | None:
    """Why the packet died or went astray."""
    if not nodes.after:
        nodes.collect(Sent(case.answered, case.error), (), facts=True)
    case = replace(case, facts=nodes.facts, silent=nodes.problems)
    answers = {question: nodes.route(question) for question in diagnosis.questions(case)}
    return diagnosis.diagnose(replace(case, answers=answers))


def events(capture: bytes, ports: Iterable[int], ends: Iterable[Endpoint]) -> list[Event]:
    """Decode a capture whose interfaces have names such as ``default/a/eth0``.

    ``ends`` say on which node a pod is; every other place is a node itself.
    """
    nodes = {end.place: end.node for end in ends}
    found = []
    for packet in capturefile.read(capture, frozenset(ports)):
        place, _, interface = packet.interface.rpartition("/")
        node = nodes.get(place, place)
        found.append(Event(place, node, interface, packet.direction, packet))
    return found


def flooded(event: Event, facts: Mapping[str, Facts]) -> bool:
    """Whether a link only brought what is for somebody else's MAC address, and is not passed on.

    A network's bridge sends a frame to everybody until it knows where the receiver is.
    """
    wanted = event.packet.destination_mac
    key = "" if event.place == event.node else event.place
    links = facts.get(event.node, Facts()).before.get(key, {}).get("links", ())
    link = next((each for each in links if each["ifname"] == event.interface), None)
    if link is None or wanted is None or event.direction != IN or is_group(wanted):
        return False
    tunnel = link.get("linkinfo", {}).get("info_kind") == "vxlan"
    return not tunnel and "master" not in link and wanted != link.get("address")
