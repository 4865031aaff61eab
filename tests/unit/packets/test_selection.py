"""Selecting packets, judging how they crossed, and what an empty selection proves."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from testbed.packets import explanations
from testbed.packets.encapsulation import IPIP, VXLAN, WIREGUARD
from testbed.packets.packet import ARP, IPV4, Arp, Packet
from testbed.packets.selection import NoControlError, Packets


@dataclass(frozen=True)
class Place:
    """A node or pod, as the API hands it in."""

    name: str
    address: str

    @property
    def addresses(self) -> frozenset[IPv4Address | IPv6Address]:
        """Of every interface."""
        return frozenset({IPv4Address(self.address)})

    def __str__(self) -> str:
        return self.name


NODE1, NODE2, NODE3 = (Place(f"node{n}", f"172.18.0.{n + 1}") for n in (1, 2, 3))
POD_A, POD_B, POD_C = (Place(f"pod-{n}", f"10.244.{n}.2") for n in (0, 1, 2))


def packet(source: Place, destination: Place, **fields: Any) -> Packet:
    """An echo request, unless said otherwise."""
    settings = {"protocol": 1, "icmp_type": 8, "ttl": 64, "payload": b"x", "ethertype": IPV4}
    ends = {"source": IPv4Address(source.address), "destination": IPv4Address(destination.address)}
    return Packet(**{**settings, **ends, **fields})


def carried(inner: Packet, source: Place, destination: Place, **fields: Any) -> Packet:
    """A packet in VXLAN between two nodes, on the first one's uplink."""
    vxlan = {"protocol": 17, "icmp_type": None, "destination_port": 8472, "vni": 1, "payload": b""}
    where = {"interface": "node1/eth0", "inner": inner}
    return packet(source, destination, **{**vxlan, **where, **fields})


THERE = carried(packet(POD_A, POD_B), NODE1, NODE2)
BACK = carried(packet(POD_B, POD_A, icmp_type=0), NODE2, NODE1)
INSIDE = packet(POD_A, POD_B, interface="node2/flannel.1")
WEB = carried(
    packet(POD_A, POD_B, protocol=6, icmp_type=None, source_port=40000, destination_port=80),
    NODE1,
    NODE2,
)
QUESTION = Packet(
    "aa:aa:aa:aa:aa:aa",
    "ff:ff:ff:ff:ff:ff",
    ARP,
    arp=Arp(1, "", IPv4Address("172.18.0.2"), "", IPv4Address("172.18.0.3")),
    interface="node1/eth0",
)
ALL = Packets([THERE, INSIDE, BACK, WEB, QUESTION], ["node1/eth0", "node2/flannel.1"])


def test_narrowing_down() -> None:
    """By ends, way, protocol, port, interface and payload, each on top of the other."""
    assert list(ALL.between(POD_A, POD_B)) == [THERE, INSIDE, BACK, WEB]
    assert list(ALL.between(POD_B, POD_A)) == list(ALL.between(POD_A, POD_B))
    assert list(ALL.sent(POD_B, POD_A)) == [BACK]
    assert list(ALL.between(POD_A, POD_B).on("node2/flannel.1")) == [INSIDE]
    assert list(ALL.icmp(0)) == [BACK]
    assert list(ALL.tcp(80)) == list(ALL.tcp()) == [WEB]
    assert list(ALL.arp()) == [QUESTION]
    assert list(ALL.where(lambda each: each.vni == 1).icmp()) == [THERE, BACK]
    assert list(ALL.between("10.244.0.2", IPv4Address("10.244.1.2")).containing(b"x")) == [
        THERE,
        INSIDE,
        BACK,
        WEB,
    ]
    assert ALL[0] is THERE
    assert len(ALL) == 5


def test_the_outer_datagram_is_not_the_pods() -> None:
    """VXLAN is UDP, but the pods spoke ICMP and TCP."""
    assert not ALL.udp()


def test_encapsulation_as_asked_for() -> None:
    """Judged on the uplink alone: flannel.1 shows the inside."""
    verdict = ALL.between(POD_A, POD_B).encapsulated_in(VXLAN(1, 8472), outer=(NODE1, NODE2))
    assert verdict, verdict.explanation
    assert ALL.between(POD_A, POD_B).encapsulated_in(VXLAN())


@pytest.mark.parametrize(
    ("kind", "outer", "reason"),
    [
        (VXLAN(2, 8472), None, "VNI 1, not 2"),
        (VXLAN(1, 4789), None, "UDP 8472, not 4789"),
        (VXLAN(2, 4789), None, "VNI 1, not 2; UDP 8472, not 4789"),
        (IPIP(), None, "VXLAN VNI 1, UDP 8472, not IP-in-IP"),
        (VXLAN(), (NODE1, NODE3), "outer 172.18.0.2 > 172.18.0.3, not node1 and node3"),
        (VXLAN(), (NODE2, NODE1), "outer 172.18.0.2 > 172.18.0.3, not node2 and node1"),
    ],
)
def test_another_encapsulation(kind: Any, outer: Any, reason: str) -> None:
    """False, and the table says of every packet why; the outer way must be the inner one's."""
    verdict = ALL.between(POD_A, POD_B).encapsulated_in(kind, outer)
    assert not verdict
    assert verdict.explanation.count(reason) >= 2
    assert explanations.last() == verdict.explanation


def test_plain() -> None:
    """Encapsulated packets are not, plain ones are."""
    direct = packet(POD_A, POD_B, interface="node1/eth0")
    assert not ALL.between(POD_A, POD_B).plain()
    assert Packets([direct]).plain()
    assert not Packets([direct]).encapsulated_in(IPIP())


def test_no_packet_on_an_uplink_is_no_encapsulation() -> None:
    """If others were seen there, or such packets elsewhere."""
    verdict = ALL.between(POD_A, POD_C).encapsulated_in(VXLAN())
    assert not verdict
    assert "seen on an uplink" in verdict.explanation


@pytest.mark.parametrize(
    ("packets", "why"),
    [
        (Packets([INSIDE]), "No uplink was captured"),
        (Packets([], ["node1/eth0"]), "it holds no packet at all"),
        (Packets([INSIDE], ["node1/eth0"]).between(POD_C, NODE1), "no positive control"),
        (Packets([INSIDE], ["node1/eth0"], dropped=1).arp(), "the kernel dropped 1 frames"),
    ],
)
@pytest.mark.parametrize("ask", [lambda p: p.plain(), lambda p: p.encapsulated_in(VXLAN())])
def test_no_encapsulation_needs_a_control(ask: Any, packets: Packets, why: str) -> None:
    """Where nothing was seen that could be judged, neither yes nor no is proven."""
    with pytest.raises(NoControlError, match=why):
        assert not ask(packets)
    assert explanations.last() == ask(packets).explanation


@pytest.mark.parametrize("ask", [Packets.tcp, Packets.udp, Packets.icmp])
def test_ports_and_types_are_numbers(ask: Any) -> None:
    """A word would match nothing, and look like absence."""
    with pytest.raises(TypeError, match="'80' is not a number"):
        ask(ALL, "80")


def test_wireguard_is_seen_both_ways_and_nothing_else() -> None:
    """What is inside cannot be selected: it must not be readable, and its carriers be there."""
    sent = packet(NODE1, NODE2, protocol=17, destination_port=51820, interface="node1/eth0")
    answered = packet(NODE2, NODE1, protocol=17, destination_port=51820, interface="node1/eth0")
    pods = packet(POD_A, POD_B, interface="node1/eth0")
    both = Packets([sent, answered], ["node1/eth0"])
    assert both.between(POD_A, POD_B).encapsulated_in(WIREGUARD(), outer=(NODE1, NODE2))
    assert not Packets([sent]).between(POD_A, POD_B).encapsulated_in(WIREGUARD())
    leaking = Packets([sent, answered, pods]).between(POD_A, POD_B)
    assert "can be read" in leaking.encapsulated_in(WIREGUARD()).explanation


def test_absence_with_a_control() -> None:
    """Something else at that interface, or such packets elsewhere, show that it would be seen."""
    assert not ALL.between(POD_A, POD_C).on("node1/eth0")
    elsewhere = Packets([INSIDE], ["node1/eth0", "node2/flannel.1"])
    assert not elsewhere.on("node1/eth0")
    assert not elsewhere.between(POD_A, POD_B).on("node1/eth0")
    assert not elsewhere.between(POD_A, POD_C)


@pytest.mark.parametrize(
    ("select", "words"),
    [
        (lambda all_: all_, "no packet at all"),
        (lambda all_: all_.on("node1/eth0"), "no packet at all"),
        (lambda all_: all_.between(POD_A, POD_B), "no packet at all"),
    ],
)
def test_an_empty_capture_proves_nothing(select: Any, words: str) -> None:
    """The assertion fails although its words would hold, and says what to do."""
    nothing = select(Packets([], ["node1/eth0", "node2/flannel.1"]))
    with pytest.raises(NoControlError, match=words):
        bool(nothing)


def test_absence_without_a_control() -> None:
    """What was seen says nothing about what was asked."""
    one = Packets([INSIDE], ["node2/flannel.1", "node1/eth0"])
    with pytest.raises(NoControlError, match="neither did anything else"):
        bool(one.between(POD_A, POD_C).on("node1/eth0"))


@pytest.mark.parametrize(
    "unasked",
    [
        Packet(destination=IPv6Address("ff02::2"), interface="node1/eth0"),
        Packet(destination=IPv6Address("fe80::1"), interface="node1/eth0"),
        packet(NODE1, NODE3, interface="node1/eth0", destination_mac="ff:ff:ff:ff:ff:ff"),
        Packet(ethertype=ARP, interface="node1/eth0"),
    ],
    ids=["to a group", "to a neighbour", "broadcast", "ARP"],
)
def test_what_machines_send_unasked_is_no_control(unasked: Packet) -> None:
    """It does not show that the test sent anything; at another interface it is a control."""
    seen = Packets([unasked], ["node1/eth0", "node2/eth0"])
    for selected in (seen.tcp(), seen.tcp().on("node1/eth0")):
        with pytest.raises(NoControlError, match="link-local addresses do not count"):
            bool(selected)
    assert not seen.on("node2/eth0")


def test_absence_where_the_kernel_dropped_frames() -> None:
    """One of them may have been it."""
    with pytest.raises(NoControlError, match="dropped 3 frames"):
        bool(Packets([INSIDE], dropped=3).between(POD_A, POD_C))


def test_an_interface_that_was_not_captured() -> None:
    """A mistake of the test, not an absence."""
    with pytest.raises(ValueError, match=r"node3/eth0 was not captured; captured were node1/eth0"):
        ALL.on("node3/eth0")


def test_the_table_shows_what_was_seen_instead() -> None:
    """Of an empty selection the capture, so that a reader sees what there was."""
    table = ALL.between(POD_A, POD_C).table()
    assert table.startswith("no packet between pod-0 and pod-2; captured were 5:")
    assert "172.18.0.2 > 172.18.0.3:8472: VXLAN VNI 1: 10.244.0.2 > 10.244.1.2: ICMP" in table
    assert repr(ALL.tcp()) == "<1 packets TCP of 5 captured>"
    many = Packets([THERE] * 30).table()
    assert many.endswith("… and 10 more")


def test_explanations_are_of_the_last_truth_value() -> None:
    """A test's report shows what its last assertion looked at."""
    explanations.clear()
    assert explanations.last() == ""
    assert ALL.tcp()
    assert explanations.last().startswith("<1 packets TCP")
    assert len(ALL.icmp()) == 3
    assert explanations.last().startswith("<3 packets ICMP")
    assert [each.ttl for each in ALL.arp()] == [None]
    assert explanations.last().startswith("<1 packets ARP")
