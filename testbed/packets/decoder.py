"""Frames decoded to :class:`~testbed.packets.packet.Packet` values, by dpkt.

dpkt knows the headers; what it leaves to us is the encapsulation inside UDP, and never to fail: a
malformed or truncated frame decodes as far as it goes. docs/decoding.md says why dpkt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

from dpkt import arp, icmp, icmp6, sll, sll2, tcp, udp
from dpkt.ethernet import Ethernet
from dpkt.ip import IP
from dpkt.ip6 import IP6

from testbed.packets.packet import IPV4, IPV6, TCP, UDP, Arp, Packet, Tcp

__all__ = ["LINK_TYPES", "VXLAN_PORTS", "decode"]

VXLAN_PORTS = frozenset({8472, 4789})
"""Linux's default, which flannel uses, and IANA's."""

_ETHERNET, _SLL, _SLL2 = 1, 113, 276
_RAW = frozenset({12, 101, 228, 229})
LINK_TYPES = frozenset({_ETHERNET, _SLL, _SLL2}) | _RAW
"""What :func:`decode` reads: Ethernet, tcpdump's ``any``, and packets without a link header, as on
tunl0."""

_VXLAN_FLAG_I = 0x08
_DONT_FRAGMENT, _MORE_FRAGMENTS, _OFFSET = 0x4000, 0x2000, 0x1FFF
_ECHO, _UNREACHABLE, _FRAGMENTATION_NEEDED = (0, 8), 3, 4
_QUOTING = {3, 4, 5, 11, 12}
_ECHO6, _TOO_BIG, _QUOTING6 = (128, 129), 2, {1, 2, 3, 4}
_OUTGOING = 4
_FLAGS = tuple(zip((0x02, 0x01, 0x04, 0x08, 0x20, 0x10), "SFRPU.", strict=True))


class _Seen(NamedTuple):
    """What is known of a frame besides its bytes."""

    time_ns: int = 0
    length: int = 0
    interface: str = ""
    direction: str = ""


def decode(
    data: bytes,
    link_type: int = _ETHERNET,
    *,
    ports: Collection[int] = VXLAN_PORTS,
    time_ns: int = 0,
    length: int = 0,
    interface: str = "",
    direction: str = "",
) -> Packet:
    """Decode one frame; whatever is on the wire, this returns a packet.

    Args:
        data: the frame, as far as it was captured.
        link_type: one of :data:`LINK_TYPES`, in the numbers of pcap files.
        ports: UDP destination ports that carry VXLAN.
        time_ns: when it was seen, since the epoch.
        length: its bytes on the wire; 0: as many as there are.
        interface: where it was seen.
        direction: ``in`` or ``out``.
    """
    seen = _Seen(time_ns, length or len(data), interface, direction)
    try:
        return _link(data, link_type, ports, seen)
    except Exception:
        # dpkt raises its own errors where it looks for them, elsewhere what struct, indexing or
        # deep nesting raise.
        return Packet._make((None, None, 0, None, None, *_NOTHING, (), data, *seen))


_NOTHING: tuple[None, ...] = (None,) * 19
"""The fields from ``tos`` to ``arp``."""


def _link(data: bytes, link_type: int, ports: Collection[int], seen: _Seen) -> Packet:
    if link_type == _ETHERNET:
        return _ethernet(data, ports, seen)
    if link_type in _RAW:
        if data[0] >> 4 == 6:
            return _network(IP6(data), IPV6, None, None, (), ports, seen)
        return _network(IP(data), IPV4, None, None, (), ports, seen)
    cooked = sll2.SLL2(data) if link_type == _SLL2 else sll.SLL(data)
    seen = seen._replace(direction="out" if cooked.type == _OUTGOING else "in")
    mac = cooked.hdr[: cooked.hlen].hex(":") or None
    return _network(cooked.data, cooked.ethtype, mac, None, (), ports, seen)


def _ethernet(data: bytes, ports: Collection[int], seen: _Seen) -> Packet:
    try:
        frame = Ethernet(data)
    except Exception:  # as in decode(); the addresses and the type can still be told
        macs = data[6:12].hex(":") or None, data[:6].hex(":") or None
        ethertype = int.from_bytes(data[12:14], "big")
        return Packet._make((*macs, ethertype, None, None, *_NOTHING, (), data[14:], *seen))
    source, destination = frame.src.hex(":"), frame.dst.hex(":")
    tags = getattr(frame, "vlan_tags", None)
    if tags is None:
        return _network(frame.data, frame.type, source, destination, (), ports, seen)
    vlans = tuple(tag.id for tag in tags)
    return _network(frame.data, tags[-1].type, source, destination, vlans, ports, seen)


def _network(
    body: Any,
    ethertype: int,
    source: str | None,
    destination: str | None,
    vlans: tuple[int, ...],
    ports: Collection[int],
    seen: _Seen,
) -> Packet:
    """The packet whose link header has been read; ``body`` is dpkt's packet, or bytes."""
    kind = type(body)
    if kind is IP and ethertype == IPV4 and body.v == 4:
        return _ipv4(body, source, destination, vlans, ports, seen)
    if kind is IP6 and ethertype == IPV6 and body.v == 6:
        return _ipv6(body, source, destination, vlans, ports, seen)
    said, rest = None, _bytes(body)
    if kind is arp.ARP and (body.hrd, body.pro) == (1, IPV4):
        sender, target = IPv4Address(body.spa), IPv4Address(body.tpa)
        said = Arp(body.op, body.sha.hex(":"), sender, body.tha.hex(":"), target)
        rest = b""
    link = source, destination, ethertype
    return Packet._make((*link, None, None, *_NOTHING[:-1], said, vlans, rest, *seen))


@lru_cache(maxsize=4096)
def _address(packed: bytes) -> IPv4Address | IPv6Address:
    return ip_address(packed)


def _ipv4(
    header: Any,
    source: str | None,
    destination: str | None,
    vlans: tuple[int, ...],
    ports: Collection[int],
    seen: _Seen,
) -> Packet:
    fragment = header._flags_offset
    return Packet._make(
        (
            source,
            destination,
            IPV4,
            _address(header.src),
            _address(header.dst),
            header.tos,
            header.id,
            header.ttl,
            fragment & _DONT_FRAGMENT != 0,
            fragment & _MORE_FRAGMENTS != 0,
            (fragment & _OFFSET) * 8,
            header.p,
            *_transport(header.data, header.p, fragment & _OFFSET, ports),
            None,
            vlans,
            _payload(header.data),
            *seen,
        )
    )


def _ipv6(
    header: Any,
    source: str | None,
    destination: str | None,
    vlans: tuple[int, ...],
    ports: Collection[int],
    seen: _Seen,
) -> Packet:
    fragment = header.extension_hdrs.get(44)
    offset = fragment.frag_off if fragment else 0
    protocol = getattr(header, "p", header.nxt)
    return Packet._make(
        (
            source,
            destination,
            IPV6,
            _address(header.src),
            _address(header.dst),
            header.fc,
            fragment.id if fragment else None,
            header.hlim,
            None,
            bool(fragment.m_flag) if fragment else None,
            offset * 8 if fragment else None,
            protocol,
            *_transport(header.data, protocol, offset, ports),
            None,
            vlans,
            _payload(header.data),
            *seen,
        )
    )


_Transport = tuple[Any, ...]
"""The fields from ``source_port`` to ``inner``."""
_NO_TRANSPORT: _Transport = (None,) * 11
_PORTS = 4
"""Bytes that hold both ports, first in TCP's and UDP's header."""


def _transport(body: Any, protocol: int, offset: int, ports: Collection[int]) -> _Transport:
    reader = _READERS.get(type(body))
    if reader is not None:
        return reader(body, ports)
    if not offset and protocol in (TCP, UDP) and len(body) >= _PORTS:  # cut, as in an ICMP error
        found = int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big")
        return (*found, *_NO_TRANSPORT[2:])
    return _NO_TRANSPORT


def _udp(datagram: Any, ports: Collection[int]) -> _Transport:
    data = datagram.data
    vni = inner = None
    if datagram.dport in ports and len(data) >= 8 and data[0] & _VXLAN_FLAG_I:
        vni = int.from_bytes(data[4:7], "big")
        inner = _ethernet(data[8:], ports, _Seen(length=len(data) - 8))
    return (datagram.sport, datagram.dport, *_NO_TRANSPORT[4:], vni, inner)


def _tcp(segment: Any, ports: Collection[int]) -> _Transport:
    del ports
    letters = "".join(letter for bit, letter in _FLAGS if segment.flags & bit)
    said = Tcp(segment.seq, segment.ack, letters, segment.win)
    return (segment.sport, segment.dport, said, *_NO_TRANSPORT[3:])


def _icmp(message: Any, ports: Collection[int]) -> _Transport:
    kind, code, body = message.type, message.code, message.data
    identity = sequence = mtu = quoted = None
    if kind in _ECHO and not isinstance(body, bytes):
        identity, sequence = body.id, body.seq
    elif kind in _QUOTING and not isinstance(body, bytes):
        quoted = _ipv4(body.ip, None, None, (), ports, _Seen(length=body.ip.len))
        if (kind, code) == (_UNREACHABLE, _FRAGMENTATION_NEEDED):
            mtu = body.mtu
    return (None, None, None, kind, code, identity, sequence, mtu, quoted, None, None)


def _icmp6(message: Any, ports: Collection[int]) -> _Transport:
    kind, code, body = message.type, message.code, message.data
    identity = sequence = mtu = quoted = None
    if kind in _ECHO6 and not isinstance(body, bytes):
        identity, sequence = body.id, body.seq
    elif kind in _QUOTING6 and not isinstance(body, bytes):
        length = body.ip6.plen + 40
        quoted = _ipv6(body.ip6, None, None, (), ports, _Seen(length=length))
        if kind == _TOO_BIG:
            mtu = body.mtu
    return (None, None, None, kind, code, identity, sequence, mtu, quoted, None, None)


def _ipip(packet: Any, ports: Collection[int]) -> _Transport:
    inner = _ipv4(packet, None, None, (), ports, _Seen(length=packet.len))
    return (*_NO_TRANSPORT[:-1], inner)


_READERS: Mapping[type, Callable[[Any, Collection[int]], _Transport]] = {
    udp.UDP: _udp,
    tcp.TCP: _tcp,
    icmp.ICMP: _icmp,
    icmp6.ICMP6: _icmp6,
    IP: _ipip,
}


def _payload(body: Any) -> bytes:
    """What follows the transport header, where no packet of its own holds it."""
    kind = type(body)
    if kind is udp.UDP or kind is tcp.TCP:
        return body.data  # type: ignore[no-any-return] # dpkt has no annotations
    if kind is icmp.ICMP or kind is icmp6.ICMP6:
        inside = body.data
        if isinstance(inside, bytes):
            return inside[4:]
        return inside.data if isinstance(inside.data, bytes) else b""
    return b"" if kind is IP else _bytes(body)


def _bytes(body: Any) -> bytes:
    """A protocol that is not ours to decode, as it was."""
    return body if isinstance(body, bytes) else bytes(body)
