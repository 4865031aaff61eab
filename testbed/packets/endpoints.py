"""Who sends to whom: nodes, pods and addresses as ends of a conversation."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

from testbed.packets.packet import Packet

__all__ = ["Ends", "addresses", "is_uplink"]

Address = IPv4Address | IPv6Address


class Ends(NamedTuple):
    """The addresses of two endpoints."""

    one: frozenset[Address]
    other: frozenset[Address]

    @classmethod
    def of(cls, one: object, other: object) -> Ends:
        """Of nodes, pods (anything with ``addresses``), or addresses themselves."""
        return cls(addresses(one), addresses(other))

    def way(self, packet: Packet) -> int:
        """1: what is innermost goes from the one to the other; -1: back; 0: neither."""
        return self.outer_way(packet.innermost)

    def outer_way(self, packet: Packet) -> int:
        """As :meth:`way`, by the outermost addresses."""
        source, destination = packet.source, packet.destination
        if source in self.one and destination in self.other:
            return 1
        return -1 if source in self.other and destination in self.one else 0


def addresses(endpoint: Any) -> frozenset[Address]:
    """All addresses of an endpoint.

    Raises:
        ValueError: it has no ``addresses``, and is none.
    """
    known = getattr(endpoint, "addresses", None)
    return frozenset(known) if known is not None else frozenset({ip_address(str(endpoint))})


def is_uplink(interface: str) -> bool:
    """A node's or router's network card: ``node1/eth0``, but not a pod's ``default/web/eth0``."""
    place, _, device = interface.rpartition("/")
    return "/" not in place and device.startswith("eth")
