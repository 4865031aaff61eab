"""Decoding frames; the live tests hold the same captures against tshark."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.packets.capturefile import read
from testbed.packets.decoder import decode
from tests.unit.packets.building import ECHO, IPIP, MACS, VXLAN, ethernet, ipv4, udp


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


def test_vxlan_without_a_frame_has_its_vni() -> None:
    """It is known as far as it goes; what is too short for its header is payload."""
    header = bytes.fromhex("0800000000000700")
    whole, cut = (decode(ethernet(ipv4(17, udp(1, 8472, header[:end])))) for end in (8, 7))
    assert whole.inner is not None
    assert (whole.vni, whole.inner.source_mac, whole.payload) == (7, None, b"")
    assert (cut.vni, cut.inner, cut.payload) == (None, None, header[:7])


@pytest.mark.parametrize("flags", [0, 0xF7])
def test_vxlan_without_its_flag_is_payload(flags: int) -> None:
    """Without the I flag the VNI is not valid."""
    frame = decode(ethernet(ipv4(17, udp(1, 8472, bytes([flags]) + bytes(7) + ECHO))))
    assert (frame.inner, frame.vni, len(frame.payload)) == (None, None, 8 + len(ECHO))


@pytest.mark.parametrize("first", [0x55, 0x44, 0x65])
def test_what_cannot_be_ipv4_is_payload(first: int) -> None:
    """Another version, or a header shorter than the least."""
    packet = bytes([first]) + ECHO[15:]
    frame = decode(ethernet(packet))
    assert (frame.ethertype, frame.source, frame.payload) == (0x0800, None, packet)


def test_a_frame_of_which_nothing_else_is_known() -> None:
    """It is as long as its bytes, and was seen at no time and nowhere."""
    for frame in (decode(ECHO), decode(ECHO[:10]), decode(b""), decode(b"", 276)):
        assert (frame.time_ns, frame.interface) == (0, "")
    assert [decode(ECHO[:end]).length for end in (0, 10, 47)] == [0, 10, 47]
    assert decode(ECHO[:10]).destination_mac == "02:00:00:00:00:02"


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


@pytest.mark.parametrize("link_type", [12, 101, 228, 229])
def test_captures_of_tunnel_devices_have_no_ethernet(link_type: int) -> None:
    """tcpdump -i tunl0 writes IP packets."""
    packet = ECHO[14:]
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link_type)
    record = struct.pack("<IIII", 1, 2, len(packet), len(packet))
    (frame,) = read(header + record + packet)
    assert (frame.source_mac, frame.icmp_type, frame.payload) == (None, 8, b"hello")
    assert frame.time_ns == 1_000_002_000


@pytest.mark.parametrize("protocol", [2, 47, 50, 51, 89, 103, 112, 132])
def test_what_is_not_decoded_is_payload_as_it_was(protocol: int) -> None:
    """Byte by byte, also where a checksum is not filled in: IGMP, GRE, ESP, OSPF, VRRP, SCTP."""
    body = bytes(range(4)) + bytes(40)
    assert decode(ethernet(ipv4(protocol, body))).payload == body


@pytest.mark.parametrize("ethertype", [0x8847, 0x8864, 0x88CC, 0x6558, 0x1234])
def test_frames_of_other_ethertypes_are_payload(ethertype: int) -> None:
    """MPLS labels and PPPoE sessions included; what may follow them is not guessed."""
    body = bytes.fromhex("00005140") + ECHO[14:]
    frame = decode(ethernet(body, ethertype))
    assert (frame.ethertype, frame.source, frame.payload) == (ethertype, None, body)


def test_padding_behind_a_datagram_is_not_its_payload() -> None:
    """UDP has a length of its own; one that cannot be is not believed."""
    assert decode(ethernet(ipv4(17, udp(1, 2, b"") + bytes(18)))).payload == b""
    datagram = udp(1, 2, b"hello")
    assert decode(ethernet(ipv4(17, datagram + bytes(6)))).payload == b"hello"
    assert decode(ethernet(ipv4(17, datagram[:4] + bytes(4) + b"hello"))).payload == b"hello"


def test_a_packet_before_segmentation_says_no_length() -> None:
    """It is longer than its header can say, and says 0: all is payload."""
    packet = bytearray(ipv4(17, udp(1, 2, b"hello")))
    packet[2:4] = bytes(2)
    assert decode(ethernet(bytes(packet))).payload == b"hello"


def test_what_holds_a_packet_has_no_payload_besides() -> None:
    """The inner packet has it, or the quoted one."""
    quoting = ethernet(ipv4(1, struct.pack("!BBHI", 11, 0, 0, 0) + ECHO[14:]))
    assert (decode(VXLAN).payload, decode(IPIP).payload, decode(quoting).payload) == (b"",) * 3


def test_an_inner_frame_is_as_long_as_it_was_on_the_wire() -> None:
    """Not only as far as it was captured."""
    whole, cut = decode(VXLAN), decode(VXLAN[:-3], length=len(VXLAN))
    assert whole.inner is not None
    assert cut.inner is not None
    assert (whole.length, whole.inner.length) == (len(VXLAN), len(ECHO))
    assert (cut.length, cut.inner.length) == (len(VXLAN), len(ECHO))


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_every_icmp_error_quotes(kind: int) -> None:
    """Unreachable, quench, redirect, time exceeded, parameter problem."""
    frame = decode(ethernet(ipv4(1, struct.pack("!BBHI", kind, 1, 0, 0) + ECHO[14:])))
    assert frame.quoted is not None
    assert (frame.quoted.icmp_type, frame.quoted.payload, frame.icmp_mtu) == (8, b"hello", None)


@pytest.mark.parametrize("quoted", [b"", ECHO[14:26]])
def test_an_error_that_is_cut_still_says_the_mtu(quoted: bytes) -> None:
    """That is in front of the packet that it quotes."""
    frame = decode(ethernet(ipv4(1, struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + quoted)))
    assert (frame.icmp_mtu, frame.quoted, frame.payload) == (1400, None, quoted)


def test_packets_inside_each_other_end_somewhere() -> None:
    """Nobody nests so deep; the rest is payload, and such a packet can be printed."""
    packet = ECHO[14:]
    for _ in range(3000):
        packet = ipv4(4, packet)[:2] + bytes(2) + ipv4(4, b"")[4:] + packet
    frame = decode(ethernet(packet))
    assert len(frame.innermost.payload) > 50_000
    assert repr(frame)
