"""Decoding frames; the live tests hold the same captures against tshark."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.packets.capturefile import read
from testbed.packets.decoder import decode

MACS = bytes.fromhex("020000000002020000000001")


def ethernet(payload: bytes, ethertype: int = 0x0800) -> bytes:
    """A frame from 02:…:01 to 02:…:02."""
    return MACS + struct.pack("!H", ethertype) + payload


def ipv4(protocol: int, payload: bytes, flags: int = 0, ttl: int = 64) -> bytes:
    """A packet from 10.0.0.1 to 10.0.0.2, checksums left out."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, flags, ttl, protocol, 0)
    return head + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + payload


def udp(source: int, destination: int, payload: bytes) -> bytes:
    """A datagram."""
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload


ECHO = ethernet(ipv4(1, struct.pack("!BBHHH", 8, 0, 0, 1, 1) + b"hello", ttl=63))
VXLAN = ethernet(ipv4(17, udp(50000, 8472, bytes.fromhex("0800000000000700") + ECHO)))


def test_echo_request() -> None:
    """Addresses, TTL, type and payload of a plain ICMP packet."""
    frame = decode(ECHO)
    assert (frame.source, frame.destination) == (IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"))
    assert (frame.ttl, frame.icmp_type, frame.payload) == (63, 8, b"hello")
    assert (frame.source_mac, frame.destination_mac) == ("02:00:00:00:00:01", "02:00:00:00:00:02")


def test_vxlan_has_the_inner_frame() -> None:
    """The VNI is the top 24 bits of the second word."""
    frame = decode(VXLAN)
    assert (frame.vni, frame.destination_port, frame.source_port) == (7, 8472, 50000)
    assert frame.inner is not None
    assert frame.innermost.payload == b"hello"


def test_udp_on_another_port_is_not_vxlan() -> None:
    """Only the ports that are named carry VXLAN."""
    assert decode(VXLAN, ports={4789}).inner is None


def test_vxlan_without_its_flag_is_payload() -> None:
    """Without the I flag the VNI is not valid."""
    frame = decode(ethernet(ipv4(17, udp(1, 8472, bytes(8) + ECHO))))
    assert frame.inner is None


def test_tcp_payload_starts_after_the_options() -> None:
    """The data offset counts 32-bit words."""
    header = struct.pack("!HHIIBBHHH", 1000, 80, 0, 0, 6 << 4, 0x18, 0, 0, 0) + bytes(4)
    frame = decode(ethernet(ipv4(6, header + b"GET /")))
    assert (frame.source_port, frame.destination_port, frame.payload) == (1000, 80, b"GET /")


def test_padding_is_not_payload() -> None:
    """A short frame is padded to 60 bytes; the IP length says where the packet ends."""
    assert decode(ECHO + bytes(20)).payload == b"hello"


def test_later_fragments_have_no_ports() -> None:
    """Only the first fragment carries the transport header."""
    frame = decode(ethernet(ipv4(17, udp(1, 2, b"x"), flags=0x0010)))
    assert frame.source_port is None


def test_dont_fragment() -> None:
    """The DF bit."""
    assert decode(ethernet(ipv4(1, bytes(8), flags=0x4000))).dont_fragment is True
    assert decode(ECHO).dont_fragment is False


def test_vlan_tags_are_skipped() -> None:
    """The tag's ethertype is followed by the real one."""
    frame = decode(MACS + bytes.fromhex("81000005") + ECHO[12:])
    assert frame.icmp_type == 8


def test_arp_of_another_hardware_is_payload() -> None:
    """Only that of IPv4 over Ethernet is read."""
    frame = decode(ethernet(bytes(28), 0x0806))
    assert (frame.ethertype, frame.source, len(frame.payload)) == (0x0806, None, 28)


@given(st.binary(max_size=120))
def test_noise_never_raises(data: bytes) -> None:
    """Whatever is on the wire decodes as far as it goes."""
    decode(data)


@given(st.integers(0, len(VXLAN)), st.integers(0, 255))
def test_mutations_never_raise(cut: int, byte: int) -> None:
    """Truncated and damaged frames neither."""
    decode(VXLAN[:cut])
    decode(VXLAN[:cut] + bytes([byte]) + VXLAN[cut + 1 :])


def pcap(*frames: bytes, order: str = "<", magic: int = 0xA1B2C3D4) -> bytes:
    """A classic pcap file."""
    data = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
    for frame in frames:
        data += struct.pack(f"{order}IIII", 3, 5, len(frame), len(frame)) + frame
    return data


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcap_in_both_byte_orders(order: str) -> None:
    """tcpdump writes in its machine's order; microseconds become nanoseconds."""
    frames = list(read(pcap(ECHO, VXLAN, order=order)))
    assert [frame.vni for frame in frames] == [None, 7]
    assert frames[0].time_ns == 3_000_005_000


def test_pcap_cut_in_the_middle_of_a_frame() -> None:
    """The frames before the cut are there."""
    assert len(list(read(pcap(ECHO, VXLAN)[:-1]))) == 1


def test_empty_pcap() -> None:
    """Nothing captured is nothing, not an error."""
    assert list(read(b"")) == []


@pytest.mark.parametrize("data", [b"short", bytes(24), pcap()[:20] + bytes([114, 0, 0, 0])])
def test_what_is_no_capture(data: bytes) -> None:
    """Another file is refused."""
    with pytest.raises(ValueError, match=r"capture file|Ethernet"):
        list(read(data))


IPIP = ethernet(ipv4(4, ECHO[14:], flags=0x4000))


def test_ip_in_ip_has_the_inner_packet() -> None:
    """Without MAC addresses; both headers' own fields."""
    frame = decode(IPIP)
    assert (frame.protocol, frame.ttl, frame.dont_fragment, frame.tos) == (4, 64, True, 0)
    assert frame.inner is not None
    assert (frame.inner.source_mac, frame.inner.ttl, frame.inner.payload) == (None, 63, b"hello")


def test_a_fragment_of_an_ip_in_ip_packet_is_not_opened() -> None:
    """The inner header is in the first fragment only."""
    frame = decode(ethernet(ipv4(4, ECHO[14:], flags=0x2001)))
    assert (frame.inner, frame.more_fragments, frame.fragment_offset) == (None, True, 8)


@pytest.mark.parametrize("link_type", [12, 101])
def test_captures_of_tunnel_devices_have_no_ethernet(link_type: int) -> None:
    """tcpdump -i tunl0 writes IP packets."""
    packet = ECHO[14:]
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link_type)
    record = struct.pack("<IIII", 1, 2, len(packet), len(packet))
    (frame,) = read(header + record + packet)
    assert (frame.source_mac, frame.icmp_type, frame.payload) == (None, 8, b"hello")
    assert frame.time_ns == 1_000_002_000
