"""Bridges whose ports pass nothing on, queues without room, and VXLAN devices made otherwise."""

from __future__ import annotations

from typing import Any

from tests.unit.verify.trace.world import B, World, request, verdict

MAC = "02:00:00:00:01:02"
"""Where the last node sends the frames of ``travel``."""


def port(world: World, **data: Any) -> None:
    """What node2's bridge says of the target's port."""
    link = next(each for each in world.node("node2")["links"] if each["ifname"] == "vethb")
    link["linkinfo"] = {"info_kind": "veth", "info_slave_data": {"state": "forwarding", **data}}


def test_a_port_that_forwards_is_no_cause() -> None:
    """Whatever the bridge says of it."""
    world = World()
    port(world)
    assert verdict(world, request(8)).cause == "unknown"


def test_a_disabled_port() -> None:
    """The device is up, and its bridge passes nothing on."""
    world = World()
    port(world, state="disabled")
    found = verdict(world, request(8))
    assert (found.cause, found.place) == ("interface-down", "node2")
    assert found.advice == "`bridge link set dev vethb state 3` on node2"


def test_a_mac_behind_another_port() -> None:
    """The bridge was told so; it is the target's own."""
    world = World()
    port(world)
    world.after["node2"][B.place]["links"][1]["address"] = "02:00:00:00:01:02"
    world.node("node2")["fdb"].append({"mac": MAC, "ifname": "vethz", "master": "cni0"})
    events = list(request(8))
    last = events[-1]
    packet = last.packet._replace(destination_mac=MAC)
    events[-1] = type(last)(last.place, last.node, last.interface, last.direction, packet)
    found = verdict(world, events)
    assert (found.cause, found.place) == ("wrong-fdb", "node2")
    assert "port vethz, but default/b is behind vethb" in found.summary


def test_a_queue_that_dropped_it() -> None:
    """Its counter moved, on the interface by which the packet had to leave."""
    world = World()
    row = {"kind": "tbf", "handle": "1:", "dev": "flannel.1"}
    world.before["node1"][""]["qdiscs"] = [row | {"drops": 3}]
    world.node("node1")["qdiscs"] = [row | {"drops": 4}]
    found = verdict(world, request(3))
    assert (found.cause, found.place) == ("rule", "node1")
    assert "tbf 1 of flannel.1 counted 1 dropped" in found.summary
    world.node("node1")["qdiscs"] = [row | {"drops": 3}]
    assert verdict(world, request(3)).cause == "unknown"


def test_a_vni_of_its_own() -> None:
    """The device that had to take the packet in was made with another."""
    world = World()
    link = next(each for each in world.node("node2")["links"] if each["ifname"] == "flannel.1")
    link["linkinfo"]["info_data"] = {"id": 2, "port": 8472, "local": "172.18.0.3"}
    found = verdict(world, request(6))
    assert (found.cause, found.place) == ("wrong-tunnel", "node2")
    assert found.summary == "node2's flannel.1 has VNI 2, not 1"
