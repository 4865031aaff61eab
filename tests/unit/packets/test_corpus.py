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

from testbed.agent import pcap, pcapng
from testbed.packets.capturefile import read
from testbed.packets.decoder import LINK_TYPES, decode
from testbed.packets.packet import ICMP, ICMPV6, IPIP, IPV4, IPV6, IPV6_IN_IP, TCP, UDP, Packet
from testbed.packets.text import line

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.pcap*"))
TAGS = {"0x8100", "0x88a8", "0x9100"}
"""tshark tells the ethertypes of tags too."""
PAYLOAD = "ah bgp dns esp gre http igmp lldp mpls ospf pim pppoes sctp stp vrrp wg geneve teredo"
"""Protocols that tshark decodes and we do not: it is told to leave them alone."""


def version(number: int, value: Callable[[Any], Any]) -> Callable[[Packet], Any]:
    """A field of one IP version only."""
    return lambda packet: value(packet) if packet.ethertype == number and packet.source else None


def fragmented(packet: Packet) -> bool:
    """Whether an IPv6 packet has a fragment header."""
    return packet.ethertype == IPV6 and packet.fragment_offset is not None


def ethertype(packet: Packet) -> str | None:
    """As tshark writes it; 802.3 has a length instead."""
    return f"0x{packet.ethertype:04x}" if packet.ethertype > 1500 else None


FIELDS: dict[str, Callable[[Any], Any]] = {
    "eth.type": lambda p: ethertype(p) if p.destination_mac and not p.vlans else None,
    "vlan.etype": lambda p: ethertype(p) if p.vlans else None,
    "sll.etype": lambda p: ethertype(p) if p.source_mac and not p.destination_mac else None,
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
    "tcp.flags.urg": lambda p: p.tcp and int("U" in p.tcp.flags),
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
    "icmpv6.echo.sequence_number": lambda p: p.icmp_sequence if p.protocol == ICMPV6 else None,
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


def names(packet: Packet) -> Iterator[str]:
    """The headers of one packet, as tshark calls them."""
    if packet.destination_mac:
        yield "eth"
    yield from ("vlan" for _ in packet.vlans)
    if packet.arp:
        yield "arp"
    if packet.source:
        yield "ip" if packet.ethertype == IPV4 else "ipv6"
    if packet.source_port is not None:
        yield {TCP: "tcp", UDP: "udp"}[packet.protocol or 0]
    if packet.icmp_type is not None:
        yield "icmp" if packet.protocol == ICMP else "icmpv6"
    if packet.vni is not None:
        yield "vxlan"


def ours(packet: Packet) -> dict[str, list[str]]:
    """A packet in tshark's words; fields that it has not are left out."""
    found: dict[str, list[str]] = {
        "frame.len": [str(packet.length)],
        "frame.time_epoch": [f"{packet.time_ns // 10**9}.{packet.time_ns % 10**9:09}"],
        "frame.protocols": [name for each in layers(packet) for name in names(each)],
    }
    if packet.interface:
        found["frame.interface_name"] = [packet.interface]
    if packet.direction:
        found["sll.pkttype"] = [packet.direction]
    for name, value in FIELDS.items():
        for each in layers(packet):
            one = value(each)
            for part in one if isinstance(one, tuple) else (one,):
                if part is not None:
                    found.setdefault(name, []).append(str(part))
    return found


def payload(packet: Packet) -> bytes:
    """What is in the last of all packets, which is where tshark has data."""
    *_, last = every = list(layers(packet))
    if last.protocol == ICMPV6 and last.icmp_type is not None and last.icmp_identity is None:
        return b""  # options and addresses of neighbour discovery, which tshark decodes
    if [each for each in every if each.icmp_type == REDIRECT]:
        return b""  # tshark reads no further than the ports of what that quotes
    return last.payload


WORDS = ("frame.len", "frame.time_epoch", "frame.protocols", "frame.interface_name", "sll.pkttype")
HEADERS = {"eth", "vlan", "arp", "ip", "ipv6", "udp", "tcp", "icmp", "icmpv6", "vxlan"}
REDIRECT = 5
DATA = ("data.data", "tcp.payload", "udp.payload")


def theirs(path: Path) -> list[tuple[dict[str, list[str]], bytes]]:
    """The same fields and the payload as tshark decodes them.

    Fragments and sequence numbers are left as they are.
    """
    tshark = shutil.which("tshark")
    assert tshark, "tshark judges the decoder; `make test-tools` installs it"
    words = [word for name in (*WORDS, *DATA, *FIELDS) for word in ("-e", name)]
    settled = ("ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE")
    options = [word for each in settled for word in ("-o", each)]
    options += [word for each in PAYLOAD.split() for word in ("--disable-protocol", each)]
    decoded = ["-d", "udp.port==8472,vxlan", *options, "-T", "json", *words]
    shown = subprocess.run(
        [tshark, "-n", "-r", str(path), *decoded], check=True, capture_output=True, text=True
    )
    return [judged(each["_source"].get("layers", {})) for each in json.loads(shown.stdout)]


def judged(fields: dict[str, list[str]]) -> tuple[dict[str, list[str]], bytes]:
    """tshark's fields in the form of :func:`ours`, and the last data that it found."""
    data = [fields.pop(name, [""])[-1] for name in DATA]
    ports = set(fields.get("udp.dstport", ())) & {"4789", "8472"}
    told = data[0] or data[1] or ("" if ports else data[2])
    protocols = fields["frame.protocols"][0].split(":")
    fields["frame.protocols"] = [name for name in protocols if name in HEADERS]
    if "sll.pkttype" in fields:
        fields["sll.pkttype"] = ["out" if fields["sll.pkttype"] == ["4"] else "in"]
    for name in ("eth.type", "vlan.etype"):
        left = [each for each in fields.pop(name, []) if each not in TAGS]
        fields.update({name: left} if left else {})
    return {name: list(map(normal, values)) for name, values in fields.items()}, bytes.fromhex(told)


def normal(value: str) -> str:
    """tshark 4.0 prints flags as 0 and 1, later versions as False and True."""
    return {"False": "0", "True": "1"}.get(value, value)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_every_field_is_what_tshark_says(path: Path) -> None:
    """Headers, their fields, times, places and payload of every packet and of those inside."""
    packets = list(read(path.read_bytes()))
    assert packets
    for number, (mine, (fields, data)) in enumerate(zip(packets, theirs(path), strict=True), 1):
        where = f"{path.name}, packet {number}"
        assert ours(mine) == fields, where
        told = payload(mine)
        timed = 8 if "icmp.ident" in fields and len(told) == len(data) + 8 else 0
        assert told[timed:] == data, where  # tshark takes ping's time for a field of its own


def frames() -> list[bytes]:
    """Every frame of the corpus, without its file."""
    found: list[bytes] = []
    for path in CORPUS:
        reader = pcap.Reader() if path.suffix == ".pcap" else pcapng.Reader()
        for block in reader.feed(path.read_bytes()):
            if isinstance(block, pcap.Record | pcapng.Record):
                found.append(block.data)
    return found


FRAMES = frames()


def test_the_corpus_has_everything() -> None:
    """What the decoder is for occurs: encapsulations, fragments, errors, tags, IPv6, Services."""
    packets = [each for path in CORPUS for each in read(path.read_bytes())]
    assert {each.destination_port for each in packets if each.vni} == {8472, 4789}
    assert {each.protocol for each in packets if each.inner} == {IPIP, UDP, IPV6_IN_IP}
    assert [each for each in packets if each.vlans]
    assert [each for each in packets if each.arp]
    assert [each for each in packets if each.innermost.more_fragments]
    assert {3, 5, 11} <= {each.icmp_type for each in packets if each.quoted}
    assert [each for each in packets if each.icmp_mtu == 1000]
    assert {each.ethertype for each in packets} >= {IPV4, IPV6, 0x0806}


@pytest.mark.parametrize(
    ("name", "service", "sender", "masqueraded"),
    [
        ("service-cluster-ip", "10.96.0.11", "10.244.0.3", "10.244.0.3"),
        ("service-node-port", "172.31.0.2", "172.31.255.254", "10.244.0.0"),
    ],
)
def test_a_service_flow_is_seen_before_and_after_translation(
    name: str, service: str, sender: str, masqueraded: str
) -> None:
    """At the client and at the node that translates, in the tunnel, at the far node and the pod."""
    packets = [each.innermost for each in read((CORPUS[0].parent / f"{name}.pcapng").read_bytes())]
    places = {each.interface for each in read((CORPUS[0].parent / f"{name}.pcapng").read_bytes())}
    flows = {(str(each.source), str(each.destination)) for each in packets if each.tcp}
    (pod,) = {there for here, there in flows if here == masqueraded and there != service}
    assert flows >= {(sender, service), (service, sender), (masqueraded, pod), (pod, masqueraded)}
    assert {"node1/eth0", "node1/flannel.1"} < places


@settings(max_examples=10_000, deadline=None, database=None, derandomize=True)
@given(
    st.sampled_from(FRAMES),
    st.sampled_from(sorted(LINK_TYPES)),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    st.integers(0, 200),
)
def test_mutated_frames_never_raise(
    frame: bytes, link_type: int, changes: list[tuple[int, int]], cut: int
) -> None:
    """10,000 real frames, damaged in four places or cut anywhere: a packet, and its line."""
    damaged = bytearray(frame)
    for at, value in changes:
        if at < len(damaged):
            damaged[at] = value
    packet = decode(bytes(damaged[: len(damaged) - cut] if cut % 2 else damaged), link_type)
    assert isinstance(packet, Packet)
    assert isinstance(packet.payload, bytes)
    assert all(isinstance(each, Packet) for each in layers(packet))
    assert line(packet)
