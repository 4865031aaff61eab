"""Stacks of headers: VLAN tags, IPv6 extension headers, IP in IP of both versions."""

from __future__ import annotations

import struct

import pytest

from testbed.packets.decoder import decode
from tests.unit.packets.building import ECHO, MACS, ethernet, ipv4, ipv6, udp

OPTIONS = bytes.fromhex("00000104 00000000")
"""An extension header with padding, in front of what its first byte says."""


@pytest.mark.parametrize("outer", [0x8100, 0x88A8, 0x9100, 0x9200])
def test_every_tag_of_a_stack_is_told(outer: int) -> None:
    """Outermost first, of 802.1ad too, without the priority bits."""
    tags = struct.pack("!HHHHHH", outer, 0xE005, 0x88A8, 9, 0x8100, 11)
    frame = decode(MACS + tags + ECHO[12:])
    assert (frame.vlans, frame.ethertype, frame.icmp_type) == ((5, 9, 11), 0x0800, 8)


def test_a_frame_of_headers_alone() -> None:
    """Nothing follows a tag or an extension header: that is known, too."""
    tagged = decode(ethernet(b"\0\5\x12\x34", 0x8100))
    assert (tagged.vlans, tagged.ethertype, tagged.payload) == ((5,), 0x1234, b"")
    for first in (43, 44, 60):
        packet = decode(ethernet(ipv6(first, b"\x3b" + OPTIONS[1:]), 0x86DD))
        assert (packet.protocol, packet.payload) == (59, b"")


@pytest.mark.parametrize(("protocol", "kind"), [(1, 8), (1, 0), (58, 128), (58, 129)])
def test_an_echo_without_payload(protocol: int, kind: int) -> None:
    """Its number and place in a sequence are all that it has."""
    message = struct.pack("!BBHHH", kind, 0, 0, 7, 9)
    packet, ethertype = (ipv4, 0x0800) if protocol == 1 else (ipv6, 0x86DD)
    frame = decode(ethernet(packet(protocol, message), ethertype))
    assert (frame.icmp_identity, frame.icmp_sequence, frame.payload) == (7, 9, b"")


def test_packet_too_big_says_the_mtu() -> None:
    """In 32 bits, other than that of IPv4."""
    frame = decode(ethernet(ipv6(58, struct.pack("!BBHI", 2, 0, 0, 70000)), 0x86DD))
    assert (frame.icmp_mtu, frame.quoted) == (70000, None)


def test_a_tag_that_is_cut_is_payload() -> None:
    """Its ethertype says that it was one."""
    frame = decode(ethernet(b"\0\5", 0x8100))
    assert (frame.vlans, frame.ethertype, frame.payload) == ((), 0x8100, b"\0\5")


def test_an_802_3_frame_has_a_length_instead_of_an_ethertype() -> None:
    """As spanning tree uses it; what follows that many bytes is padding."""
    frame = decode(ethernet(b"\x42\x42\x03" + bytes(43), 3))
    assert (frame.ethertype, frame.payload) == (3, b"\x42\x42\x03")


def test_extension_headers_of_ipv6_are_passed() -> None:
    """Hop-by-hop, destination options, routing, authentication: the protocol is what follows."""
    parts = [(60, OPTIONS), (43, OPTIONS), (51, OPTIONS), (17, b"\0\1" + bytes(10))]
    body = b"".join(bytes([following]) + part[1:] for following, part in parts)
    frame = decode(ethernet(ipv6(0, body + udp(5, 6, b"x")), 0x86DD))
    assert (frame.protocol, frame.source_port, frame.payload) == (17, 5, b"x")
    assert (frame.tos, frame.ttl, frame.dont_fragment) == (0xB9, 64, None)


@pytest.mark.parametrize("before", [b"", b"\x2c" + OPTIONS[1:]])
@pytest.mark.parametrize("following", [17, 58, 60])
def test_later_fragments_of_ipv6_are_not_read(before: bytes, following: int) -> None:
    """Wherever the fragment header is, what follows is the middle of something."""
    fragment = struct.pack("!BBHI", following, 0, 1 << 3, 99)
    body = before + fragment + OPTIONS + bytes(20)
    frame = decode(ethernet(ipv6(0 if before else 44, body), 0x86DD))
    assert (frame.fragment_offset, frame.identification, frame.protocol) == (8, 99, following)
    assert (frame.source_port, frame.icmp_type, len(frame.payload)) == (None, None, 28)
    assert frame.more_fragments is False


@pytest.mark.parametrize("following", [0, 43, 44, 51, 60])
def test_an_extension_header_that_is_cut(following: int) -> None:
    """The addresses are known, and which header it is."""
    frame = decode(ethernet(ipv6(following, OPTIONS[:4]), 0x86DD))
    assert (str(frame.source), frame.protocol, frame.payload) == ("fd09::1", following, OPTIONS[:4])


@pytest.mark.parametrize(("outer", "inner"), [(4, "10.0.0.1"), (41, "fd09::1")])
@pytest.mark.parametrize("version", [4, 6])
def test_ip_of_both_versions_in_both(outer: int, inner: str, version: int) -> None:
    """Protocols 4 and 41."""
    packet = ECHO[14:] if outer == 4 else ipv6(17, udp(5, 6, b"x"))
    whole = ipv4(outer, packet) if version == 4 else ipv6(outer, packet)
    frame = decode(ethernet(whole, 0x0800 if version == 4 else 0x86DD))
    assert frame.inner is not None
    assert (str(frame.inner.source), frame.inner.length) == (inner, len(packet))
    assert frame.payload == b""
