"""Traces as they come out of :mod:`testbed.verify.trace.run`, made by hand, to be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from testbed.packets.packet import ICMP, TCP, UDP, Packet, Tcp
from testbed.verify.oracle import Encapsulation, Vxlan
from testbed.verify.trace.model import (
    IN,
    OUT,
    Diagnosis,
    Endpoint,
    Event,
    ExpectedHop,
    Hop,
    Leg,
    Probe,
    Service,
    ServiceEndpoint,
    Trace,
)

__all__ = [
    "answered",
    "astray",
    "dropped",
    "looping",
    "nowhere",
    "refused",
    "same_node",
    "too_large",
    "translated",
    "unanswered",
]

A, B = "10.244.0.2", "10.244.1.2"
NODE1, NODE2 = "172.18.0.2", "172.18.0.3"
SOURCE = Endpoint("default/netexec-node1-1", "node1", A, pod=True)
TARGET = Endpoint("default/netexec-node2-1", "node2", B, pod=True)
VXLAN = Vxlan(1, 8472)
POD_A, CNI1 = "de:2b:56:13:bc:84", "02:33:2d:aa:05:1f"
POD_B, CNI2 = "be:73:76:1e:5f:ea", "d6:e7:22:10:c8:cf"
VTEP1, VTEP2 = "1e:32:7f:3c:13:8e", "2e:53:b3:af:b2:db"
ETH1, ETH2 = "02:42:ac:12:00:02", "02:42:ac:12:00:03"
BEGAN = 1_795_000_000_000_000_000


def echo(kind: int, macs: tuple[str, str], ends: tuple[str, str], ttl: int, size: int) -> Packet:
    """An ICMP echo request (8) or reply (0)."""
    return Packet(
        *macs,
        0x0800,
        IPv4Address(ends[0]),
        IPv4Address(ends[1]),
        tos=0,
        identification=60231,
        ttl=ttl,
        dont_fragment=False,
        more_fragments=False,
        fragment_offset=0,
        protocol=ICMP,
        icmp_type=kind,
        icmp_code=0,
        icmp_identity=20844,
        icmp_sequence=1,
        payload=bytes(size),
        length=size + 42,
    )


def carried(inner: Packet, macs: tuple[str, str], ends: tuple[str, str]) -> Packet:
    """``inner`` in VXLAN."""
    return Packet(
        *macs,
        0x0800,
        IPv4Address(ends[0]),
        IPv4Address(ends[1]),
        tos=0,
        ttl=64,
        protocol=UDP,
        source_port=51234,
        destination_port=8472,
        vni=1,
        inner=inner,
        length=inner.length + 50,
    )


Row = tuple[str, str, str, Encapsulation, str, str, Packet]
"""Place, interface, direction, encapsulation, what must happen, what happened, packet."""


def leg(rows: Sequence[Row], first: int, since: int) -> Leg:
    """A leg that went as it must."""
    nodes = {SOURCE.place: "node1", TARGET.place: "node2", "default/netexec-node1-2": "node1"}
    expected, observed = [], []
    for index, (place, interface, direction, how, what, happened, packet) in enumerate(rows):
        node = nodes.get(place, place)
        time = since + index * 4_200
        seen = packet._replace(
            time_ns=BEGAN + time, interface=f"{place}/{interface}", direction=direction
        )
        expected.append(ExpectedHop(place, node, interface, direction, how, what))
        event = Event(place, node, interface, direction, seen)
        observed.append(Hop(first + index, event, (happened,), time, expected=True))
    return Leg(tuple(expected), tuple(observed), None, complete=True)


def _request(size: int = 56) -> list[Row]:
    at_a = echo(8, (POD_A, CNI1), (A, B), 64, size)
    inside = echo(8, (VTEP1, VTEP2), (A, B), 63, size)
    wire = carried(inside, (ETH1, ETH2), (NODE1, NODE2))
    at_b = echo(8, (CNI2, POD_B), (A, B), 62, size)
    return [
        (SOURCE.place, "eth0", OUT, None, "sent", "sent", at_a),
        ("node1", "veth660c775a", IN, None, "veth crossing", "veth crossing", at_a),
        ("node1", "cni0", IN, None, "bridged", "bridged", at_a),
        ("node1", "flannel.1", OUT, None, "routed", "routed", inside),
        ("node1", "eth0", OUT, VXLAN, "encapsulated", f"encapsulated ({VXLAN})", wire),
        ("node2", "eth0", IN, VXLAN, "underlay crossing", "underlay crossing", wire),
        ("node2", "flannel.1", IN, None, "decapsulated", "decapsulated", inside),
        ("node2", "cni0", OUT, None, "routed", "routed", at_b),
        ("node2", "veth3b76ff98", OUT, None, "bridged", "bridged", at_b),
        (TARGET.place, "eth0", IN, None, "veth crossing, delivered", "veth crossing", at_b),
    ]


def _reply(size: int = 56) -> list[Row]:
    at_b = echo(0, (POD_B, CNI2), (B, A), 64, size)
    inside = echo(0, (VTEP2, VTEP1), (B, A), 63, size)
    wire = carried(inside, (ETH2, ETH1), (NODE2, NODE1))
    at_a = echo(0, (CNI1, POD_A), (B, A), 62, size)
    return [
        (TARGET.place, "eth0", OUT, None, "sent", "sent", at_b),
        ("node2", "veth3b76ff98", IN, None, "veth crossing", "veth crossing", at_b),
        ("node2", "cni0", IN, None, "bridged", "bridged", at_b),
        ("node2", "flannel.1", OUT, None, "routed", "routed", inside),
        ("node2", "eth0", OUT, VXLAN, "encapsulated", f"encapsulated ({VXLAN})", wire),
        ("node1", "eth0", IN, VXLAN, "underlay crossing", "underlay crossing", wire),
        ("node1", "flannel.1", IN, None, "decapsulated", "decapsulated", inside),
        ("node1", "cni0", OUT, None, "routed", "routed", at_a),
        ("node1", "veth660c775a", OUT, None, "bridged", "bridged", at_a),
        (SOURCE.place, "eth0", IN, None, "veth crossing, delivered", "veth crossing", at_a),
    ]


def answered() -> Trace:
    """A ping through flannel's VXLAN, as it must be."""
    request, reply = leg(_request(), 1, 0), leg(_reply(), 11, 61_000)
    return Trace(
        testbed="flannel",
        source=SOURCE,
        target=TARGET,
        probe=Probe("icmp", B, size=56, marker="0123456789abcdef"),
        request=_delivered(request),
        reply=_delivered(reply),
        answered=True,
        error="",
        errors=(),
        diagnosis=None,
    )


def _delivered(whole: Leg) -> Leg:
    last = whole.observed[-1]
    arrived = replace(last, happened=(*last.happened, "delivered"))
    return replace(whole, observed=(*whole.observed[:-1], arrived))


def _cut(whole: Leg, seen: int) -> Leg:
    """A leg of which only the first hops were seen."""
    return replace(whole, observed=whole.observed[:seen], divergence=seen, complete=False)


def dropped() -> Trace:
    """The same where node2 drops UDP 8472."""
    good = answered()
    verdict = Diagnosis(
        cause="rule",
        leg="request",
        last="node2/eth0",
        expected="node2/flannel.1",
        place="node2",
        summary="node2: iptables (filter, INPUT) drops it: -p udp -m udp --dport 8472 -j DROP",
        evidence=("[1:134] -A INPUT -p udp -m udp --dport 8472 -j DROP, 0 packets before",),
        advice="iptables -D INPUT -p udp -m udp --dport 8472 -j DROP on node2",
    )
    return replace(
        good,
        request=_cut(good.request, 6),
        reply=_cut(good.reply, 0),
        answered=False,
        diagnosis=verdict,
    )


def nowhere() -> Trace:
    """The pod is gone: nothing was sent, nothing was seen, no path is to be expected."""
    empty = Leg((), (), None, complete=False)
    return replace(
        dropped(),
        target=replace(TARGET, ip=""),
        request=empty,
        reply=empty,
        error="default/netexec-node2-1 has no address",
        diagnosis=Diagnosis("pod-gone", "request", "", "", TARGET.place, "the pod is gone"),
    )


def too_large() -> Trace:
    """1473 bytes that must not be fragmented; the bridge of node1 says what fits."""
    good = answered()
    request = _cut(leg(_request(1450), 1, 0), 3)
    refused = echo(3, (CNI1, POD_A), ("10.244.0.1", A), 64, 0)._replace(
        icmp_code=4,
        icmp_identity=None,
        icmp_sequence=None,
        icmp_mtu=1450,
        quoted=echo(8, (POD_A, CNI1), (A, B), 64, 0),
        length=590,
        time_ns=BEGAN + 30_000,
        interface="node1/cni0",
        direction=OUT,
    )
    event = Event("node1", "node1", "cni0", OUT, refused)
    return replace(
        good,
        probe=replace(good.probe, size=1450, dont_fragment=True),
        request=request,
        reply=_cut(good.reply, 0),
        answered=False,
        error="ICMP 3/4 from 10.244.0.1: fragmentation needed, MTU 1450",
        errors=(event,),
        diagnosis=Diagnosis(
            "mtu",
            "request",
            "node1/cni0",
            "node1/flannel.1",
            "node1",
            "node1/flannel.1 lets 1450 bytes pass; the packet has 1478 and must not be fragmented",
            ("node1/cni0 saw ICMP fragmentation needed, MTU 1450, from 10.244.0.1",),
            "send at most 1422 bytes, or without --df",
        ),
    )


def same_node() -> Trace:
    """UDP over one bridge."""
    target = Endpoint("default/netexec-node1-2", "node1", "10.244.0.3", pod=True)
    there = echo(8, (POD_A, POD_B), (A, target.ip), 64, 56)
    there = there._replace(protocol=UDP, source_port=40000, destination_port=8081, icmp_type=None)
    back = there._replace(
        source=there.destination, destination=there.source, source_port=8081, destination_port=40000
    )
    ways = [(SOURCE.place, "eth0"), ("node1", "veth660c775a"), ("node1", "veth11"), (target.place,)]
    rows: dict[str, list[Row]] = {}
    for name, packet, stations in (("there", there, ways), ("back", back, ways[::-1])):
        words = ("sent", "veth crossing", "bridged", "veth crossing")
        directions = (OUT, IN, OUT, IN)
        rows[name] = [
            (at[0], at[-1] if len(at) > 1 else "eth0", direction, None, word, word, packet)
            for at, word, direction in zip(stations, words, directions, strict=True)
        ]
    return replace(
        answered(),
        target=target,
        probe=Probe("udp", target.ip, 8081, 56),
        request=_delivered(leg(rows["there"], 1, 0)),
        reply=_delivered(leg(rows["back"], 5, 40_000)),
    )


def astray() -> Trace:
    """NAT, a hop too many, and a node that saw it and should not; words no browser may obey."""
    good = answered()
    hops = list(good.request.observed)
    nat = ("routed", "SNATed 10.244.0.2 to 172.18.0.2")
    hops[3] = replace(hops[3], happened=nat)
    hops.insert(7, replace(hops[6], happened=("<script>alert('&')</script>",), expected=False))
    request = replace(good.request, observed=_numbered(hops, 1), divergence=7)
    stray = replace(hops[5].event, place="node3", node="node3")
    reply = replace(good.reply, observed=_numbered(good.reply.observed, 12))
    return replace(good, request=request, reply=reply, strays=(stray,))


def translated() -> Trace:
    """A datagram over one bridge to a Service, which its node makes one of the two endpoints."""
    good = same_node()
    service = Service(
        *("default/web", "10.96.0.10", "udp", 90),
        known=True,
        ports=("80/tcp", "90/udp"),
        mode="iptables",
        local=False,
        endpoints=(
            ServiceEndpoint(good.target, 8081, ready=True, usable=True),
            ServiceEndpoint(TARGET, 8081, ready=True, usable=True),
        ),
        translated="10.244.0.3:8081",
        entered="node1",
    )
    to = IPv4Address(service.cluster_ip)
    there, back = list(good.request.observed), list(good.reply.observed)
    for at in (0, 1):
        there[at] = _changed(there[at], destination=to, destination_port=90)
        back[at + 2] = _changed(back[at + 2], source=to, source_port=90)
    made = "10.96.0.10:90 to 10.244.0.3:8081"
    undone = "bridged", "DNAT reversed 10.244.0.3:8081 to 10.96.0.10:90"
    there[2] = replace(there[2], happened=(f"DNATed {made}",))
    back[2] = replace(back[2], happened=undone)
    return replace(
        good,
        probe=Probe("udp", service.cluster_ip, 90, 56),
        request=replace(good.request, observed=tuple(there)),
        reply=replace(good.reply, observed=tuple(back)),
        service=service,
        conntrack=(
            "udp 17 29 src=10.244.0.2 dst=10.96.0.10 sport=40000 dport=90 src=10.244.0.3 "
            "dst=10.244.0.2 sport=8081 dport=40000 mark=0 use=1",
        ),
    )


def _changed(hop: Hop, **fields: object) -> Hop:
    """With other headers."""
    packet = hop.event.packet._replace(**fields)  # type: ignore[arg-type]
    return replace(hop, event=replace(hop.event, packet=packet))


def unanswered() -> Trace:
    """The request arrived, and nobody answered."""
    good = answered()
    return replace(
        good,
        reply=_cut(good.reply, 0),
        answered=False,
        diagnosis=Diagnosis(
            "no-answer",
            "reply",
            "default/netexec-node2-1/eth0",
            "",
            TARGET.place,
            "nobody answered",
        ),
    )


def refused() -> Trace:
    """A TCP connection to a port on which nobody listens, over one bridge."""
    good = same_node()
    hops = []
    for hop in good.reply.observed:
        reset = hop.event.packet._replace(protocol=TCP, tcp=Tcp(0, 8, "R.", 0), payload=b"")
        hops.append(replace(hop, event=replace(hop.event, packet=reset)))
    return replace(
        good,
        probe=Probe("tcp", good.target.ip, 81, 0),
        reply=replace(good.reply, observed=tuple(hops)),
        answered=False,
        error="Connection refused (TCP reset)",
    )


def looping(times: int = 30) -> Trace:
    """Two nodes that hand a packet to each other until its TTL is used up."""
    good = answered()
    first = good.request.observed[:6]
    hops = list(first)
    for number in range(times):
        back = first[4 if number % 2 else 5]
        hops.append(
            replace(back, happened=("routed",), since_ns=50_000 * (number + 1), expected=False)
        )
    request = replace(good.request, observed=_numbered(hops, 1), divergence=6, complete=False)
    return replace(good, request=request, reply=_cut(good.reply, 0), answered=False)


def _numbered(hops: Sequence[Hop], first: int) -> tuple[Hop, ...]:
    return tuple(replace(hop, number=number) for number, hop in enumerate(hops, first))
