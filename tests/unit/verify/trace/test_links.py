"""Interfaces, MTUs, pods and nodes that are not what they must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.verify.trace.world import (
    A,
    B,
    World,
    at,
    echo,
    error,
    hop,
    request,
    verdict,
)


def test_mtu_by_the_icmp_that_says_so() -> None:
    """The node answers with what would fit."""
    world = World(replace(World().probe, size=1472, dont_fragment=True))
    events = request(3, echo(size=1472))
    events.append(at(hop("node1", "vetha", "out"), error(4, mtu=1450), 1_040_000))
    found = verdict(world, events, error="Message too long")
    assert (found.cause, found.place) == ("mtu", "node1")
    assert found.summary == "node1 dropped it: 1500 bytes with DF, more than the 1450 that fit"
    assert found.evidence[0] == (
        "node1/vetha saw ICMP fragmentation needed (3/4) from 10.244.0.1, MTU 1450"
    )
    assert "node1: flannel.1 mtu 1450" in found.evidence
    assert "--size 1422" in found.advice


def test_mtu_of_the_sender_itself() -> None:
    """sendto() failed, and nothing was seen."""
    world = World(replace(World().probe, size=1472, dont_fragment=True))
    found = verdict(world, [], error="EMSGSIZE: Message too long")
    assert (found.cause, found.place) == ("mtu", A.place)
    assert (found.last, found.expected) == ("", "default/a/eth0")
    assert "the 1450 that fit" in found.summary


def test_mtu_that_nobody_tells_of() -> None:
    """A veth drops what is larger than its other end's MTU."""
    world = World()
    world.after["node2"][B.place]["links"][1]["mtu"] = 80
    found = verdict(world, request(9))
    assert (found.cause, found.place) == ("mtu", B.place)


@pytest.mark.parametrize(
    ("hops", "node", "device"),
    [
        (3, "node1", "flannel.1"),
        (4, "node1", "eth0"),
        (5, "node2", "eth0"),
        (6, "node2", "flannel.1"),
        (7, "node2", "cni0"),
        (8, "node2", "vethb"),
        (2, "node1", "cni0"),
    ],
)
def test_an_interface_down(hops: int, node: str, device: str) -> None:
    """Its routes vanish with it, but it is the cause."""
    world = World(
        answers={B.ip: {"route": [{"dst": B.ip, "gateway": "172.18.0.1", "dev": "eth0"}]}}
    )
    facts = world.node(node)
    row = next(row for row in facts["links"] if row["ifname"] == device)
    row |= {"flags": ["BROADCAST"], "operstate": "DOWN"}
    facts["routes"] = [row for row in facts["routes"] if row["dev"] != device]
    found = verdict(world, request(hops))
    assert (found.cause, found.place) == ("interface-down", node)
    assert found.summary == f"{node}'s {device} is down"
    assert f"ip link set {device} up" in found.advice


def test_an_interface_down_behind_arp() -> None:
    """node2's eth0 is down, so nobody answers node1."""
    world = World(answers={"172.18.0.3": {"route": [{"dst": "172.18.0.3", "dev": "eth0"}]}})
    world.node("node1")["neighbours"].append(
        {"dst": "172.18.0.3", "dev": "eth0", "state": ["INCOMPLETE"]}
    )
    world.node("node2")["links"][0]["flags"] = ["BROADCAST"]
    found = verdict(world, request(4))
    assert (found.cause, found.place) == ("interface-down", "node2")


def test_a_pods_interface_down() -> None:
    """Its other end on the node has no carrier; the pod's is the one that is set down."""
    world = World()
    world.after["node2"][B.place]["links"][1]["flags"] = ["BROADCAST"]
    world.node("node2")["links"][3]["flags"] = ["NO-CARRIER", "UP"]
    found = verdict(world, request(8))
    assert (found.cause, found.place) == ("interface-down", B.place)


def test_a_device_that_is_gone() -> None:
    """Somebody deleted flannel.1."""
    world = World()
    del world.node("node1")["links"][1]
    found = verdict(world, request(3))
    assert (found.cause, found.summary) == ("interface-down", "node1 has no flannel.1")


def _no_namespace(world: World) -> None:
    del world.after["node2"][B.place]


def _no_veth(world: World) -> None:
    del world.node("node2")["links"][3]


def _no_device(world: World) -> None:
    del world.after["node2"][B.place]["links"][1]


def _no_entry(world: World) -> None:
    del world.pods[B.place]


@pytest.mark.parametrize("loss", [_no_namespace, _no_veth, _no_device, _no_entry])
def test_a_pod_that_is_gone(loss: Callable[[World], None]) -> None:
    """Whatever is left of it; what follows from that is not the cause."""
    world = World()
    loss(world)
    world.node("node2")["neighbours"].append({"dst": B.ip, "dev": "cni0", "state": ["FAILED"]})
    found = verdict(world, request(7))
    assert (found.cause, found.place) == ("pod-gone", B.place)


def test_a_node_that_is_down() -> None:
    """Neither facts nor an address of it."""
    world = World()
    del world.after["node2"]
    del world.nodes["node2"]
    world.pods.pop(B.place)
    found = verdict(world, [], target=replace(B, ip=""))
    assert (found.cause, found.place, found.summary) == (
        "node-down",
        "node2",
        "node2 does not run",
    )


@pytest.mark.parametrize(("hops", "node", "port"), [(2, "node1", "vetha"), (7, "node2", "vethb")])
def test_a_port_that_is_not_on_its_bridge(hops: int, node: str, port: str) -> None:
    """Nothing is down, but the frames go nowhere, nor does ARP's question."""
    world = World()
    del world.node(node)["links"][3]["master"]
    found = verdict(world, request(hops))
    assert (found.cause, found.place) == ("interface-down", node)
    assert found.summary == f"{node}'s {port} is no port of cni0"


def test_two_ports_of_one_bridge() -> None:
    """Between pods of one node the bridge device is no hop."""
    path = ((hop("node1", "vetha", "in"), hop("node1", "vethc", "out")), ())
    world = World()
    other = world.node("node1")["links"][3] | {"ifname": "vethc"}
    world.node("node1")["links"].append(other)
    assert verdict(world, [at(path[0][0], echo(), 1)], path=path).cause == "unknown"
    del other["master"]
    found = verdict(world, [at(path[0][0], echo(), 1)], path=path)
    assert found.summary == "node1's vethc is no port of cni0"


def test_a_path_mtu_that_is_remembered() -> None:
    """No interface on the way has it now, so an error of before is what says so."""
    world = World(replace(World().probe, size=1400, dont_fragment=True))
    found = verdict(world, [], error="Message too long (path MTU 1300)")
    assert (found.cause, found.place) == ("mtu", A.place)
    assert "it remembers a path MTU of 1300, which no interface on the path has" in found.summary
    assert found.advice.startswith("`ip route flush cache` on default/a and its node")


def test_a_pod_without_its_address() -> None:
    """Its interface is there and up."""
    world = World()
    world.after["node2"][B.place]["addresses"] = [{"ifname": "eth0", "addr_info": []}]
    found = verdict(world, request(10))
    assert (found.cause, found.place) == ("pod-gone", B.place)
    assert "no interface of it has its address 10.244.1.2" in found.summary
