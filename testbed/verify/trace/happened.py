"""What was done to a packet between two sights of it, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbed.packets.packet import UDP, Packet
from testbed.verify.oracle import Vxlan, Wireguard
from testbed.verify.trace.correlation import Sight
from testbed.verify.trace.devices import enters, shapes

__all__ = ["Happenings", "turned"]

_WIREGUARD_TRANSPORT = 4
"""The first byte of a WireGuard data message."""


class Happenings:
    """Words for the hops of a request and then its reply, which undoes the request's NAT.

    ``sent`` is the request as the sender's socket gave it, and what that is to hear is its reverse:
    NAT of a node's own packets is done before an interface sees them go, and undone after one saw
    them come. ``None``: as the first hop saw it.
    """

    def __init__(self, sent: Packet | None = None) -> None:
        self._translated: set[tuple[str, str, str]] = set()
        self._sent = sent
        self._legs = 0

    def of(
        self, sights: Sequence[Sight], complete: bool, retransmissions: int = 0
    ) -> list[tuple[str, ...]]:
        """The words of each sight; of a complete leg, the last one was delivered."""
        told = []
        reply, self._legs = self._legs > 0, self._legs + 1
        for index, sight in enumerate(sights):
            words = ["sent"] if index == 0 else list(self._between(sights[index - 1], sight))
            if index == 0 and self._sent and not reply:
                words += self._translations(self._sent, sight.inner)
            if index == 0 and retransmissions:
                times = "once" if retransmissions == 1 else f"{retransmissions} times"
                words.append(f"retransmitted {times}")
            if complete and index == len(sights) - 1 and enters(sight.event):
                words.append("delivered")
                if self._sent and reply:
                    words += self._translations(sight.inner, turned(self._sent))
            told.append(tuple(words))
        return told

    def _between(self, before: Sight, now: Sight) -> Iterator[str]:
        yield from _moved(before, now)
        encrypted = any(_is_encrypted(sight.event.packet) for sight in (before, now))
        if not encrypted:
            yield from self._translations(before.inner, now.inner)
        if now.fragments > before.fragments:
            yield "fragmented"
        elif now.fragments < before.fragments and shapes(now.event):
            yield f"{before.fragments - now.fragments} fragments lost"
        elif now.fragments < before.fragments:
            yield "reassembled"

    def _translations(self, before: Packet, now: Packet) -> Iterator[str]:
        """NAT, by the innermost packet's addresses and ports."""
        for kind, field in (("DNAT", "destination"), ("SNAT", "source")):
            old, new = _end(before, field), _end(now, field)
            if old == new:
                continue
            undone = "SNAT" if kind == "DNAT" else "DNAT"
            if (undone, new, old) in self._translated:
                yield f"{undone} reversed {old} to {new}"
            else:
                self._translated.add((kind, old, new))
                yield f"{kind}ed {old} to {new}"


def turned(packet: Packet) -> Packet:
    """What answers ``packet``, as far as rules and routes look at it."""
    return packet._replace(
        source=packet.destination,
        destination=packet.source,
        source_port=packet.destination_port,
        destination_port=packet.source_port,
    )


def _end(packet: Packet, field: str) -> str:
    address, port = getattr(packet, field), getattr(packet, f"{field}_port")
    return f"{address}" if port is None else f"{address}:{port}"


def _moved(before: Sight, now: Sight) -> Iterator[str]:
    """How it came from one interface to the next."""
    old, new = before.event, now.event
    if old.place != new.place:
        yield "veth crossing" if old.node == new.node else "underlay crossing"
        return
    carried, carries = _carrier(old.packet), _carrier(new.packet)
    if carried != carries:
        yield f"encapsulated ({carries})" if carries else "decapsulated"
    elif (before.inner.ttl or 0) > (now.inner.ttl or 0) or (
        carries and (old.packet.ttl or 0) > (new.packet.ttl or 0)
    ):
        yield "routed"
    elif old.interface != new.interface and not carries and _same_macs(old.packet, new.packet):
        yield "shaped" if shapes(new) else "bridged"


def _carrier(packet: Packet) -> str:
    """What the packet is inside of; empty: nothing."""
    if packet.vni is not None:
        return str(Vxlan(packet.vni, packet.destination_port or 0))
    if packet.inner is not None:
        return "IP-in-IP, protocol 4"
    if _is_encrypted(packet):
        return str(Wireguard(packet.destination_port or 0))
    return ""


def _is_encrypted(packet: Packet) -> bool:
    return (
        packet.protocol == UDP
        and packet.payload[:4] == bytes((_WIREGUARD_TRANSPORT, 0, 0, 0))
        and packet.inner is None
    )


def _same_macs(old: Packet, new: Packet) -> bool:
    return (old.source_mac, old.destination_mac) == (new.source_mac, new.destination_mac)
