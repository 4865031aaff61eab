"""How packets cross the underlay, as assertions name it: ``VXLAN(vni=1, port=8472)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from testbed.packets.packet import IPIP as PROTOCOL_IPIP
from testbed.packets.packet import UDP, Packet

__all__ = ["IPIP", "PLAIN", "VXLAN", "WIREGUARD", "Encapsulation"]


@dataclass(frozen=True, slots=True)
class VXLAN:
    """Frames inside UDP (RFC 7348); ``None`` stands for any."""

    vni: int | None = None
    port: int | None = None
    """The outer destination port: 8472 is Linux's and flannel's, 4789 IANA's and Calico's."""

    def __str__(self) -> str:
        vni = "" if self.vni is None else f" VNI {self.vni}"
        return f"VXLAN{vni}" + ("" if self.port is None else f", UDP {self.port}")

    def mismatch(self, packet: Packet) -> str:
        """Why ``packet`` is not encapsulated so; empty: it is."""
        if packet.vni is None:
            return f"{kind_of(packet)}, not VXLAN"
        wrong = []
        if self.vni not in (None, packet.vni):
            wrong.append(f"VNI {packet.vni}, not {self.vni}")
        if self.port not in (None, packet.destination_port):
            wrong.append(f"UDP {packet.destination_port}, not {self.port}")
        return "; ".join(wrong)


@dataclass(frozen=True, slots=True)
class IPIP:
    """IPv4 packets inside IP, protocol 4 (RFC 2003)."""

    def __str__(self) -> str:
        return "IP-in-IP"

    def mismatch(self, packet: Packet) -> str:
        """Why ``packet`` is not encapsulated so; empty: it is."""
        if packet.protocol == PROTOCOL_IPIP and packet.inner is not None:
            return ""
        return f"{kind_of(packet)}, not IP-in-IP"


@dataclass(frozen=True, slots=True)
class WIREGUARD:
    """Encrypted packets inside UDP: what is in them cannot be read, only that it is not plain."""

    port: int = 51820

    def __str__(self) -> str:
        return f"WireGuard, UDP {self.port}"

    def mismatch(self, packet: Packet) -> str:
        """Why ``packet`` is none of WireGuard's; empty: it looks like one."""
        if packet.protocol == UDP and packet.destination_port == self.port and not packet.inner:
            return ""
        return f"{kind_of(packet)}, not WireGuard"


@dataclass(frozen=True, slots=True)
class _Plain:
    """The pods' packets as they are."""

    def __str__(self) -> str:
        return "plain"

    def mismatch(self, packet: Packet) -> str:
        """Why ``packet`` is not plain; empty: it is."""
        return f"{kind_of(packet)}, not plain" if packet.inner is not None else ""


PLAIN = _Plain()
Encapsulation: TypeAlias = VXLAN | IPIP | WIREGUARD | _Plain


def kind_of(packet: Packet) -> str:
    """How a packet crosses, in words."""
    if packet.inner is None:
        return "plain"
    if packet.vni is not None:
        return f"VXLAN VNI {packet.vni}, UDP {packet.destination_port}"
    return "IP-in-IP" if packet.protocol == PROTOCOL_IPIP else "IPv6-in-IP"
