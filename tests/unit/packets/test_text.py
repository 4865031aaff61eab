"""Packets as lines of text."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from testbed.packets.capturefile import read
from testbed.packets.packet import Packet
from testbed.packets.text import line, table

CORPUS = Path(__file__).parent / "corpus"


def shown(name: str) -> list[str]:
    """The lines of one capture of the corpus."""
    return [line(each) for each in read((CORPUS / f"{name}.pcap").read_bytes())]


def test_encapsulation_is_read_from_outside_to_inside() -> None:
    """Outer ends, how, inner ends, what."""
    assert "VXLAN VNI 1: 10.244.0.2 > 10.244.1.2: ICMP echo request" in shown("vxlan-8472")[0]
    assert any(": IP-in-IP: 10.244." in each for each in shown("ipip"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("icmp-errors", "ARP who has 10.9.0.2? tell 10.9.0.1"),
        ("icmp-errors", "ARP 10.9.0.2 is at 02:00:00:00:00:0b"),
        ("icmp-errors", "ICMP port unreachable, about 10.9.0.1:"),
        ("icmp-errors", "ICMP fragmentation needed, MTU 1000, about 10.9.0.1 > 10.99.0.1"),
        ("icmp-errors", "TCP [R.] seq 0 ack"),
        ("ipv6", "[fd09::1]:"),
        ("ipv6", "ICMPv6 neighbor solicitation"),
        ("ipv6", "fragment at 1448 of"),
        ("ipv6", ", fragment at 0 of"),
        ("vlan", "vlan 7 ARP who has"),
        ("vlan", "vlan 100 vlan 9 10.9.7.1:1024 > 10.9.7.2:53: UDP"),
        ("vlan", "ICMP redirect, about 10.9.7.1"),
        ("icmp-errors", "ICMP time to live exceeded in transit, about"),
        ("odd", "ICMP parameter problem, about"),
        ("odd", ": IPv6-in-IP: [fd09::1]:5000 >"),
    ],
)
def test_what_people_look_for(name: str, words: str) -> None:
    """Questions, answers, errors with what they are about, tags, both IP versions."""
    lines = shown(name)
    assert any(words in each for each in lines), "\n".join(lines)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"source_mac": "a", "destination_mac": "b", "ethertype": 0x88CC}, "a > b: LLDP"),
        ({"source_mac": "a", "destination_mac": "b", "ethertype": 0x1234}, "ethertype 0x1234"),
        ({"source_mac": "a", "destination_mac": "b", "ethertype": 38}, "a > b: 802.3"),
        ({"protocol": 89}, "OSPF, ttl 1"),
        ({"protocol": 250}, "protocol 250"),
        ({"protocol": 1}, "ICMP, cut short"),
        ({"protocol": 1, "icmp_type": 13}, "ICMP type 13"),
        ({"protocol": 1, "icmp_type": 3, "icmp_code": 99}, "ICMP unreachable"),
    ],
)
def test_what_is_not_decoded_has_its_number(fields: dict[str, Any], words: str) -> None:
    """Other protocols are named as far as they are known."""
    ends: dict[str, Any] = {
        "source": IPv4Address("10.0.0.1"),
        "destination": IPv4Address("10.0.0.2"),
        "ttl": 1,
    }
    packet = Packet(**fields) if "source_mac" in fields else Packet(**ends, **fields)
    assert words in line(packet)


def test_a_table_begins_at_its_first_packet() -> None:
    """Times count from there; reasons are marked."""
    end = IPv6Address("fd00::1")
    packets = [
        Packet(source=end, destination=end, protocol=17, time_ns=10**9 * n, interface="a/eth0")
        for n in (1, 2)
    ]
    rows = table(packets, ["", "wrong"]).splitlines()
    assert "0.000 ms  a/eth0" in rows[0]
    assert "1000.000 ms" in rows[1]
    assert rows[1].endswith("<- wrong")
    assert table([]) == "  (nothing)"
