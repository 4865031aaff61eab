"""What of a trace is put into words."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from testbed.packets.packet import UDP, Packet
from testbed.verify.trace import words
from testbed.verify.trace.model import Endpoint, Event, Hop, Leg, Probe, Trace
from tests.unit.verify.trace import traces


@pytest.mark.parametrize(
    ("nanoseconds", "told"),
    [
        (0, "0.0 µs"),
        (999_949, "999.9 µs"),
        (999_950, "1.00 ms"),
        (12_345_678, "12.35 ms"),
        (999_995_000, "1.00 s"),
        (-4_000, "-4.0 µs"),
    ],
)
def test_durations(nanoseconds: int, told: str) -> None:
    """Never a thousand of a unit."""
    assert words.duration(nanoseconds) == told


@pytest.mark.parametrize(
    ("probe", "told"),
    [
        (Probe("icmp", "10.0.0.1"), "ICMP echo, 56 bytes"),
        (Probe("tcp", "10.0.0.1", 80, 0), "TCP to port 80"),
        (Probe("udp", "10.0.0.1", 53, 9, True), "UDP to port 53, 9 bytes, don't fragment"),
    ],
)
def test_probes(probe: Probe, told: str) -> None:
    """What was sent."""
    assert words.probe(probe) == told


def test_endpoints() -> None:
    """A pod with its node; a node is where it is."""
    assert words.endpoint(Endpoint("default/a", "n1", "", pod=True)) == (
        "default/a (no address, on n1)"
    )
    assert words.endpoint(Endpoint("n1", "n1", "10.0.0.1", pod=False)) == "n1 (10.0.0.1)"


@pytest.mark.parametrize(
    ("trace", "told"),
    [
        (traces.answered(), "answered in 98.8 µs, on the expected path"),
        (traces.astray(), "answered in 98.8 µs, but not on the expected path"),
        (traces.dropped(), "not answered: the request was last seen at node2/eth0 in"),
        (traces.nowhere(), "not answered: no interface saw the packet"),
        (traces.unanswered(), "not answered: the request arrived, and no reply was sent"),
        (traces.refused(), "refused with a TCP reset"),
        (
            replace(traces.answered(), answered=False),
            "not answered, though a reply arrived",
        ),
    ],
)
def test_verdicts(trace: Trace, told: str) -> None:
    """The outcome in a few words."""
    assert words.verdict(trace) == told


def test_a_copy_for_the_bridge_itself_is_not_the_last_sight() -> None:
    """As the diagnosis has it: a bridge hands its own device what it does not know."""
    trace = traces.dropped()
    last = trace.request.observed[-1]
    copy = Event("node2", "node2", "cni0", "in", last.event.packet)
    hops = *trace.request.observed, Hop(7, copy, ("bridged",), last.since_ns, expected=False)
    trace = replace(trace, request=replace(trace.request, observed=hops))
    assert words.verdict(trace) == "not answered: the request was last seen at node2/eth0 in"


def test_wireguard_is_a_carrier_that_hides_its_packet() -> None:
    """By the first bytes of its data messages."""
    ends = (IPv4Address("172.18.0.2"), IPv4Address("172.18.0.3"))
    packet = Packet(
        source=ends[0],
        destination=ends[1],
        ttl=64,
        protocol=UDP,
        source_port=51820,
        destination_port=51820,
        payload=bytes((4, 0, 0, 0, 1, 2)),
    )
    (layer,) = words.layers(packet)
    assert (layer.kind, layer.macs) == ("wireguard", "")
    assert str(layer) == "WireGuard, encrypted, 172.18.0.2:51820 > 172.18.0.3:51820, ttl 64"


def test_a_hop_that_no_one_can_see_is_not_missing() -> None:
    """Only from the first divergence on is anything lost."""
    good = traces.answered().request
    seen = tuple(hop for hop in good.observed if hop.number != 5)
    rows = list(words.rows(Leg(good.expected, seen, None, complete=True)))
    assert [row.seen.number for row in rows if row.seen] == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert not [row for row in rows if row.seen is None]


def test_hops_between_a_divergence_and_what_was_seen_again_are_missing() -> None:
    """Those after it are where they belong."""
    good = traces.answered().request
    seen = tuple(hop for hop in good.observed if hop.number not in (4, 5))
    rows = list(words.rows(Leg(good.expected, seen, 3, complete=True)))
    numbers = [row.seen.number if row.seen else 0 for row in rows]
    assert numbers == [1, 2, 3, 0, 0, 6, 7, 8, 9, 10]
    assert [row.diverges for row in rows] == [False] * 3 + [True] + [False] * 6


def test_strays_are_among_the_hops() -> None:
    """Where their time puts them, without a number, in the leg that they belong to."""
    found = traces.astray()
    request, reply = words.walked(found)
    stray = next(hop for hop in request.observed if hop.event.place == "node3")
    assert (stray.number, stray.expected, stray.since_ns) == (0, False, 21_000)
    assert [hop.number for hop in request.observed] == [1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11]
    assert reply == found.reply
    late = found.strays[0].packet._replace(time_ns=traces.BEGAN + 70_000)
    again = replace(found, strays=(replace(found.strays[0], packet=late),))
    assert [hop.number for hop in words.walked(again)[1].observed][:5] == [12, 13, 14, 0, 15]


def test_strays_alone_are_a_walk() -> None:
    """Of a packet that nobody on the path saw."""
    lost = replace(traces.nowhere(), strays=traces.astray().strays)
    request, _ = words.walked(lost)
    assert [(hop.number, hop.since_ns) for hop in request.observed] == [(0, 0)]
    assert words.verdict(lost) == "not answered: the request was last seen at node3/eth0 in"
