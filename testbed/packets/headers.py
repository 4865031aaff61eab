"""The headers that dpkt knows, each alone; what follows one is left as the bytes that it is.

dpkt's own classes read on by themselves, with every class that dpkt has for what seems to follow.
That guesses (of MPLS, of a port), gives up a whole IPv6 packet for one extension header, and does
not give the same bytes back: checksums of zero are computed, labels and trailers are lost.
"""

from __future__ import annotations

from typing import Any

import dpkt
from dpkt import arp, ethernet, icmp, ip, ip6, sll, sll2, tcp, udp

__all__ = [
    "ARP",
    "ICMP",
    "IPV4",
    "IPV6",
    "SLL",
    "SLL2",
    "TCP",
    "UDP",
    "DamagedError",
    "Ethernet",
    "Tag",
    "extensions",
    "tags",
]

DamagedError = dpkt.UnpackError
"""Too short to be the header."""


def _alone(kind: Any) -> Any:
    """A class that reads the header of one of dpkt's, and has the rest as bytes in ``data``."""
    return type(kind.__name__, (dpkt.Packet,), {"__hdr__": kind.__hdr__})


Ethernet, Tag = _alone(ethernet.Ethernet), _alone(ethernet.VLANtag8021Q)
SLL, SLL2 = _alone(sll.SLL), _alone(sll2.SLL2)
ARP, IPV4, IPV6 = _alone(arp.ARP), _alone(ip.IP), _alone(ip6.IP6)
UDP, TCP, ICMP = _alone(udp.UDP), _alone(tcp.TCP), _alone(icmp.ICMP)
_Extension, _Fragment = _alone(ip6.IP6OptsHeader), _alone(ip6.IP6FragmentHeader)

_TAGS = frozenset({0x8100, 0x88A8, 0x9100, 0x9200})
"""802.1Q, 802.1ad, and what preceded that."""
_TAG_ID = 0x0FFF
_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS = frozenset({0, 43, 60, _FRAGMENT, _AUTHENTICATION})
"""Hop-by-hop options, routing, destination options; what follows ESP (50) is encrypted."""


def tags(ethertype: int, data: bytes) -> tuple[tuple[int, ...], int, bytes]:
    """VLAN identifiers, outermost first, and the ethertype and the bytes behind them."""
    found: tuple[int, ...] = ()
    while ethertype in _TAGS and len(data) >= Tag.__hdr_len__:
        tag = Tag(data)
        found += (tag._pri_cfi_id & _TAG_ID,)
        ethertype, data = tag.type, tag.data
    return found, ethertype, data


def extensions(protocol: int, data: bytes) -> tuple[int, bytes, Any]:
    """What is behind IPv6 extension headers: protocol, bytes, and the fragment header if any.

    The bytes of a fragment other than the first are the middle of something, so reading ends
    there; and at an extension header that is cut.
    """
    fragment = None
    while protocol in _EXTENSIONS and len(data) >= _Fragment.__hdr_len__:
        if protocol == _FRAGMENT:
            fragment = _Fragment(data)
            protocol, data = fragment.nxt, fragment.data
            if fragment._frag_off_resv_m >> 3:
                break
        else:
            extension = _Extension(data)
            unit = 4 if protocol == _AUTHENTICATION else 8
            length = 8 + extension.len * unit
            if len(data) < length:
                break
            protocol, data = extension.nxt, data[length:]
    return protocol, data, fragment
