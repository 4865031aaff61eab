"""A captured packet as a small frozen value: outer headers, encapsulation, inner packet, payload.

A packet inside another (VXLAN, IP-in-IP, the one that an ICMP error quotes) is a packet itself.
What a frame does not have is ``None``. The headers are RFC 791 (IPv4), 8200 (IPv6), 826 (ARP),
768 (UDP), 9293 (TCP), 792 and 4443 (ICMP), 7348 (VXLAN) and 2003 (IP-in-IP).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

__all__ = [
    "ARP",
    "ICMP",
    "ICMPV6",
    "IPIP",
    "IPV4",
    "IPV6",
    "IPV6_IN_IP",
    "TCP",
    "UDP",
    "Arp",
    "Packet",
    "Tcp",
    "is_group",
]

IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
"""Ethertypes."""
ICMP, IPIP, TCP, UDP, IPV6_IN_IP, ICMPV6 = 1, 4, 6, 17, 41, 58
"""IP protocols."""


def is_group(mac: str) -> bool:
    """Whether a MAC is of several: broadcast, multicast."""
    return bool(int(mac[:2], 16) & 1)


class Arp(NamedTuple):
    """What an ARP packet says."""

    operation: int
    """1 asks, 2 answers."""
    sender_mac: str
    sender: IPv4Address
    target_mac: str
    target: IPv4Address


class Tcp(NamedTuple):
    """What a TCP header has beyond ports."""

    sequence: int
    acknowledgement: int
    flags: str
    """Letters as tcpdump's: ``S``, ``S.``, ``.``, ``P.``, ``F.``, ``R``, ``R.``."""
    window: int


class Packet(NamedTuple):
    """One frame as an interface saw it, or a packet inside another one."""

    source_mac: str | None = None
    destination_mac: str | None = None
    ethertype: int = 0
    """Below VLAN tags."""
    source: IPv4Address | IPv6Address | None = None
    destination: IPv4Address | IPv6Address | None = None
    tos: int | None = None
    """DSCP and, in the two low bits, ECN; IPv6 calls it traffic class."""
    identification: int | None = None
    ttl: int | None = None
    """IPv6 calls it hop limit."""
    dont_fragment: bool | None = None
    more_fragments: bool | None = None
    fragment_offset: int | None = None
    """Bytes."""
    protocol: int | None = None
    """Of the transport header; for IPv6 the one behind its extension headers."""
    source_port: int | None = None
    destination_port: int | None = None
    tcp: Tcp | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    icmp_identity: int | None = None
    """Of an echo request or reply."""
    icmp_sequence: int | None = None
    icmp_mtu: int | None = None
    """What *fragmentation needed* (IPv6: *packet too big*) says would fit."""
    quoted: Packet | None = None
    """The packet that an ICMP error is about, as far as it is quoted."""
    vni: int | None = None
    """Set for VXLAN."""
    inner: Packet | None = None
    """The frame inside VXLAN, or the packet inside IP-in-IP."""
    arp: Arp | None = None
    vlans: tuple[int, ...] = ()
    """VLAN identifiers, outermost first."""
    payload: bytes = b""
    """What follows the transport header; empty where ``inner`` or ``quoted`` holds it."""
    time_ns: int = 0
    """Since the epoch."""
    length: int = 0
    """Bytes on the wire, however many of them were captured."""
    interface: str = ""
    """Where it was seen: ``node1/flannel.1``, ``default/web-0/eth0``."""
    direction: str = ""
    """``in`` or ``out`` as that interface saw it; empty where the capture does not say."""

    def __repr__(self) -> str:
        """The fields that are set, the payload by its length: for reports of failed tests."""
        shown = {
            name: value for name, value in self._asdict().items() if value not in (None, "", ())
        }
        shown["payload"] = f"<{len(self.payload)} bytes>"
        return f"Packet({', '.join(f'{name}={value}' for name, value in shown.items())})"

    @property
    def innermost(self) -> Packet:
        """The packet that an endpoint sent, without what carried it."""
        packet = self
        while packet.inner is not None:
            packet = packet.inner
        return packet
