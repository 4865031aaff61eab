"""Which frames belong to the probe: to the request, to the reply, or to an ICMP error about it.

NAT rewrites addresses and ports and encapsulation hides them, so frames are told by what survives
both: a marker in the payload, or TCP's initial sequence number (RFC 9293 section 3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from testbed.packets.packet import ICMP, UDP, Packet
from testbed.verify.trace.model import Event, Probe

__all__ = ["ECHO", "REPLY", "REQUEST", "Correlated", "Sight", "correlate"]

REQUEST, REPLY = "request", "reply"

ECHO = b"echo "
"""What a UDP probe's payload begins with, for netexec to answer it."""

_ECHO_REPLY, _ECHO_REQUEST = 0, 8
_ERRORS = frozenset({3, 11})
"""ICMP: destination unreachable, time exceeded."""
_Role: TypeAlias = Callable[[Packet], str]
"""Asked of innermost packets in the order of time; empty: neither role."""


@dataclass(frozen=True, slots=True)
class Sight:
    """One packet at one interface: an event, or several where it is fragmented."""

    event: Event
    fragments: int = 1

    @property
    def inner(self) -> Packet:
        """The packet without what carries it."""
        return self.event.packet.innermost


@dataclass(slots=True)
class Correlated:
    """The probe's frames, each list in the order of time."""

    request: list[Sight] = field(default_factory=list)
    reply: list[Sight] = field(default_factory=list)
    errors: list[Event] = field(default_factory=list)
    retransmissions: dict[str, int] = field(default_factory=dict)
    """``request`` or ``reply`` → how often TCP sent it again; those frames are in no list."""


def correlate(events: Iterable[Event], probe: Probe) -> Correlated:
    """Sort out the events of one probe; what has nothing to do with it is left out."""
    ordered = sorted(events, key=lambda event: event.packet.time_ns)
    role = _role(probe)
    found = Correlated()
    plain = [event for event in ordered if not _is_error(event)]
    roles = {id(event): role(event.packet.innermost) for event in plain}
    _join_fragments(plain, roles)
    for name, sights in ((REQUEST, found.request), (REPLY, found.reply)):
        mine = [event for event in plain if roles[id(event)] == name]
        sights += _sights(mine)
        if probe.protocol == "tcp":
            sights[:], found.retransmissions[name] = _first_of_each(sights)
    tuples = {_flow(sight.inner) for sight in found.request + found.reply}
    needle = _needle(probe)
    found.errors = [
        event for event in ordered if _is_error(event) and _is_about(event, needle, tuples)
    ]
    return found


def _needle(probe: Probe) -> bytes:
    """What every frame of the probe holds: the marker, or as much of it as a short one can."""
    room = {"icmp": probe.size, "udp": probe.size - len(ECHO)}.get(probe.protocol, 0)
    return probe.marker.encode()[: max(room, 0)]


def _is_error(event: Event) -> bool:
    return event.packet.innermost.icmp_type in _ERRORS


def _is_about(event: Event, needle: bytes, tuples: set[Any]) -> bool:
    quoted = event.packet.innermost.quoted
    if quoted is None:
        return False
    quoted = quoted.innermost
    return bool(needle and needle in quoted.payload) or _flow(quoted) in tuples


def _flow(packet: Packet) -> tuple[Any, ...]:
    """What names the packet's flow, also where only its first 8 bytes are quoted."""
    ports = (packet.source_port, packet.destination_port, packet.icmp_identity)
    return (packet.source, packet.destination, packet.protocol, *ports)


def _is_fragment(packet: Packet) -> bool:
    return bool(packet.more_fragments or packet.fragment_offset)


def _fragments(packet: Packet) -> Iterator[tuple[Any, ...]]:
    """What fragments of one packet have in common, for each layer that is one.

    NAT changes the addresses, so they are no part of it.
    """
    layer: Packet | None = packet
    while layer is not None:
        if _is_fragment(layer):
            yield layer.protocol, layer.identification
        layer = layer.inner


def _offset(packet: Packet) -> int:
    while not _is_fragment(packet) and packet.inner is not None:
        packet = packet.inner
    return packet.fragment_offset or 0


def _join_fragments(events: Sequence[Event], roles: dict[int, str]) -> None:
    """Give fragments behind the first, which have no transport header, the role of the first."""
    known: dict[tuple[Any, ...], str] = {}
    for event in events:
        if roles[id(event)]:
            known |= dict.fromkeys(_fragments(event.packet), roles[id(event)])
    for event in events:
        if not roles[id(event)]:
            found = (known.get(key) for key in _fragments(event.packet))
            roles[id(event)] = next((role for role in found if role), "")


def _crossing(event: Event) -> tuple[Any, ...]:
    """Equal for two sights only if one repeats the other; a loop has another TTL."""
    return event.place, event.interface, event.direction, event.packet.innermost.ttl


def _sights(events: Iterable[Event]) -> list[Sight]:
    """Fragments at one interface joined; one that comes a second time begins another sight.

    Their TTLs do not tell: the kernel writes the headers of those that it forwards again into the
    bytes that the tap still holds.
    """
    sights: list[Sight] = []
    began: dict[tuple[Any, ...], int] = {}
    parts: dict[tuple[Any, ...], set[int]] = {}
    for event in events:
        keys = list(_fragments(event.packet))
        if not keys:
            sights.append(Sight(event))
            continue
        # The outermost fragmentation only: the layer that this interface's MTU made.
        key = (event.place, event.interface, event.direction, keys[0])
        offset = _offset(event.packet)
        again = offset in parts.setdefault(key, set())
        parts[key] = {offset} if again else parts[key] | {offset}
        if key in began and not again:
            sight = sights[began[key]]
            sights[began[key]] = replace(sight, fragments=sight.fragments + 1)
        else:
            began[key] = len(sights)
            sights.append(Sight(event))
    return sights


def _first_of_each(sights: Iterable[Sight]) -> tuple[list[Sight], int]:
    """Only the first of every crossing, and how often the most repeated one was repeated."""
    seen: dict[tuple[Any, ...], int] = {}
    first = []
    for sight in sights:
        crossing = _crossing(sight.event)
        if crossing not in seen:
            first.append(sight)
        seen[crossing] = seen.get(crossing, -1) + 1
    return first, max(seen.values(), default=0)


def _role(probe: Probe) -> _Role:
    needle = _needle(probe)
    if probe.protocol == "tcp":
        return _tcp(probe.sequence)
    return _udp(probe, needle) if probe.protocol == "udp" else _icmp(needle)


def _icmp(needle: bytes) -> _Role:
    echo = {_ECHO_REQUEST: REQUEST, _ECHO_REPLY: REPLY}

    def role(packet: Packet) -> str:
        if packet.protocol != ICMP or packet.icmp_type is None or needle not in packet.payload:
            return ""
        return echo.get(packet.icmp_type, "")

    return role


def _tcp(initial: int) -> _Role:
    answer = ""

    def role(packet: Packet) -> str:
        nonlocal answer
        tcp = packet.tcp
        if tcp is None:
            return ""
        if tcp.flags == "S" and tcp.sequence == initial:
            return REQUEST
        if tcp.flags not in ("S.", "R", "R.") or tcp.acknowledgement != (initial + 1) % 2**32:
            return ""
        answer = answer or tcp.flags
        return REPLY if tcp.flags == answer else ""

    return role


def _udp(probe: Probe, needle: bytes) -> _Role:
    """A reply has the ports and addresses of a request's sight the other way round.

    NAT makes new ones of both; those share an end with one that is known.
    """
    known: dict[tuple[Any, Any], str] = {}

    def role(packet: Packet) -> str:
        if packet.protocol != UDP or packet.source_port is None or needle not in packet.payload:
            return ""
        sender, receiver = _ends(packet)
        first = not known and len(needle) < len(probe.marker)
        if first and (str(packet.destination), receiver[1]) != (probe.ip, probe.port):
            return ""  # with a shorter needle it may be anybody's
        if (sender, receiver) not in known:
            known[sender, receiver] = _role_of_new(sender, receiver, known)
        return known[sender, receiver]

    return role


def _ends(packet: Packet) -> tuple[Any, Any]:
    return (packet.source, packet.source_port), (packet.destination, packet.destination_port)


def _role_of_new(sender: Any, receiver: Any, known: dict[tuple[Any, Any], str]) -> str:
    if known.get((receiver, sender)) == REQUEST:
        return REPLY
    for (other_sender, other_receiver), role in reversed(known.items()):
        if sender == other_sender or receiver == other_receiver:
            return role
    return REQUEST
