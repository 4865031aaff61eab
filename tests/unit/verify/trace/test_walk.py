"""Correlation by marker or sequence number, and alignment with the expected path."""

from __future__ import annotations

from ipaddress import IPv4Address

from testbed.packets.packet import UDP, Packet
from testbed.verify.oracle import Ipip, Wireguard
from testbed.verify.trace.model import Endpoint, Event, Probe
from testbed.verify.trace.walk import Walk, follow, mismatch
from tests.unit.verify.trace.world import (
    ICMP_PROBE,
    NODES,
    PATH,
    STEP_NS,
    TCP_PROBE,
    UDP_PROBE,
    A,
    B,
    at,
    datagram,
    echo,
    hop,
    segment,
    travel,
    vxlan,
)

LATER = 2_000_000


def there_and_back(request: Packet, reply: Packet) -> list[Event]:
    """The whole way of a request and its reply."""
    return travel(PATH[0], request) + travel(PATH[1], reply, begin=LATER, reply=True)


def walked(events: list[Event], probe: Probe = ICMP_PROBE) -> Walk:
    """The walk from pod a to pod b."""
    return follow(events, probe, PATH, A, B, nodes=NODES)


def names(walk: Walk) -> list[str]:
    """Where the request was seen."""
    return [f"{hop.event.place}/{hop.event.interface}" for hop in walk.request.observed]


def test_a_ping_is_walked_there_and_back() -> None:
    """Every hop is expected, numbered through, and told."""
    walk = walked(there_and_back(echo(), echo(reply=True))[::-1])
    assert walk.request.complete
    assert walk.reply.complete
    assert (walk.request.divergence, walk.reply.divergence) == (None, None)
    hops = (*walk.request.observed, *walk.reply.observed)
    assert [hop.number for hop in hops] == list(range(1, 21))
    assert all(hop.expected for hop in hops)
    assert walk.request.observed[3].since_ns == 3 * STEP_NS
    assert walk.reply.observed[0].since_ns == LATER - 1_000_000
    assert [hop.happened for hop in walk.request.observed] == [
        ("sent",),
        ("veth crossing",),
        ("bridged",),
        ("routed",),
        ("encapsulated (VXLAN VNI 1, UDP 8472)",),
        ("underlay crossing",),
        ("decapsulated",),
        ("routed",),
        ("bridged",),
        ("veth crossing", "delivered"),
    ]
    assert (walk.errors, walk.strays) == ((), ())


def test_others_packets_are_left_out() -> None:
    """Another ping, another marker, ARP."""
    other = echo()._replace(payload=b"other " * 10)
    arp = Packet(ethertype=0x0806)
    walk = walked([at(PATH[0][0], other, 1), at(PATH[0][1], arp, 2), *travel(PATH[0], echo())])
    assert len(walk.request.observed) == 10


def test_stamps_that_are_nearly_equal_follow_the_path() -> None:
    """A bridge passes its port's stamp on, and a veth's ends may be the wrong way round."""
    events = travel(PATH[0], echo())
    times = {1: 0, 2: 0, 3: 0, 8: 9, 9: 8}
    events = [
        event
        if index not in times
        else at(PATH[0][index], event.packet, 1_000_000 + times[index] * STEP_NS)
        for index, event in enumerate(events)
    ]
    walk = walked([events[2], events[3], events[1], events[0], *events[4:]])
    assert names(walk) == [f"{hop.place}/{hop.interface}" for hop in PATH[0]]
    assert walk.request.divergence is None


def test_the_first_hop_not_seen_is_the_divergence() -> None:
    """The packet entered flannel.1 and never left the node."""
    walk = walked(travel(PATH[0], echo(), hops=4))
    assert walk.request.divergence == 4
    assert not walk.request.complete
    assert walk.reply.divergence == 0
    assert walk.reply.observed == ()


def test_a_plain_packet_where_it_must_be_encapsulated_is_no_expected_hop() -> None:
    """Seen at node1's eth0, but not as it must be."""
    plain = at(PATH[0][4], echo(ttl=63), 1_050_000)
    walk = walked([*travel(PATH[0], echo(), hops=3), plain])
    assert walk.request.divergence == 3
    assert [hop.expected for hop in walk.request.observed] == [True, True, True, False]
    assert mismatch(plain, PATH[0], 4, NODES) == "not encapsulated"


def test_the_outer_header_must_name_the_right_nodes() -> None:
    """A wrong forwarding entry sends to node3, which is no place of the path."""
    wrong = at(PATH[0][4], vxlan(echo(ttl=63), "node1", "node3"), 1_050_000)
    stray = at(hop("node3", "eth0", "in"), vxlan(echo(ttl=63), "node1", "node3"), 1_060_000)
    walk = walked([*travel(PATH[0], echo(), hops=4), wrong, stray])
    assert walk.request.divergence == 4
    assert [hop.expected for hop in walk.request.observed][-1] is False
    assert [event.place for event in walk.strays] == ["node3"]
    words = "outer destination 172.18.0.4, not 172.18.0.3 (node2)"
    assert mismatch(wrong, PATH[0], 4, NODES) == words
    assert mismatch(wrong, PATH[0], 4) == ""
    other = at(PATH[0][4], vxlan(echo(), vni=9), 1)
    assert mismatch(other, PATH[0], 4, NODES) == "not VXLAN VNI 1, UDP 8472"
    assert mismatch(at(PATH[0][3], vxlan(echo()), 1), PATH[0], 3) == "encapsulated"


def test_a_detour_is_a_divergence_though_it_arrives() -> None:
    """Node3 passed it on: nobody demands that."""
    events = travel(PATH[0], echo())
    time = events[4].packet.time_ns + 1000
    events.append(at(hop("node3", "eth0", "in"), vxlan(echo()), time))
    events.append(at(hop("node3", "eth0", "out"), vxlan(echo()), time + 1000))
    walk = walked(events)
    assert walk.request.complete
    assert walk.request.divergence == 5


def test_tcp_is_followed_by_its_sequence_number_through_nat() -> None:
    """SYN and SYN-ACK; what follows on the connection is no hop, nor is another connection."""
    events = there_and_back(segment("S"), segment("S.", reply=True))
    later = [at(PATH[0][0], segment(".")._replace(time_ns=0), 3_000_000)]
    other = [at(PATH[0][0], segment("S", number=5), 3_000_001)]
    walk = walked(events + later + other, TCP_PROBE)
    assert len(walk.request.observed) == len(walk.reply.observed) == 10
    assert (walk.request.divergence, walk.reply.divergence) == (None, None)


def test_a_strangers_connection_is_not_followed() -> None:
    """Although it goes the same way, at the same time, and nothing of the probe was seen."""
    strange = travel(PATH[0], segment("S", number=5))
    assert walked(strange, TCP_PROBE).request.observed == ()


def test_a_reset_is_a_reply() -> None:
    """Nobody listens."""
    walk = walked(there_and_back(segment("S"), segment("R.", reply=True)), TCP_PROBE)
    assert walk.reply.complete


def test_retransmissions_are_no_hops() -> None:
    """The first walk is kept, and where they go further than it they continue it."""
    first = travel(PATH[0], segment("S"), hops=4)
    second = travel(PATH[0], segment("S"), hops=6, begin=1_001_000_000)
    walk = walked(first + second, TCP_PROBE)
    assert len(walk.request.observed) == 6
    assert walk.request.observed[0].happened == ("sent", "retransmitted once")
    assert walk.request.observed[3].since_ns == 3 * STEP_NS
    assert walk.request.divergence == 6


def test_udp_replies_have_the_ports_the_other_way_round() -> None:
    """By what their sender saw, as the marker is in both."""
    walk = walked(there_and_back(datagram(), datagram(reply=True)), UDP_PROBE)
    assert len(walk.request.observed) == len(walk.reply.observed) == 10
    assert walk.reply.complete


def translated(
    packet: Packet, *, source: str = "", destination: str = "", ports: tuple[int, int]
) -> Packet:
    """After NAT."""
    return packet._replace(
        source=IPv4Address(source) if source else packet.source,
        destination=IPv4Address(destination) if destination else packet.destination,
        source_port=ports[0],
        destination_port=ports[1],
    )


def test_nat_is_told_and_undone() -> None:
    """A service's address on the way in, masquerading on the way out; UDP, so no sequence."""
    path = (
        (
            hop(A.place, "eth0", "out", node="node1"),
            hop("node1", "vetha", "in"),
            hop("node1", "eth0", "out"),
            hop("node2", "eth0", "in"),
        ),
        (
            hop("node2", "eth0", "out"),
            hop("node1", "eth0", "in"),
            hop("node1", "vetha", "out"),
            hop(A.place, "eth0", "in", node="node1"),
        ),
    )
    target = Endpoint("node2", "node2", "172.18.0.3", False)
    probe = Probe("udp", "10.96.0.10", 53, marker=UDP_PROBE.marker)
    sent = translated(datagram(), destination="10.96.0.10", ports=(40000, 53))
    passed = translated(sent, source="172.18.0.2", destination=target.ip, ports=(61000, 8081))
    back = translated(
        datagram(reply=True), source=target.ip, destination="172.18.0.2", ports=(8081, 61000)
    )
    undone = translated(back, source="10.96.0.10", destination=A.ip, ports=(53, 40000))
    packets = [sent, sent, passed, passed, back, back, undone, undone]
    hops = (*path[0], *path[1])
    events = [at(hop, packet, 1000 + n) for n, (hop, packet) in enumerate(zip(hops, packets))]  # noqa: B905
    walk = follow(events, probe, path, A, target, nodes=NODES)
    assert (walk.request.divergence, walk.reply.divergence) == (None, None)
    assert walk.request.observed[2].happened[-2:] == (
        "DNATed 10.96.0.10:53 to 172.18.0.3:8081",
        "SNATed 10.244.0.2:40000 to 172.18.0.2:61000",
    )
    assert walk.reply.observed[2].happened[-2:] == (
        "SNAT reversed 172.18.0.2:61000 to 10.244.0.2:40000",
        "DNAT reversed 172.18.0.3:8081 to 10.96.0.10:53",
    )


def test_fragments_at_an_interface_are_one_hop() -> None:
    """Those behind the first have no ICMP header; the last may hold no whole marker."""
    first = echo(size=1400)._replace(more_fragments=True, identification=99, fragment_offset=0)
    last = first._replace(
        icmp_type=None,
        icmp_identity=None,
        more_fragments=False,
        fragment_offset=1408,
        payload=b"-4",
    )
    whole = travel(PATH[0], echo(size=1402)._replace(identification=99), hops=1)
    events = whole + [
        event
        for packet, begin in ((first, 1_000_000), (last, 1_001_000))
        for event in travel(PATH[0], packet, begin=begin)[1:]
    ]
    walk = walked(events)
    assert [hop.fragments for hop in walk.request.observed] == [1] + [2] * 9
    assert walk.request.observed[1].happened == ("veth crossing", "fragmented")
    assert walk.request.divergence is None
    assert all(hop.event.packet.innermost.icmp_type == 8 for hop in walk.request.observed)


def test_fragments_of_the_outer_packet_are_one_hop() -> None:
    """The second holds a piece of what is inside, without its headers."""
    head = vxlan(echo(size=1472))._replace(identification=5, more_fragments=True)
    tail = head._replace(
        vni=None, inner=None, more_fragments=False, fragment_offset=1480, payload=echo().payload
    )
    at_eth0 = PATH[0][4]
    walk = walked(
        [
            *travel(PATH[0], echo(), hops=4),
            at(at_eth0, head, 1_040_000),
            at(at_eth0, tail, 1_040_100),
        ]
    )
    assert walk.request.observed[-1].fragments == 2
    assert walk.request.observed[-1].expected


def test_icmp_errors_are_known_by_what_they_quote() -> None:
    """By the marker, or by the flow where no more than 8 bytes are quoted."""
    error = echo()._replace(icmp_type=3, icmp_code=4, icmp_mtu=1450, icmp_identity=None)
    long = error._replace(quoted=echo(), payload=b"")
    short = error._replace(quoted=echo()._replace(payload=b""), payload=b"")
    other = error._replace(quoted=echo()._replace(payload=b"", icmp_identity=8), payload=b"")
    events = [
        at(PATH[1][-1], packet, 2_000_000 + n) for n, packet in enumerate((long, short, other))
    ]
    walk = walked(travel(PATH[0], echo(), hops=3) + events)
    assert [event.packet.time_ns for event in walk.errors] == [2_000_000, 2_000_001]
    assert walk.reply.observed == ()


def test_a_loop_is_seen_again_with_another_ttl() -> None:
    """Unexpected hops, in the order of time."""
    events = travel(PATH[0], echo(), hops=4)
    again = [at(PATH[0][3], echo(ttl=ttl), 1_040_000 + 100 * ttl) for ttl in (61, 59)]
    walk = walked(events + again)
    assert [hop.expected for hop in walk.request.observed] == [True] * 4 + [False] * 2


def test_ipip_must_be_ipip() -> None:
    """Protocol 4 between the nodes' addresses."""
    path = (hop("node1", "eth0", "out", Ipip()), hop("node2", "eth0", "in", Ipip()))
    outer = Packet(source=NODES["node1"], destination=NODES["node2"], protocol=4, inner=echo())
    assert mismatch(at(path[0], outer, 1), path, 0, NODES) == ""
    assert mismatch(at(path[0], vxlan(echo()), 1), path, 0, NODES) == "not IP-in-IP (protocol 4)"


def test_wireguard_is_known_by_time_ports_and_addresses() -> None:
    """What is inside is invisible; where no capture has it, later hops prove it."""
    how = Wireguard(51820)
    request = (
        hop("node1", "flannel-wg", "out"),
        hop("node1", "eth0", "out", how),
        hop("node2", "eth0", "in", how),
        hop("node2", "flannel-wg", "in"),
    )
    encrypted = Packet(
        source=NODES["node1"],
        destination=NODES["node2"],
        ttl=64,
        protocol=UDP,
        source_port=51820,
        destination_port=51820,
        payload=b"\4\0\0\0" + bytes(100),
    )
    ends = (Endpoint("node1", "node1", "172.18.0.2", False), B)
    seen = [at(request[0], echo(ttl=63), 1000), at(request[3], echo(ttl=63), 4000)]
    middle = [at(request[1], encrypted, 2000), at(request[2], encrypted, 3000)]
    noise = [at(request[1], encrypted, 500)]
    walk = follow(noise + middle + seen, ICMP_PROBE, (request, ()), *ends, nodes=NODES)
    assert [hop.since_ns for hop in walk.request.observed] == [0, 1000, 2000, 3000]
    assert [hop.happened[0] for hop in walk.request.observed] == [
        "sent",
        "encapsulated (WireGuard, UDP 51820)",
        "underlay crossing",
        "decapsulated",
    ]
    assert follow(seen, ICMP_PROBE, (request, ()), *ends, nodes=NODES).request.divergence is None
    only = follow(seen[:1], ICMP_PROBE, (request, ()), *ends, nodes=NODES)
    assert only.request.divergence == 1


def test_nothing_seen_and_nothing_expected() -> None:
    """No hop, no fault of the walk's own."""
    assert walked([]).request.divergence == 0
    walk = follow(travel(PATH[0], echo(), hops=2), ICMP_PROBE, ((), ()), A, B)
    assert [hop.expected for hop in walk.request.observed] == [False, False]
    assert walk.request.divergence is None
