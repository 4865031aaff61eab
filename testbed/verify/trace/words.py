"""A trace in words: what people read of it, be it on a terminal, in a picture or on a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice, takewhile
from typing import NamedTuple

from testbed.packets import text
from testbed.packets.packet import UDP, Packet
from testbed.verify.oracle import Ipip
from testbed.verify.trace.model import (
    CLUSTER_IP,
    NODE_PORT,
    Endpoint,
    ExpectedHop,
    Hop,
    Leg,
    Probe,
    Service,
    Trace,
)

__all__ = [
    "Layer",
    "Row",
    "began",
    "diverges",
    "duration",
    "endpoint",
    "hop_name",
    "layers",
    "macs",
    "names",
    "probe",
    "rows",
    "target",
    "tracking",
    "verdict",
    "walked",
    "wanted",
]

_WIREGUARD_DATA = bytes((4, 0, 0, 0))


class Layer(NamedTuple):
    """One layer of a packet: a carrier, or the packet that an endpoint sent."""

    kind: str
    """``vxlan``, ``ipip``, ``wireguard`` or ``packet``."""
    macs: str
    """Empty: it has no Ethernet header."""
    ends: str
    """``172.18.0.2 > 172.18.0.3``, without ports."""
    ttl: int | None
    ports: str
    """``51234 > 8472``; empty where there are none."""
    protocol: str
    """``VXLAN VNI 1``, ``IP-in-IP (protocol 4)``, ``ICMP echo request, id 1, seq 1``."""

    def __str__(self) -> str:
        """As one line, without the MACs."""
        source, _, destination = self.ends.partition(" > ")
        here, _, there = self.ports.partition(" > ")
        ends = f"{source}:{here} > {destination}:{there}" if self.ports else self.ends
        if self.kind == "packet":
            return f"{ends}: {self.protocol}" if ends else self.protocol
        return f"{self.protocol}, {ends}, ttl {self.ttl}"


class Row(NamedTuple):
    """A line of a leg: a hop that was seen, or one that should have been."""

    seen: Hop | None
    wanted: ExpectedHop | None
    """What the model demands here; ``None``: nothing, it is off the path."""
    diverges: bool = False
    """Whether the walk leaves the expected path here."""


def layers(packet: Packet) -> tuple[Layer, ...]:
    """From the outermost carrier to what the endpoint sent."""
    found = []
    layer: Packet | None = packet
    while layer is not None:
        found.append(_layer(layer))
        layer = layer.inner
    return tuple(found)


def _layer(packet: Packet) -> Layer:
    ends = f"{packet.source} > {packet.destination}" if packet.source is not None else ""
    ports = (
        f"{packet.source_port} > {packet.destination_port}"
        if packet.source_port is not None
        else ""
    )
    kind, protocol = "packet", text.protocol(packet)
    if packet.vni is not None:
        kind = "vxlan"
    elif packet.inner is not None:
        kind, protocol = "ipip", str(Ipip())
    elif packet.protocol == UDP and packet.payload[:4] == _WIREGUARD_DATA:
        kind, protocol = "wireguard", "WireGuard, encrypted"
    return Layer(kind, macs(packet), ends, packet.ttl, ports, protocol)


def macs(packet: Packet) -> str:
    """``SOURCE > DESTINATION`` of the frame; empty: it has no Ethernet header."""
    if packet.source_mac is None:
        return ""
    return f"{packet.source_mac} > {packet.destination_mac}"


def rows(leg: Leg) -> Iterator[Row]:
    """What was seen and, where the walk ends early, what was expected, in order."""
    wanted = _matched(leg)
    at = _divergence(leg, wanted)
    for number, hop in enumerate(leg.observed):
        if number == at:
            yield from _expected_next(leg, wanted)
        index = wanted.get(number)
        yield Row(hop, None if index is None else leg.expected[index])
    if at >= len(leg.observed):
        yield from _expected_next(leg, wanted)


def _matched(leg: Leg) -> dict[int, int]:
    """Index of a hop that was seen as it must be → its index in the expected path."""
    free = dict(enumerate(leg.expected))
    matched = {}
    for number, hop in enumerate(leg.observed):
        event = hop.event
        crossing = (event.place, event.interface, event.direction)
        same = (
            index
            for index, each in free.items()
            if hop.expected and crossing == (each.place, each.interface, each.direction)
        )
        index = next(same, None)
        if index is not None:
            matched[number] = index
            del free[index]
    return matched


def _divergence(leg: Leg, wanted: dict[int, int]) -> int:
    """How many hops were seen before the walk left the path; -1: it never did."""
    if leg.divergence is None:
        return -1
    before = [number + 1 for number, index in wanted.items() if index < leg.divergence]
    return max(before, default=0)


def _expected_next(leg: Leg, wanted: dict[int, int]) -> Iterator[Row]:
    """The hop that is missing, and with it those up to the next one that was seen."""
    assert leg.divergence is not None
    seen = set(wanted.values())
    first, end = leg.divergence, len(leg.expected)
    run = takewhile(lambda index: index not in seen, islice(count(first), end - first))
    missing = list(run) or [first]
    for index in missing:
        yield Row(None, leg.expected[index], diverges=index == first)


def hop_name(hop: ExpectedHop | Hop) -> str:
    """``node1/flannel.1 out``."""
    where = hop.event if isinstance(hop, Hop) else hop
    return f"{where.place}/{where.interface} {where.direction}"


def wanted(hop: ExpectedHop) -> str:
    """What must happen at a hop: ``encapsulated (VXLAN VNI 1, UDP 8472)``."""
    carrier = "" if hop.encapsulation is None else f"({hop.encapsulation})"
    return " ".join(filter(None, (hop.what, carrier)))


def endpoint(end: Endpoint) -> str:
    """``default/web (10.244.0.2, on node1)``."""
    words = [end.ip or "no address"] + ([f"on {end.node}"] if end.node != end.place else [])
    return f"{end.place} ({', '.join(words)})"


def target(trace: Trace) -> str:
    """The target; of a Service its address, and the endpoint that it was translated to."""
    service = trace.service
    if service is None:
        return endpoint(trace.target)
    name = f"svc/{service.key} ({service.address}{_entry(service)})"
    if service.chosen is not None:
        end = trace.target
        return f"{name}: {end.place} ({service.chosen}, on {end.node})"
    if service.translated:
        return f"{name}: {service.translated}, which is no endpoint of it"
    return f"{name}: {endpoint(trace.target)}" if service.served else name


def _entry(service: Service) -> str:
    """By which kind of address it is asked, and where it comes in, if that is not usual."""
    if service.kind == CLUSTER_IP:
        return ""
    kind = service.kind.replace("-ip", " IP").replace("-", " ")
    if service.kind == NODE_PORT:
        return f", {kind} of {service.entered}"
    return f", {kind}, entered by {service.entered or 'no node'}"


def tracking(trace: Trace) -> str:
    """The node whose conntrack entries a trace has: the one that translates."""
    return trace.service.entered if trace.service else trace.source.node


def names(trace: Trace) -> tuple[str, str]:
    """Source and target as titles name them."""
    service = trace.service
    return trace.source.place, trace.target.place if service is None else f"svc/{service.key}"


def probe(sent: Probe) -> str:
    """``ICMP echo, 56 bytes``, ``TCP to port 8080``."""
    words = {
        "icmp": f"ICMP echo, {sent.size} bytes",
        "tcp": f"TCP to port {sent.port}",
        "udp": f"UDP to port {sent.port}, {sent.size} bytes",
    }[sent.protocol]
    return f"{words}, don't fragment" if sent.dont_fragment else words


def duration(nanoseconds: int) -> str:
    """With the unit that suits it: ``4.2 µs``, ``1.37 ms``, ``0.50 s``."""
    if abs(nanoseconds) < 999_950:
        return f"{nanoseconds / 1e3:.1f} µs"
    if abs(nanoseconds) < 999_995_000:
        return f"{nanoseconds / 1e6:.2f} ms"
    return f"{nanoseconds / 1e9:.2f} s"


def began(trace: Trace) -> int:
    """When the first hop was, on the clock of the packets; 0: there is none."""
    first = next(iter((*trace.request.observed, *trace.reply.observed)), None)
    if first is not None:
        return first.event.packet.time_ns - first.since_ns
    return min((event.packet.time_ns for event in trace.strays), default=0)


def diverges(trace: Trace) -> bool:
    """Whether a hop is missing or wrong; without any path to expect, nothing was as it must be."""
    legs = (trace.request, trace.reply)
    return not trace.request.expected or any(leg.divergence is not None for leg in legs)


def walked(trace: Trace) -> tuple[Leg, Leg]:
    """The request and the reply with the strays among their hops, in order, without a number."""
    legs = (trace.request, trace.reply)
    first = next(iter(trace.reply.observed), None)
    turned = first.event.packet.time_ns if first else None
    start = began(trace)
    for event in trace.strays:
        time = event.packet.time_ns
        hop = Hop(0, event, ("off the path",), time - start, expected=False)
        back = turned is not None and time >= turned
        legs = (legs[0], _with(legs[1], hop)) if back else (_with(legs[0], hop), legs[1])
    return legs


def _with(leg: Leg, stray: Hop) -> Leg:
    later = (at for at, hop in enumerate(leg.observed) if hop.since_ns > stray.since_ns)
    at = next(later, len(leg.observed))
    return replace(leg, observed=(*leg.observed[:at], stray, *leg.observed[at:]))


def verdict(trace: Trace) -> str:
    """The outcome in a few words."""
    legs = dict(zip(("request", "reply"), walked(trace), strict=True))
    hops = [hop for leg in legs.values() for hop in leg.observed]
    if trace.answered:
        spent = duration(max((hop.since_ns for hop in hops), default=0))
        how = "on" if trace.ok else "but not on"
        return f"answered in {spent}, {how} the expected path"
    if not hops:
        return "not answered: no interface saw the packet"
    name = next((name for name, leg in legs.items() if not leg.complete), "")
    if not name:
        packet = trace.reply.observed[-1].event.packet.innermost if trace.reply.observed else None
        refused = packet is not None and packet.tcp is not None and "R" in packet.tcp.flags
        return "refused with a TCP reset" if refused else "not answered, though a reply arrived"
    if not legs[name].observed:
        return "not answered: the request arrived, and no reply was sent"
    # A copy that a bridge hands to its own device is no step on the way, as in the diagnosis.
    hops = [hop for hop in legs[name].observed if hop.expected or "bridged" not in hop.happened]
    last = (hops or legs[name].observed)[-1]
    return f"not answered: the {name} was last seen at {hop_name(last)}"
