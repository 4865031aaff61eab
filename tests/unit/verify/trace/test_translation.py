"""What became of a packet's destination, by its conntrack entry or by what was seen."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from testbed.packets.packet import Packet
from testbed.verify.trace.correlation import correlate
from testbed.verify.trace.happened import turned
from testbed.verify.trace.model import Endpoint, Event, Probe, Service
from testbed.verify.trace.translation import arguments, entry, sent, translated
from testbed.verify.trace.walk import follow
from tests.unit.verify.trace.test_dispatch import ENTRY, SERVICE, TCP_PROBE, asked
from tests.unit.verify.trace.world import (
    MARKER,
    NODE1,
    PATH,
    UDP_PROBE,
    A,
    B,
    at,
    datagram,
    segment,
)

ICMP_ENTRY = (
    "icmp 1 29 src=10.244.0.2 dst=10.96.0.10 type=8 code=0 id=7 [UNREPLIED] "
    "src=10.96.0.10 dst=172.18.0.2 type=0 code=0 id=9 mark=0 use=1"
)


def test_an_entry_has_two_directions() -> None:
    """Addresses and ports of each; ICMP has no ports."""
    found = entry(ENTRY)
    assert found is not None
    assert found.original == (("10.244.0.2", 40000), ("10.96.0.10", 80))
    assert found.reply == (("10.244.1.2", 8080), ("10.244.0.2", 40000))
    icmp = entry(ICMP_ENTRY)
    assert icmp is not None
    assert icmp.reply == (("10.96.0.10", 0), ("172.18.0.2", 0))
    assert entry("conntrack v1.4.7: 0 flow entries") is None


@pytest.mark.parametrize(
    ("entries", "events", "made"),
    [
        ([ENTRY], [], "10.244.1.2:8080"),
        ([ICMP_ENTRY], [], ""),
        ([], [at(PATH[0][0], asked(), 1)], ""),
        ([], [at(PATH[0][0], asked(), 1), at(PATH[0][2], segment("S"), 2)], "10.244.1.2:8080"),
        ([], [at(PATH[0][0], asked(), 1), at(PATH[0][6], segment("S"), 2)], ""),
        ([], [], ""),
    ],
    ids=["entry", "not translated", "as sent", "seen", "elsewhere", "nothing"],
)
def test_what_the_node_made_of_the_destination(
    entries: list[str], events: list[Event], made: str
) -> None:
    """A packet that a rule drops after DNAT has no entry; another node's doing does not count."""
    probe = TCP_PROBE if made or ICMP_ENTRY not in entries else Probe("icmp", SERVICE.cluster_ip)
    service = SERVICE if probe.port else _icmp()
    request = correlate(events, probe).request
    assert translated(service, A, request, entries) == made


def _icmp() -> Service:
    return replace(SERVICE, protocol="icmp", port=0, known=False)


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        (TCP_PROBE, "-d 10.96.0.10 -p tcp --sport 40000 --dport 80"),
        (Probe("icmp", "10.96.0.10", marker=MARKER), "-d 10.96.0.10 -p icmp"),
    ],
)
def test_only_the_probes_own_entry_is_asked_for(probe: Probe, words: str) -> None:
    """By the sender's port."""
    assert " ".join(arguments(probe, "node1", [], 40000)) == words


def test_an_entry_is_asked_for_by_the_port_that_the_node_saw() -> None:
    """The sender's node may have masqueraded the packet, to another port."""
    seen = asked()._replace(source=IPv4Address("172.18.0.2"), source_port=12345)
    events = [at(PATH[0][0], asked(), 1), at(PATH[0][5], seen, 2)]
    request = correlate(events, TCP_PROBE).request
    assert arguments(TCP_PROBE, "node2", request, 40000)[5] == "12345"
    assert arguments(TCP_PROBE, "node1", request, 40000)[5] == "40000"


def test_only_a_nodes_own_packets_are_translated_unseen() -> None:
    """What it sent is what its entry says."""
    assert sent(A, "node1", [ENTRY]) is None
    assert sent(NODE1, "node1", []) is None
    assert sent(NODE1, "node2", [ENTRY]) is None
    packet = sent(NODE1, "node1", [ENTRY])
    assert packet is not None
    assert (str(packet.source), packet.source_port) == ("10.244.0.2", 40000)
    assert (str(packet.destination), packet.destination_port) == ("10.96.0.10", 80)


def masqueraded(packet: Packet) -> Packet:
    """Whose source is the tunnel's address, and whose port is another."""
    return packet._replace(source=IPv4Address("10.244.0.0"), source_port=2000)


@pytest.mark.parametrize(
    ("probe", "there", "back"),
    [
        (TCP_PROBE, segment("S"), segment("S.", reply=True)),
        (Probe("udp", "10.96.0.10", 90, 56, marker=MARKER), datagram(), datagram(reply=True)),
    ],
    ids=["tcp", "udp"],
)
def test_a_node_tells_what_no_interface_saw(probe: Probe, there: Packet, back: Packet) -> None:
    """DNAT and masquerading before the first hop, and their undoing behind the last."""
    there = masqueraded(there)
    back = turned(there)._replace(tcp=back.tcp, payload=back.payload)
    paths = PATH[0][3:], PATH[1][:7]
    events = [at(hop, there, 1000 * number) for number, hop in enumerate(paths[0], 1)]
    events += [at(hop, back, 90000 + 1000 * number) for number, hop in enumerate(paths[1])]
    own = Packet(
        source=IPv4Address("172.18.0.2"),
        destination=IPv4Address(probe.ip),
        source_port=40000,
        destination_port=probe.port,
    )
    walk = follow(events, probe, paths, Endpoint("node1", "node1", NODE1.ip, False), B, sent=own)
    port = there.destination_port
    first, last = walk.request.observed[0], walk.reply.observed[-1]
    assert first.happened == (
        "sent",
        f"DNATed 10.96.0.10:{probe.port} to 10.244.1.2:{port}",
        "SNATed 172.18.0.2:40000 to 10.244.0.0:2000",
    )
    assert last.happened[-2:] == (
        "SNAT reversed 10.244.0.0:2000 to 172.18.0.2:40000",
        f"DNAT reversed 10.244.1.2:{port} to 10.96.0.10:{probe.port}",
    )


def test_a_udp_probe_without_room_for_its_marker_is_told_by_its_address() -> None:
    """Nothing else tells it from others."""
    other = datagram()._replace(payload=b"echo ")
    short = Probe("udp", B.ip, 9, 5, marker=MARKER)
    assert not follow([at(PATH[0][0], other, 1)], short, PATH, A, B).request.observed
    assert follow([at(PATH[0][0], datagram(), 1)], UDP_PROBE, PATH, A, B).request.observed


def test_the_endpoints_node_did_not_translate_what_another_sent_on() -> None:
    """Though it is the one by which the packet had to come in."""
    client = Endpoint("client", "client", "172.18.0.9", pod=False)
    service = replace(SERVICE, entered="node2")
    out = replace(at(PATH[0][0], asked(), 1), place="client", node="client")
    events = [out, at(PATH[0][4], segment("S"), 2), at(PATH[0][7], segment("S"), 3)]
    astray = correlate(events, TCP_PROBE).request
    assert translated(service, client, astray, []) == ""
    came = at(PATH[0][5], asked(), 2)
    through = correlate([out, came, *events[2:]], TCP_PROBE).request
    assert translated(service, client, through, []) == "10.244.1.2:8080"
