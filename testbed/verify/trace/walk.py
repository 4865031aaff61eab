"""The observed walk: the probe's frames in order, laid beside the path that the topology demands.

The namespaces of all nodes share one clock, but the two ends of a veth may stamp a frame in either
order, and a bridge or a tunnel passes the stamp of its port on: the expected path orders those.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import TypeAlias

from testbed.packets.packet import IPIP, UDP, Packet, is_group
from testbed.verify.oracle import Encapsulation, Ipip, Vxlan, Wireguard
from testbed.verify.trace.correlation import Sight, correlate
from testbed.verify.trace.happened import Happenings
from testbed.verify.trace.model import IN, OUT, Endpoint, Event, ExpectedHop, Hop, Leg, Probe

__all__ = ["Expected", "Walk", "crosses", "follow", "mismatch", "tunnel"]

Expected: TypeAlias = tuple[tuple[ExpectedHop, ...], tuple[ExpectedHop, ...]]
_NO_NODES: Mapping[str, IPv4Address] = MappingProxyType({})
_NO_MACS: Mapping[str, Collection[str]] = MappingProxyType({})
_SKEW_NS = 100_000
"""How far stamps of one frame can be the wrong way round."""


@dataclass(frozen=True, slots=True)
class Walk:
    """Where the probe went."""

    request: Leg
    reply: Leg
    errors: tuple[Event, ...]
    """ICMP errors about it, in order."""
    strays: tuple[Event, ...]
    """Sights of it in namespaces that the expected path does not touch; they are in no leg."""


def follow(
    events: Sequence[Event],
    probe: Probe,
    expected: Expected,
    source: Endpoint,
    target: Endpoint,
    *,
    nodes: Mapping[str, IPv4Address] = _NO_NODES,
    macs: Mapping[str, Collection[str]] = _NO_MACS,
    sent: Packet | None = None,
    delivered: bool = True,
) -> Walk:
    """Find the probe in what was captured.

    Args:
        events: every frame that any tap saw, in any order.
        probe: what was sent.
        expected: the path there and the path back.
        source: who sent it.
        target: who is to answer.
        nodes: the underlay's addresses, between which encapsulated packets must go; without a
            node's address, its part of the outer header is not judged.
        macs: of the interfaces of the source's and the target's namespace. A frame for another MAC
            is not delivered; without them none is judged by its MAC.
        sent: the request as the sender's socket gave it; ``None``: as the first hop saw it.
        delivered: whether the target is at the end of the request's path; otherwise the node there
            rejects or drops it.
    """
    found = correlate(events, probe)
    places = {hop.place for leg in expected for hop in leg}
    here, strays = _split([*found.request, *found.reply], places)
    began = min((sight.event.packet.time_ns for sight in here), default=0)
    happenings = Happenings(sent)
    legs: list[Leg] = []
    for role, sights, path, end in (
        ("request", found.request, expected[0], target),
        ("reply", found.reply, expected[1], source),
    ):
        near, away = _split(sights, places)
        own = macs.get(end.place, ())
        aligned = _aligned(events, near, path, nodes, own)
        complete = _complete(aligned, path, end, own) and (delivered or role == "reply")
        seen = [sight for sight, _ in aligned]
        told = happenings.of(seen, complete, found.retransmissions.get(role, 0))
        number = len(legs[0].observed) + 1 if legs else 1
        hops = _hops(aligned, told, number, began)
        legs.append(Leg(tuple(path), hops, _divergence(aligned, path, away), complete))
    strays.sort(key=lambda event: event.packet.time_ns)
    return Walk(legs[0], legs[1], tuple(found.errors), tuple(strays))


def _split(sights: Iterable[Sight], places: Collection[str]) -> tuple[list[Sight], list[Event]]:
    """What was seen on the path's places, and elsewhere; without a path every place is on it."""
    sights = list(sights)
    near = [sight for sight in sights if not places or sight.event.place in places]
    return near, [sight.event for sight in sights if places and sight.event.place not in places]


_Aligned: TypeAlias = list[tuple[Sight, int | None]]
"""Sights in order, with the index of the expected hop that each is."""


def _hops(
    aligned: _Aligned, told: Iterable[tuple[str, ...]], number: int, began: int
) -> tuple[Hop, ...]:
    """Numbered from ``number``; ``began`` is the time of the first hop of all."""
    return tuple(
        Hop(
            count,
            sight.event,
            words,
            sight.event.packet.time_ns - began,
            index is not None,
            sight.fragments,
        )
        for count, ((sight, index), words) in enumerate(zip(aligned, told, strict=True), number)
    )


def _aligned(
    events: Iterable[Event],
    sights: Sequence[Sight],
    path: Sequence[ExpectedHop],
    nodes: Mapping[str, IPv4Address],
    macs: Collection[str],
) -> _Aligned:
    free = dict(enumerate(path))
    aligned: _Aligned = []
    for sight in sights:
        index = next(
            (
                index
                for index, hop in free.items()
                if crosses(sight.event, hop)
                and not mismatch(sight.event, path, index, nodes)
                and (index + 1 < len(path) or _is_for(sight.event, macs))
            ),
            None,
        )
        if index is not None:
            del free[index]
        aligned.append((sight, index))
    return _settled(aligned + _encrypted(events, aligned, free, path, nodes))


def crosses(event: Event, hop: ExpectedHop) -> bool:
    """Whether a sight is at this interface and goes this way, whatever it looks like."""
    return (event.place, event.interface, event.direction) == (
        hop.place,
        hop.interface,
        hop.direction,
    )


def mismatch(
    event: Event,
    path: Sequence[ExpectedHop],
    index: int,
    nodes: Mapping[str, IPv4Address] = _NO_NODES,
) -> str:
    """How a sight of the packet differs from what it must look like at a hop of its path.

    Returns:
        Words such as ``not encapsulated``; empty: as it must be.
    """
    packet, how = event.packet, path[index].encapsulation
    if wrong := _wrong_encapsulation(packet, how) or _wrong_end(packet, path[index]):
        return wrong
    if how is None:
        return ""
    first, last = tunnel(path, index)
    for word, address, node in (
        ("source", packet.source, first),
        ("destination", packet.destination, last),
    ):
        if node in nodes and address != nodes[node]:
            return f"outer {word} {address}, not {nodes[node]} ({node})"
    return ""


def _wrong_end(packet: Packet, hop: ExpectedHop) -> str:
    """Translated where it must not be, or not where it must."""
    if isinstance(hop.encapsulation, Wireguard):
        return ""  # nobody can read what is inside
    inner = packet.innermost
    for word, address, wanted in (
        ("source", inner.source, hop.source),
        ("destination", inner.destination, hop.destination),
    ):
        if wanted and str(address) != wanted:
            return f"{word} {address}, not {wanted}"
    masqueraded = hop.masqueraded and str(inner.source) == hop.masqueraded
    return f"source {inner.source}, not masqueraded" if masqueraded else ""


def _wrong_encapsulation(packet: Packet, how: Encapsulation) -> str:
    if how is None:
        return "encapsulated" if packet.inner is not None else ""
    if isinstance(how, Wireguard):
        ports = (packet.source_port, packet.destination_port)
        return "" if packet.protocol == UDP and how.port in ports else "not encrypted"
    if packet.inner is None:
        return "not encapsulated"
    if isinstance(how, Vxlan):
        right = (packet.vni, packet.destination_port) == (how.vni, how.port)
        return "" if right else f"not {how}"
    right = isinstance(how, Ipip) and packet.protocol == IPIP
    return "" if right else f"not {how}"


def tunnel(path: Sequence[ExpectedHop], index: int) -> tuple[str, str]:
    """The nodes that put the encapsulation of this hop on and take it off."""
    first = last = index
    while first > 0 and path[first - 1].encapsulation == path[index].encapsulation:
        first -= 1
    while last + 1 < len(path) and path[last + 1].encapsulation == path[index].encapsulation:
        last += 1
    return path[first].node, path[last].node


def _encrypted(
    events: Iterable[Event],
    aligned: _Aligned,
    free: Mapping[int, ExpectedHop],
    path: Sequence[ExpectedHop],
    nodes: Mapping[str, IPv4Address],
) -> _Aligned:
    """Sights of WireGuard's packets: only their time says whose they are."""
    times = {index: sight.event.packet.time_ns for sight, index in aligned if index is not None}
    found: _Aligned = []
    for index in [each for each in free if isinstance(path[each].encapsulation, Wireguard)]:
        before = max((times[each] for each in times if each < index), default=None)
        after = min((times[each] for each in times if each > index), default=None)
        for event in sorted(events, key=lambda each: each.packet.time_ns):
            time = event.packet.time_ns
            if (
                before is not None
                and time >= before
                and (after is None or time <= after)
                and crosses(event, path[index])
                and not mismatch(event, path, index, nodes)
            ):
                times[index] = time
                found.append((Sight(event), index))
                break
    return found


def _settled(aligned: _Aligned) -> _Aligned:
    """In the order of time; where stamps are as good as equal, in that of the path."""
    ordered = sorted(aligned, key=lambda each: each[0].event.packet.time_ns)
    for end in range(1, len(ordered)):
        for at in range(end, 0, -1):
            (early, first), (late, second) = ordered[at - 1], ordered[at]
            skew = late.event.packet.time_ns - early.event.packet.time_ns
            if first is None or second is None or first < second or abs(skew) > _SKEW_NS:
                break
            ordered[at - 1], ordered[at] = ordered[at], ordered[at - 1]
    return ordered


def _is_for(event: Event, macs: Collection[str]) -> bool:
    """Whether a frame is for an interface with one of these MACs, or for several, or nobody knows.

    A tap also sees what the kernel drops because it is for another host.
    """
    mac = event.packet.destination_mac
    return not macs or mac is None or mac in macs or is_group(mac)


def _complete(
    aligned: _Aligned, path: Sequence[ExpectedHop], end: Endpoint, macs: Collection[str]
) -> bool:
    """Whether it arrived: at the last expected hop, or in some other way where it should end."""
    if any(index is not None and index == len(path) - 1 for _, index in aligned):
        return True
    return any(
        sight.event.place == end.place
        and sight.event.direction == IN
        and sight.event.packet.inner is None
        and _is_for(sight.event, macs)
        and str(sight.event.packet.destination) == end.ip
        for sight, _ in aligned
    )


def _divergence(
    aligned: _Aligned, path: Sequence[ExpectedHop], away: Sequence[Event]
) -> int | None:
    """The first expected hop that was not seen as it must be."""
    times = {index: sight.event.packet.time_ns for sight, index in aligned if index is not None}
    for index, hop in enumerate(path):
        invisible = isinstance(hop.encapsulation, Wireguard) and any(each > index for each in times)
        if index not in times and not invisible:
            return index
        if index in times and index - 1 in times and _detour(times[index - 1], times[index], away):
            return index
    return None


def _detour(begin: int, end: int, away: Iterable[Event]) -> bool:
    """Whether someone off the path forwarded it between two hops of the path."""
    return any(event.direction == OUT and begin < event.packet.time_ns <= end for event in away)
