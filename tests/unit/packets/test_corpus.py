"""Every field of real captures, decoded by testbed and by tshark, which none of us wrote."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.packets.capturefile import read
from testbed.packets.decoder import LINK_TYPES, decode
from testbed.packets.packet import ICMP, ICMPV6, IPV4, IPV6, TCP, UDP, Packet

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.pcap"))


def version(number: int, value: Callable[[Any], Any]) -> Callable[[Packet], Any]:
    """A field of one IP version only."""
    return lambda packet: value(packet) if packet.ethertype == number and packet.source else None


def fragmented(packet: Packet) -> bool:
    """Whether an IPv6 packet has a fragment header."""
    return packet.ethertype == IPV6 and packet.fragment_offset is not None


FIELDS: dict[str, Callable[[Any], Any]] = {
    "eth.src": lambda p: p.source_mac if p.destination_mac else None,
    "sll.src.eth": lambda p: None if p.destination_mac else p.source_mac,
    "eth.dst": lambda p: p.destination_mac,
    "vlan.id": lambda p: p.vlans or None,
    "ip.src": version(IPV4, lambda p: p.source),
    "ip.dst": version(IPV4, lambda p: p.destination),
    "ip.dsfield": version(IPV4, lambda p: f"0x{p.tos:02x}"),
    "ip.id": version(IPV4, lambda p: f"0x{p.identification:04x}"),
    "ip.ttl": version(IPV4, lambda p: p.ttl),
    "ip.flags.df": version(IPV4, lambda p: int(p.dont_fragment)),
    "ip.flags.mf": version(IPV4, lambda p: int(p.more_fragments)),
    "ip.frag_offset": version(IPV4, lambda p: p.fragment_offset // 8),
    "ip.proto": version(IPV4, lambda p: p.protocol),
    "ipv6.src": version(IPV6, lambda p: p.source),
    "ipv6.dst": version(IPV6, lambda p: p.destination),
    "ipv6.tclass": version(IPV6, lambda p: f"0x{p.tos:08x}"),
    "ipv6.hlim": version(IPV6, lambda p: p.ttl),
    "ipv6.fraghdr.offset": lambda p: p.fragment_offset // 8 if fragmented(p) else None,
    "ipv6.fraghdr.more": lambda p: int(p.more_fragments) if fragmented(p) else None,
    "ipv6.fraghdr.ident": lambda p: f"0x{p.identification:08x}" if fragmented(p) else None,
    "udp.srcport": lambda p: p.source_port if p.protocol == UDP else None,
    "udp.dstport": lambda p: p.destination_port if p.protocol == UDP else None,
    "tcp.srcport": lambda p: p.source_port if p.protocol == TCP else None,
    "tcp.dstport": lambda p: p.destination_port if p.protocol == TCP else None,
    "tcp.seq_raw": lambda p: p.tcp and p.tcp.sequence,
    "tcp.ack_raw": lambda p: p.tcp and p.tcp.acknowledgement,
    "tcp.flags.syn": lambda p: p.tcp and int("S" in p.tcp.flags),
    "tcp.flags.ack": lambda p: p.tcp and int("." in p.tcp.flags),
    "tcp.flags.fin": lambda p: p.tcp and int("F" in p.tcp.flags),
    "tcp.flags.reset": lambda p: p.tcp and int("R" in p.tcp.flags),
    "tcp.flags.push": lambda p: p.tcp and int("P" in p.tcp.flags),
    "tcp.window_size_value": lambda p: p.tcp and p.tcp.window,
    "icmp.type": lambda p: p.icmp_type if p.protocol == ICMP else None,
    "icmp.code": lambda p: p.icmp_code if p.protocol == ICMP else None,
    "icmp.ident": lambda p: p.icmp_identity if p.protocol == ICMP else None,
    "icmp.seq": lambda p: p.icmp_sequence if p.protocol == ICMP else None,
    "icmp.mtu": lambda p: p.icmp_mtu if p.protocol == ICMP else None,
    "icmpv6.type": lambda p: p.icmp_type if p.protocol == ICMPV6 else None,
    "icmpv6.code": lambda p: p.icmp_code if p.protocol == ICMPV6 else None,
    "icmpv6.echo.identifier": lambda p: (
        f"0x{p.icmp_identity:04x}" if p.protocol == ICMPV6 and p.icmp_identity is not None else None
    ),
    "icmpv6.mtu": lambda p: p.icmp_mtu if p.protocol == ICMPV6 else None,
    "arp.opcode": lambda p: p.arp and p.arp.operation,
    "arp.src.hw_mac": lambda p: p.arp and p.arp.sender_mac,
    "arp.src.proto_ipv4": lambda p: p.arp and p.arp.sender,
    "arp.dst.hw_mac": lambda p: p.arp and p.arp.target_mac,
    "arp.dst.proto_ipv4": lambda p: p.arp and p.arp.target,
    "vxlan.vni": lambda p: p.vni,
}
"""tshark's name of a field → the same of one of our packets, ``None`` where it has none.

tshark counts fragment offsets as the header does, by 8 bytes.
"""


def layers(packet: Packet) -> Iterator[Packet]:
    """A packet and all that are inside, in the order in which tshark lists their fields."""
    yield packet
    for inside in (packet.inner, packet.quoted):
        if inside is not None:
            yield from layers(inside)


def ours(packet: Packet) -> dict[str, list[str]]:
    """A packet in tshark's words; fields that it has not are left out."""
    found: dict[str, list[str]] = {
        "frame.len": [str(packet.length)],
        "frame.time_epoch": [f"{packet.time_ns // 10**9}.{packet.time_ns % 10**9:09}"],
    }
    for name, value in FIELDS.items():
        for each in layers(packet):
            one = value(each)
            for part in one if isinstance(one, tuple) else (one,):
                if part is not None:
                    found.setdefault(name, []).append(str(part))
    return found


def theirs(path: Path) -> list[dict[str, list[str]]]:
    """The same fields as tshark decodes them, fragments and sequence numbers left as they are."""
    tshark = shutil.which("tshark")
    assert tshark, "tshark judges the decoder; `make test-tools` installs it"
    words = [word for name in ("frame.len", "frame.time_epoch", *FIELDS) for word in ("-e", name)]
    settled = ("ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE")
    options = [word for each in settled for word in ("-o", each)]
    decoded = ["-d", "udp.port==8472,vxlan", *options, "-T", "json", *words]
    shown = subprocess.run(
        [tshark, "-n", "-r", str(path), *decoded], check=True, capture_output=True, text=True
    )
    packets = [each["_source"].get("layers", {}) for each in json.loads(shown.stdout)]
    return [{name: list(map(normal, values)) for name, values in p.items()} for p in packets]


def normal(value: str) -> str:
    """tshark 4.0 prints flags as 0 and 1, later versions as False and True."""
    return {"False": "0", "True": "1"}.get(value, value)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_every_field_is_what_tshark_says(path: Path) -> None:
    """Addresses, ids, TTLs, flags, ports, numbers, VNIs and times of every packet and layer."""
    packets = list(read(path.read_bytes()))
    assert packets
    for number, (mine, judged) in enumerate(zip(packets, theirs(path), strict=True), 1):
        assert ours(mine) == judged, f"{path.name}, packet {number}"


def frames() -> list[bytes]:
    """Every frame of the corpus, without its file."""
    found: list[bytes] = []
    for path in CORPUS:
        data, at = path.read_bytes(), 24
        while at < len(data):
            length = int.from_bytes(data[at + 8 : at + 12], "little")
            found.append(data[at + 16 : at + 16 + length])
            at += 16 + length
    return found


FRAMES = frames()


def test_the_corpus_has_everything() -> None:
    """What the decoder is for occurs: both VXLAN ports, IP-in-IP, fragments, errors, tags, IPv6."""
    packets = [each for path in CORPUS for each in read(path.read_bytes())]
    assert {each.destination_port for each in packets if each.vni} == {8472, 4789}
    assert [each for each in packets if each.protocol == 4 and each.inner]
    assert [each for each in packets if each.vlans]
    assert [each for each in packets if each.arp]
    assert [each for each in packets if each.innermost.more_fragments]
    assert {3, 5, 11} <= {each.icmp_type for each in packets if each.quoted}
    assert [each for each in packets if each.icmp_mtu == 1000]
    assert {each.ethertype for each in packets} >= {IPV4, IPV6, 0x0806}


@settings(max_examples=10_000, deadline=None, database=None)
@given(
    st.sampled_from(FRAMES),
    st.sampled_from(sorted(LINK_TYPES)),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    st.integers(0, 200),
)
def test_mutated_frames_never_raise(
    frame: bytes, link_type: int, changes: list[tuple[int, int]], cut: int
) -> None:
    """10,000 real frames, damaged in up to four places and cut anywhere: always a packet."""
    damaged = bytearray(frame)
    for at, value in changes:
        if at < len(damaged):
            damaged[at] = value
    packet = decode(bytes(damaged[: len(damaged) - cut] if cut % 2 else damaged), link_type)
    assert isinstance(packet, Packet)
    assert isinstance(packet.payload, bytes)
    assert all(isinstance(each, Packet) for each in layers(packet))
