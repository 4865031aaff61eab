"""What is in a frame: link header, packet, transport header, and what is inside of that.

Each header is read by itself, and one that is damaged ends the reading: what is there of it is the
payload of the packet around it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

from testbed.packets import headers
from testbed.packets.packet import (
    ARP,
    ICMP,
    ICMPV6,
    IPIP,
    IPV4,
    IPV6,
    IPV6_IN_IP,
    TCP,
    UDP,
    Arp,
    Packet,
    Tcp,
)

__all__ = ["NOTHING", "Inside", "Seen", "ethernet", "nesting", "network"]

_VXLAN_FLAG_I, _VXLAN_BYTES = 0x08, 8
_DONT_FRAGMENT, _MORE_FRAGMENTS, _OFFSET = 0x4000, 0x2000, 0x1FFF
_ECHO, _UNREACHABLE, _FRAGMENTATION_NEEDED = (0, 8), 3, 4
_QUOTING = {3, 4, 5, 11, 12}
_ECHO6, _TOO_BIG, _QUOTING6 = (128, 129), 2, {1, 2, 3, 4}
_REST = 4
"""Bytes of an ICMP header behind its checksum, whose meaning depends on its type."""
_LARGEST_802_3 = 1500
"""Up to here, what is in the place of the ethertype is the length of the frame."""
_LETTERS = tuple(zip((0x01, 0x02, 0x04, 0x08, 0x10, 0x20), "FSRP.U", strict=True))
_FLAGS = tuple("".join(letter for bit, letter in _LETTERS if flags & bit) for flags in range(0x40))
_DEEPEST = 16
"""So many packets may be inside each other; no network nests more, but damage can look like it."""


class Seen(NamedTuple):
    """What is known of a frame besides its bytes."""

    time_ns: int = 0
    length: int = 0
    interface: str = ""
    direction: str = ""


class Inside(NamedTuple):
    """How what is inside a packet is read."""

    ports: Collection[int]
    """UDP destination ports that carry VXLAN."""
    deeper: Inside | None = None
    """The same for what is inside of that; ``None``: that is payload."""


@lru_cache(maxsize=64)
def nesting(ports: frozenset[int]) -> Inside:
    """How frames are read where VXLAN has these ports."""
    inside = Inside(ports)
    for _ in range(_DEEPEST - 1):
        inside = Inside(ports, inside)
    return inside


_Link = tuple[str | None, str | None, int]
"""The fields of the link header: ``source_mac``, ``destination_mac``, ``ethertype``."""
_Read = tuple[tuple[Any, ...], bytes]
"""The fields that a header and what is in it give, and the payload behind them."""
NOTHING: tuple[None, ...] = (None,) * 21
"""The fields from ``source`` to ``arp``."""
_NO_TRANSPORT: tuple[None, ...] = (None,) * 11
"""The fields from ``source_port`` to ``inner``."""


def ethernet(data: bytes, inside: Inside, seen: Seen) -> Packet:
    """A frame of Ethernet, also inside VXLAN."""
    try:
        frame = headers.Ethernet(data)
    except headers.DamagedError:  # the addresses can still be told, as far as they are there
        link = data[6:12].hex(":") or None, data[:6].hex(":") or None, 0
        return Packet._make((*link, *NOTHING, (), data[12:], *seen))
    vlans, ethertype, body = headers.tags(frame.type, frame.data)
    if 0 < ethertype <= _LARGEST_802_3:
        body = body[:ethertype]
    link = frame.src.hex(":"), frame.dst.hex(":"), ethertype
    return network(link, vlans, body, inside, seen)


def network(link: _Link, vlans: tuple[int, ...], body: bytes, inside: Inside, seen: Seen) -> Packet:
    """The packet whose link header has been read."""
    read = _NETWORKS.get(link[2])
    fields: tuple[Any, ...] = NOTHING
    try:
        if read is not None:
            fields, body = read(body, inside)
    except headers.DamagedError:
        fields = NOTHING
    return Packet._make((*link, *fields, vlans, body, *seen))


def _arp(data: bytes, inside: Inside) -> _Read:
    del inside
    said = headers.ARP(data)
    if (said.hrd, said.pro, said.hln, said.pln) != (1, IPV4, 6, 4):
        return NOTHING, data
    sender, target = IPv4Address(said.spa), IPv4Address(said.tpa)
    arp = Arp(said.op, said.sha.hex(":"), sender, said.tha.hex(":"), target)
    return (*NOTHING[:-1], arp), b""


@lru_cache(maxsize=4096)
def _address(packed: bytes) -> IPv4Address | IPv6Address:
    return ip_address(packed)


def _ipv4(data: bytes, inside: Inside) -> _Read:
    header = headers.IPV4(data)
    version, begin = header._v_hl >> 4, (header._v_hl & 0xF) * 4
    if version != 4 or begin < header.__hdr_len__:
        return NOTHING, data
    body = data[begin : header.len or None]  # 0: longer than it can say, before segmentation
    fragment, protocol = header._flags_offset, header.p
    offset = (fragment & _OFFSET) * 8
    transport, payload = (_NO_TRANSPORT, body) if offset else _transport(protocol, body, inside)
    fields = (
        _address(header.src),
        _address(header.dst),
        header.tos,
        header.id,
        header.ttl,
        fragment & _DONT_FRAGMENT != 0,
        fragment & _MORE_FRAGMENTS != 0,
        offset,
        protocol,
        *transport,
        None,
    )
    return fields, payload


def _ipv6(data: bytes, inside: Inside) -> _Read:
    header = headers.IPV6(data)
    first = header._v_fc_flow
    if first >> 28 != 6:
        return NOTHING, data
    body = header.data[: header.plen or None]
    protocol, body, fragment = headers.extensions(header.nxt, body)
    parts: tuple[Any, ...] = None, None, None
    if fragment is not None:
        where = fragment._frag_off_resv_m
        parts = fragment.id, where & 1 != 0, where & ~7
    later = parts[2]
    transport, payload = (_NO_TRANSPORT, body) if later else _transport(protocol, body, inside)
    fields = (
        _address(header.src),
        _address(header.dst),
        first >> 20 & 0xFF,
        parts[0],
        header.hlim,
        None,
        *parts[1:],
        protocol,
        *transport,
        None,
    )
    return fields, payload


def _transport(protocol: int, body: bytes, inside: Inside) -> _Read:
    read = _TRANSPORTS.get(protocol)
    if read is None:
        return _NO_TRANSPORT, body
    try:
        return read(body, inside)
    except headers.DamagedError:
        if protocol in (TCP, UDP) and len(body) >= 4:  # cut, as in an ICMP error
            ports = int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big")
            return (*ports, *_NO_TRANSPORT[2:]), body
        return _NO_TRANSPORT, body


def _udp(data: bytes, inside: Inside) -> _Read:
    datagram = headers.UDP(data)
    length = datagram.ulen - datagram.__hdr_len__
    body = datagram.data if length < 0 else datagram.data[:length]
    ports = datagram.sport, datagram.dport
    deeper = inside.deeper
    if (
        datagram.dport not in inside.ports
        or len(body) < _VXLAN_BYTES
        or not body[0] & _VXLAN_FLAG_I
        or deeper is None
    ):
        return (*ports, *_NO_TRANSPORT[2:]), body
    frame = body[_VXLAN_BYTES:]
    seen = Seen(length=max(length - _VXLAN_BYTES, len(frame)))
    vni = int.from_bytes(body[4:7], "big")
    return (*ports, *_NO_TRANSPORT[4:], vni, ethernet(frame, deeper, seen)), b""


def _tcp(data: bytes, inside: Inside) -> _Read:
    del inside
    segment = headers.TCP(data)
    begin, flags = (segment._off_flags >> 12) * 4, _FLAGS[segment._off_flags & 0x3F]
    said = Tcp(segment.seq, segment.ack, flags, segment.win)
    payload = data[max(begin, segment.__hdr_len__) :]
    return (segment.sport, segment.dport, said, *_NO_TRANSPORT[3:]), payload


def _icmp(data: bytes, inside: Inside) -> _Read:
    message = headers.ICMP(data)
    code, mtu = (message.type, message.code), None
    if code == (_UNREACHABLE, _FRAGMENTATION_NEEDED):
        mtu = int.from_bytes(message.data[2:4], "big")
    return _message(message, mtu, _ECHO, IPV4 if code[0] in _QUOTING else 0, inside)


def _icmp6(data: bytes, inside: Inside) -> _Read:
    message = headers.ICMP(data)
    kind, mtu = message.type, None
    if kind == _TOO_BIG:
        mtu = int.from_bytes(message.data[:4], "big")
    return _message(message, mtu, _ECHO6, IPV6 if kind in _QUOTING6 else 0, inside)


def _message(
    message: Any, mtu: int | None, echo: Collection[int], quotes: int, inside: Inside
) -> _Read:
    """An ICMP message; ``quotes`` is the ethertype of the packet that it is about, 0 for none."""
    rest, payload = message.data, message.data[_REST:]
    identity = sequence = quoted = None
    if len(rest) < _REST:
        mtu = None
    elif message.type in echo:
        identity, sequence = int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big")
    if quotes:
        quoted, payload = _contained(quotes, payload, inside)
    told = message.type, message.code, identity, sequence, mtu, quoted
    return (None, None, None, *told, None, None), payload


def _ip_in_ip(data: bytes, inside: Inside) -> _Read:
    inner, payload = _contained(IPV4, data, inside)
    return (*_NO_TRANSPORT[:-1], inner), payload


def _ip6_in_ip(data: bytes, inside: Inside) -> _Read:
    inner, payload = _contained(IPV6, data, inside)
    return (*_NO_TRANSPORT[:-1], inner), payload


def _contained(ethertype: int, data: bytes, inside: Inside) -> tuple[Packet | None, bytes]:
    """The IP packet that ``data`` is, if its header is there, and otherwise the payload."""
    deeper = inside.deeper
    if deeper is None:
        return None, data
    said = data[2:4] if ethertype == IPV4 else data[4:6]
    length = int.from_bytes(said, "big")
    if ethertype == IPV6:
        length += headers.IPV6.__hdr_len__
    found = network((None, None, ethertype), (), data, deeper, Seen(length=length or len(data)))
    return (None, data) if found.source is None else (found, b"")


_NETWORKS: Mapping[int, Callable[[bytes, Inside], _Read]] = {
    ARP: _arp,
    IPV4: _ipv4,
    IPV6: _ipv6,
}
_TRANSPORTS: Mapping[int, Callable[[bytes, Inside], _Read]] = {
    ICMP: _icmp,
    IPIP: _ip_in_ip,
    TCP: _tcp,
    UDP: _udp,
    IPV6_IN_IP: _ip6_in_ip,
    ICMPV6: _icmp6,
}
