"""Frames decoded to :class:`~testbed.packets.packet.Packet` values, by dpkt.

dpkt knows the headers; what follows which, the encapsulations, and never to fail are ours: a
malformed or truncated frame decodes as far as it goes. docs/decoding.md says why dpkt.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from testbed.packets import headers
from testbed.packets.dissection import NOTHING, Inside, Seen, ethernet, nesting, network
from testbed.packets.packet import IPV4, IPV6, Packet

__all__ = ["LINK_TYPES", "VXLAN_PORTS", "decode"]

VXLAN_PORTS = frozenset({8472, 4789})
"""Linux's default, which flannel uses, and IANA's."""

_ETHERNET, _SLL, _SLL2 = 1, 113, 276
_RAW = frozenset({12, 101, 228, 229})
LINK_TYPES = frozenset({_ETHERNET, _SLL, _SLL2}) | _RAW
"""What :func:`decode` reads: Ethernet, tcpdump's ``any``, and packets without a link header, as on
tunl0."""

_OUTGOING = 4


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
    seen = Seen(time_ns, length or len(data), interface, direction)
    inside = nesting(frozenset(ports))
    if link_type == _ETHERNET:
        return ethernet(data, inside, seen)
    if link_type in _RAW:
        ethertype = IPV6 if data[:1] and data[0] >> 4 == 6 else IPV4
        return network((None, None, ethertype), (), data, inside, seen)
    return _cooked(data, headers.SLL2 if link_type == _SLL2 else headers.SLL, inside, seen)


def _cooked(data: bytes, kind: Any, inside: Inside, seen: Seen) -> Packet:
    try:
        frame = kind(data)
    except headers.DamagedError:
        return Packet._make((None, None, 0, *NOTHING, (), data, *seen))
    vlans, ethertype, body = headers.tags(frame.ethtype, frame.data)
    link = frame.hdr[: frame.hlen].hex(":") or None, None, ethertype
    seen = seen._replace(direction="out" if frame.type == _OUTGOING else "in")
    return network(link, vlans, body, inside, seen)
