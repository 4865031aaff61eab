"""Frames decoded to frozen values: outer headers, encapsulation, inner headers, payload.

Only what the testbed's overlays put on the wire is decoded; anything else is kept as payload, and a
truncated or malformed frame decodes as far as it goes. tshark is the independent check in the
tests. Layouts: RFC 791 (IPv4), 768 (UDP), 9293 (TCP), 792 (ICMP), 7348 (VXLAN), 2003 (IP-in-IP).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

__all__ = ["VXLAN_PORTS", "Frame", "decode", "read_pcap"]

VXLAN_PORTS = frozenset({8472, 4789})
"""Linux's default, which flannel uses, and IANA's."""

_IPV4, _VLAN = 0x0800, 0x8100
_ICMP, _IPIP, _TCP, _UDP = 1, 4, 6, 17
_VXLAN_FLAG_I = 0x08
_DONT_FRAGMENT, _MORE_FRAGMENTS, _OFFSET = 0x4000, 0x2000, 0x1FFF
_ETHERNET, _RAW = 1, frozenset({12, 101})
"""Link types: Ethernet, and packets without one, as on tunl0 (the kernel's number and pcap's)."""
_MAGICS = {0xA1B2C3D4: 1_000, 0xA1B23C4D: 1}
"""Magic number → nanoseconds per unit of a timestamp's second field."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One Ethernet frame, or an IP packet without one; absent fields are ``None``."""

    source_mac: str | None
    destination_mac: str | None
    ethertype: int
    source: IPv4Address | None = None
    destination: IPv4Address | None = None
    tos: int | None = None
    """DSCP and, in the two low bits, ECN."""
    identification: int | None = None
    ttl: int | None = None
    dont_fragment: bool | None = None
    more_fragments: bool | None = None
    fragment_offset: int | None = None
    """Bytes."""
    protocol: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    vni: int | None = None
    inner: Frame | None = None
    """The frame inside a VXLAN packet, or the packet inside an IP-in-IP one."""
    payload: bytes = b""
    time_ns: int = 0

    @property
    def innermost(self) -> Frame:
        """The frame that a pod sent."""
        return self.inner.innermost if self.inner else self


def read_pcap(data: bytes, vxlan_ports: Collection[int] = VXLAN_PORTS) -> Iterator[Frame]:
    """Decode a classic pcap file of Ethernet frames or IP packets, up to where it ends or is cut.

    Raises:
        ValueError: not a pcap file, or of another link type.
    """
    if len(data) < 24:
        if data:
            raise ValueError("not a pcap file: shorter than its header")
        return
    for order in "<>":
        magic, *_, link_type = struct.unpack_from(f"{order}IHHiIII", data)
        if magic in _MAGICS:
            break
    else:
        raise ValueError("not a classic pcap file: unknown magic number")
    if link_type != _ETHERNET and link_type not in _RAW:
        raise ValueError(f"link type {link_type} instead of Ethernet (1) or raw IP (101)")
    at = 24
    while at + 16 <= len(data):
        seconds, fraction, length, _ = struct.unpack_from(f"{order}IIII", data, at)
        body = data[at + 16 : at + 16 + length]
        if len(body) < length:
            return
        time_ns = seconds * 10**9 + fraction * _MAGICS[magic]
        if link_type == _ETHERNET:
            yield decode(body, vxlan_ports, time_ns)
        else:
            yield _ipv4(Frame(None, None, _IPV4, payload=body, time_ns=time_ns), vxlan_ports)
        at += 16 + length


def decode(data: bytes, vxlan_ports: Collection[int] = VXLAN_PORTS, time_ns: int = 0) -> Frame:
    """Decode one Ethernet frame; never raises for what is on the wire."""
    macs = [data[:6].hex(":"), data[6:12].hex(":")]
    at = 12
    ethertype = _u16(data, at)
    while ethertype == _VLAN:
        at += 4
        ethertype = _u16(data, at)
    frame = Frame(macs[1], macs[0], ethertype, payload=data[at + 2 :], time_ns=time_ns)
    return _ipv4(frame, vxlan_ports) if ethertype == _IPV4 else frame


def _ipv4(frame: Frame, vxlan_ports: Collection[int]) -> Frame:
    data = frame.payload
    header = (data[0] & 0x0F) * 4 if data else 0
    if header < 20 or len(data) < header or data[0] >> 4 != 4:
        return frame
    total, flags, ttl, protocol = _u16(data, 2), _u16(data, 6), data[8], data[9]
    fields: dict[str, Any] = {
        "source": IPv4Address(data[12:16]),
        "destination": IPv4Address(data[16:20]),
        "tos": data[1],
        "identification": _u16(data, 4),
        "ttl": ttl,
        "dont_fragment": bool(flags & _DONT_FRAGMENT),
        "more_fragments": bool(flags & _MORE_FRAGMENTS),
        "fragment_offset": (flags & _OFFSET) * 8,
        "protocol": protocol,
    }
    body = data[header : max(total, header)]
    # Only a first fragment carries the transport header.
    if flags & _OFFSET == 0:
        fields |= _transport(protocol, body, vxlan_ports)
    fields.setdefault("payload", body)
    return Frame(
        frame.source_mac,
        frame.destination_mac,
        frame.ethertype,
        time_ns=frame.time_ns,
        **fields,
    )


def _transport(protocol: int, body: bytes, vxlan_ports: Collection[int]) -> dict[str, Any]:
    if protocol == _ICMP and len(body) >= 8:
        return {"icmp_type": body[0], "icmp_code": body[1], "payload": body[8:]}
    if protocol == _IPIP and len(body) >= 20:
        packet = Frame(None, None, _IPV4, payload=body)
        return {"inner": _ipv4(packet, vxlan_ports), "payload": body}
    if protocol == _TCP and len(body) >= 20:
        ports = {"source_port": _u16(body, 0), "destination_port": _u16(body, 2)}
        return {**ports, "payload": body[(body[12] >> 4) * 4 :]}
    if protocol == _UDP and len(body) >= 8:
        fields: dict[str, Any] = {
            "source_port": _u16(body, 0),
            "destination_port": _u16(body, 2),
            "payload": body[8:],
        }
        if _u16(body, 2) in vxlan_ports and len(body) >= 16 and body[8] & _VXLAN_FLAG_I:
            fields["vni"] = int.from_bytes(body[12:15], "big")
            fields["inner"] = decode(body[16:], vxlan_ports)
        return fields
    return {}


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")
