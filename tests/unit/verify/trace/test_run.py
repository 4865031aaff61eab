"""From what the taps saw to a trace, with agents that have their answers ready."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from testbed.agent import pcapng
from testbed.packets.capturefile import read
from testbed.packets.merging import merged
from testbed.topology.model import Backend, Cluster, Container, Node, Pod
from testbed.verify.observed import Observed
from testbed.verify.trace import run
from testbed.verify.trace.conversation import Conversation
from testbed.verify.trace.model import IN, OUT, Endpoint, Event, Facts, Probe
from tests.unit.verify.trace.fake_agents import FakeLine, collected, ready

MARKER = "0123456789abcdef"
A_MAC, B_MAC, BRIDGE = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:01"
A, B = "10.244.0.2", "10.244.0.3"
SOURCE = Endpoint("default/a", "node1", A, pod=True)
TARGET = Endpoint("default/b", "node1", B, pod=True)
CLUSTER = Cluster(
    name="t",
    cni="flannel",
    backend=Backend("vxlan"),
    cluster_cidr=IPv4Network("10.244.0.0/16"),
    node_cidr_mask=24,
    service_cidr=IPv4Network("10.96.0.0/16"),
    nodes=(Node("node1", 0, (IPv4Network("10.244.0.0/24"),)),),
    pods=tuple(
        Pod("default", name, "node1", (Container("c", "netexec", ()),), hostname=name)
        for name in ("a", "b")
    ),
)
OBSERVED = Observed.of(
    {"node1": "172.18.0.2"},
    {
        "node1": {
            "pods": [
                {"namespace": "default", "name": name, "ip": ip, "host_interface": f"veth{name}"}
                | {"state": "Running", "netns": f"/run/{name}"}
                for name, ip in (("a", A), ("b", B))
            ]
        }
    },
)
PROBE = Probe("icmp", B, marker=MARKER, size=16)


def echo(kind: int, source: str, target: str, macs: tuple[str, str]) -> bytes:
    """An Ethernet frame with an ICMP echo request (8) or reply (0)."""
    message = struct.pack("!BBHHH", kind, 0, 0, 1, 1) + MARKER.encode()
    ends = IPv4Address(source).packed + IPv4Address(target).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 1, 0, 64, 1, 0) + ends
    head = bytes.fromhex("".join(macs).replace(":", "")) + b"\x08\x00"
    return head + header + message


REQUEST = echo(8, A, B, (B_MAC, A_MAC))
REPLY = echo(0, B, A, (A_MAC, B_MAC))


def capture(*sights: tuple[str, str, int, bytes]) -> bytes:
    """A file of frames, each with interface, direction and time."""
    names = list(dict.fromkeys(name for name, *_ in sights))
    blocks = [pcapng.section("t"), *(pcapng.interface(name, 1) for name in names)]
    for name, direction, time, data in sights:
        blocks.append(pcapng.packet(names.index(name), time, data, len(data), direction))
    return b"".join(blocks)


BRIDGED = capture(
    ("default/a/eth0", "out", 1000, REQUEST),
    ("node1/vetha", "in", 1010, REQUEST),
    ("node1/vethb", "out", 1020, REQUEST),
    ("default/b/eth0", "in", 1030, REQUEST),
    ("default/b/eth0", "out", 1040, REPLY),
    ("node1/vethb", "in", 1050, REPLY),
    ("node1/vetha", "out", 1060, REPLY),
    ("default/a/eth0", "in", 1070, REPLY),
)


def answer(*, answered: bool, error: str = "") -> dict[str, Any]:
    """What the sender's agent says."""
    return {
        "answered": answered,
        "error": error,
        "local_port": 0,
        "sequence": 0,
        "sent_ns": 900,
    } | {"patterns": [MARKER.encode().hex()]}


def test_an_answered_packet_is_walked_there_and_back() -> None:
    """On the path that the topology demands; nothing is diagnosed, nor read afterwards."""
    line = FakeLine(ready({"": {}}), answer(answered=True), collected(BRIDGED, {}))
    nodes = Conversation({"node1": line})
    nodes.greet()
    trace, data = run.traced(nodes, CLUSTER, OBSERVED, SOURCE, TARGET, PROBE)
    assert (trace.ok, trace.diagnosis, trace.error) == (True, None, "")
    assert [hop.event.interface for hop in trace.request.observed] == [
        "eth0",
        "vetha",
        "vethb",
        "eth0",
    ]
    assert trace.reply.complete
    assert [hop.since_ns for hop in trace.reply.observed] == [40, 50, 60, 70]
    assert [question["do"] for question in line.heard] == ["probe", "collect"]
    assert not line.heard[1]["facts"]
    assert len(list(read(data))) == 8


def test_a_packet_that_dies_is_diagnosed() -> None:
    """By what was read afterwards, too."""
    died = capture(("default/a/eth0", "out", 1000, REQUEST))
    nodes = Conversation(
        {"node1": FakeLine(ready({"": {}}), answer(answered=False), collected(died, {"": {}}))}
    )
    nodes.greet()
    trace, _ = run.traced(nodes, CLUSTER, OBSERVED, SOURCE, TARGET, PROBE)
    assert not trace.answered
    assert trace.diagnosis is not None
    assert trace.diagnosis.last == "default/a/eth0"
    assert trace.diagnosis.expected == "node1/vetha"


def test_an_answer_on_another_path_is_looked_into() -> None:
    """What is after it is read in a second turn."""
    strange = capture(
        *((f"node1/{name}", "in", 1000, data) for name, data in (("x", REQUEST), ("x", REPLY)))
    )
    line = FakeLine(
        ready({"": {}}),
        answer(answered=True),
        collected(strange, {}, dropped=2),
        collected(b"", {"": {"links": []}}),
        *[{"route": [], "error": ""}] * 9,
    )
    nodes = Conversation({"node1": line})
    nodes.greet()
    trace, _ = run.traced(nodes, CLUSTER, OBSERVED, SOURCE, TARGET, PROBE)
    assert trace.answered
    assert trace.request.divergence == 0
    assert trace.diagnosis is not None
    assert [question["facts"] for question in line.heard[1:3]] == [False, True]
    assert nodes.facts["node1"].after == {"": {"links": []}}


def test_frames_that_found_no_room_are_told() -> None:
    """The walk may lack hops then."""
    line = FakeLine(ready({"": {}}), answer(answered=True), collected(BRIDGED, {}, dropped=7))
    nodes = Conversation({"node1": line})
    nodes.greet()
    trace, _ = run.traced(nodes, CLUSTER, OBSERVED, SOURCE, TARGET, PROBE)
    assert trace.error == "7 frames found no room in the taps"


def test_a_target_without_an_address_is_sent_nothing() -> None:
    """A pod that is gone; the taps say what else was seen: nothing."""
    line = FakeLine(ready({"": {}}), collected(capture(), {"": {}}), *[{"route": []}] * 9)
    nodes = Conversation({"node1": line})
    nodes.greet()
    gone = Endpoint("default/b", "node1", "", pod=True)
    trace, _ = run.traced(nodes, CLUSTER, OBSERVED, SOURCE, gone, PROBE)
    assert trace.error == "default/b has no address"
    assert not trace.answered
    assert not trace.request.observed


def test_without_any_node_there_is_a_trace_nevertheless() -> None:
    """Of an error."""
    trace, data = run.traced(Conversation({}), CLUSTER, OBSERVED, SOURCE, TARGET, PROBE)
    assert trace.error == "node1 cannot be asked: it does not run"
    assert trace.diagnosis is not None
    assert trace.diagnosis.cause == "not-asked"
    assert list(read(data)) == []


def test_a_node_that_does_not_answer_is_not_judged() -> None:
    """What is not known of it is no evidence; who did not answer is told."""
    nodes = Conversation({}, problems={"node1": "nothing was said for 10 s"})
    found = run.traced(nodes, CLUSTER, OBSERVED, SOURCE, TARGET, PROBE)[0].diagnosis
    assert found is not None
    assert (found.cause, found.place) == ("not-asked", "node1")
    assert "node1: nothing was said for 10 s" in found.evidence


def test_captures_are_merged_by_time() -> None:
    """Interfaces of the same name and link type are one; directions and lengths stay."""
    first = capture(("node1/eth0", "out", 10, REQUEST), ("node1/eth0", "in", 40, REPLY))
    second = capture(("node2/eth0", "in", 20, REQUEST), ("node2/eth0", "out", 30, REPLY))
    packets = list(
        read(merged([first, b"", second, capture(("node1/eth0", "in", 1, REPLY))], "test"))
    )
    assert [(each.interface, each.direction, each.time_ns) for each in packets] == [
        ("node1/eth0", "in", 1),
        ("node1/eth0", "out", 10),
        ("node2/eth0", "in", 20),
        ("node2/eth0", "out", 30),
        ("node1/eth0", "in", 40),
    ]


def test_events_know_their_place() -> None:
    """A pod's node is told by the ends of the path."""
    data = capture(("default/a/eth0", "out", 1, REQUEST), ("node1/flannel.1", "in", 2, REQUEST))
    first, second = run.events(data, [8472], (SOURCE, TARGET))
    assert (first.place, first.node, first.interface, first.direction) == (
        "default/a",
        "node1",
        "eth0",
        OUT,
    )
    assert (second.place, second.node, second.interface) == ("node1", "node1", "flannel.1")


@pytest.mark.parametrize(
    ("link", "direction", "mac", "expected"),
    [
        ({"address": A_MAC}, IN, B_MAC, True),
        ({"address": A_MAC}, IN, A_MAC, False),
        ({"address": A_MAC}, OUT, B_MAC, False),
        ({"address": A_MAC}, IN, "ff:ff:ff:ff:ff:ff", False),
        ({"address": A_MAC, "master": "cni0"}, IN, B_MAC, False),
        ({"address": A_MAC, "linkinfo": {"info_kind": "vxlan"}}, IN, B_MAC, False),
        (None, IN, B_MAC, False),
    ],
)
def test_flooded_frames(
    link: dict[str, Any] | None, direction: str, mac: str, expected: bool
) -> None:
    """Those for another MAC, that no bridge and no tunnel takes in."""
    data = capture(("node3/eth0", "in", 1, echo(8, A, B, (mac, B_MAC))))
    packet = next(iter(read(data)))
    event = Event("node3", "node3", "eth0", direction, packet)
    links = [] if link is None else [{"ifname": "eth0", **link}]
    assert run.flooded(event, {"node3": Facts({"": {"links": links}})}) is expected
    assert not run.flooded(event, {})
