"""Wrong neighbours, NAT and routing policy: the packet went, but not to whom it was for."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from testbed.verify.trace.model import Event
from testbed.verify.trace.path import addressed
from testbed.verify.trace.walk import follow
from tests.unit.verify.trace.world import (
    FILTER,
    NODES,
    PATH,
    TCP_PROBE,
    A,
    B,
    World,
    echo,
    request,
    segment,
    travel,
    verdict,
)

WRONG = "02:00:00:00:01:02"
"""Where the last node sends the frames of ``travel``."""
OTHER = "10.244.1.3"


def known_macs(pod: str = "02:00:00:00:00:bb") -> World:
    """Every namespace tells its MACs; ``pod`` is the target's."""
    world = World()
    world.after["node1"][A.place]["links"][1]["address"] = "02:00:00:00:00:01"
    world.after["node2"][B.place]["links"][1]["address"] = pod
    return world


def test_a_wrong_neighbour_entry_is_named() -> None:
    """By the place that has it; the frame was for a MAC that nobody on the path has."""
    world = known_macs()
    entry = {"dst": B.ip, "dev": "cni0", "lladdr": WRONG, "state": ["PERMANENT"]}
    world.node("node2")["neighbours"].append(entry)
    found = verdict(world, request(9))
    assert (found.cause, found.place) == ("no-neighbour", "node2")
    assert f"{B.ip} dev cni0 lladdr {WRONG} PERMANENT" in found.summary
    assert found.advice == f"`ip neigh del {B.ip} dev cni0` on node2"


def test_the_right_neighbour_is_no_cause() -> None:
    """The same frames, and the pod has that MAC."""
    assert verdict(known_macs(WRONG), request(9)).cause == "unknown"


def test_unknown_macs_are_no_proof() -> None:
    """Where a namespace does not tell its own, nothing is concluded."""
    assert verdict(World(), request(9)).cause == "unknown"


@pytest.mark.parametrize(("mac", "delivered"), [(WRONG, True), ("02:00:00:00:00:bb", False)])
def test_a_frame_for_another_mac_is_not_delivered(mac: str, delivered: bool) -> None:
    """A tap sees what the kernel drops as being for another host."""
    world = World()
    walk = follow(request(10), world.probe, PATH, A, B, nodes=NODES, macs={B.place: {mac}})
    assert walk.request.complete is delivered
    assert walk.request.divergence == (None if delivered else 9)
    assert ("delivered" in walk.request.observed[-1].happened) is delivered


def translated(events: list[Event]) -> list[Event]:
    """From the last node's bridge on, the packet has another destination."""
    return [
        event
        if count < 7
        else Event(
            event.place,
            event.node,
            event.interface,
            event.direction,
            event.packet._replace(destination=IPv4Address(OTHER)),
        )
        for count, event in enumerate(events)
    ]


def nat(packets: int) -> str:
    """A nat table with one rule."""
    rule = f"-A PREROUTING -d {B.ip}/32 -p tcp -j DNAT --to-destination {OTHER}"
    return f"*nat\n:PREROUTING ACCEPT [0:0]\n[{packets}:60] {rule}\nCOMMIT\n{FILTER}"


def test_nat_to_somebody_else_is_named() -> None:
    """With the rule that counted it."""
    world = World(TCP_PROBE)
    world.count("node2", nat(4), nat(5))
    found = verdict(world, translated(travel(PATH[0], segment("S"), hops=8)))
    assert (found.cause, found.place) == ("nat", "node2")
    assert "rule 1 of PREROUTING in table nat" in found.summary
    assert found.evidence[0].endswith(": 4 → 5 packets")
    assert "iptables -t nat -D PREROUTING" in found.advice


def test_nat_without_a_rule_that_counted() -> None:
    """What was seen stands all the same."""
    found = verdict(World(TCP_PROBE), translated(travel(PATH[0], segment("S"), hops=8)))
    assert (found.cause, found.advice) == ("nat", "")
    assert f"DNATed {B.ip}:8080 to {OTHER}:8080" in found.summary


@pytest.mark.parametrize("error", ["No route to host", "Invalid argument", "Permission denied"])
def test_routing_policy_that_refuses(error: str) -> None:
    """``ip rule`` leads to a route, or says itself, that the packet must not pass."""
    world = World()
    world.node("node1")["rules"] = [
        {"priority": 0, "src": "all", "table": "local"},
        {"priority": 100, "src": A.ip, "table": "77"},
    ]
    world.answers[B.ip] = {"route": [], "error": f"RTNETLINK answers: {error}"}
    found = verdict(world, request(3))
    assert (found.cause, found.place) == ("blackhole", "node1")
    assert f"node1: ip rule: priority 100 src {A.ip} table 77" in found.evidence


def test_a_pods_own_route_is_missing_within_the_cnis_blackhole() -> None:
    """Calico's blackhole is not to be removed; the pod's route is to be put back."""
    world = World()
    block: dict[str, Any] = {"type": "blackhole", "dst": "10.244.1.0/24", "protocol": "bird"}
    world.node("node2")["routes"][1] = block
    world.answers[B.ip] = {"route": [], "error": "RTNETLINK answers: Invalid argument"}
    found = verdict(world, request(7))
    assert (found.cause, found.place) == ("no-route", "node2")
    assert "ip route del" not in found.advice


def test_a_pod_hidden_from_a_pod() -> None:
    """A masquerading rule on the way is named, also where the answer comes back all the same."""
    world = World()
    line = "-s 10.244.0.2/32 -d 10.244.1.2/32 -j MASQUERADE"
    table = "*nat\n:POSTROUTING ACCEPT [0:0]\n[%d:60] -A POSTROUTING " + line + "\nCOMMIT\n"
    world.count("node1", table % 0, table % 1)
    seen = travel(PATH[0], echo()._replace(source=IPv4Address("10.244.0.0")))
    legs = addressed(PATH, A, B, masked=True)
    found = verdict(world, [*request(3), *seen[3:]], answered=True, path=legs)
    assert (found.cause, found.place) == ("nat", "node1")
    assert f"by rule 1 of POSTROUTING in table nat `{line}`" in found.summary
    assert found.advice.startswith(f"`iptables -t nat -D POSTROUTING {line}` on node1")


def test_a_pod_that_sends_from_another_address() -> None:
    """Whatever stops it or its reply, that is why."""
    strange = echo()._replace(source=IPv4Address("10.99.0.9"))
    legs = addressed(PATH, A, B, masked=True)
    found = verdict(World(), travel(PATH[0], strange, hops=3), path=legs)
    assert (found.cause, found.place) == ("wrong-source", A.place)
    assert "sent it from 10.99.0.9, which is not its address 10.244.0.2" in found.summary


def test_another_pod_with_the_address() -> None:
    """The MAC is behind another pod's port, so that pod is named."""
    world = known_macs()
    entry = {"dst": B.ip, "dev": "cni0", "lladdr": WRONG, "state": ["REACHABLE"]}
    world.node("node2")["neighbours"].append(entry)
    world.node("node2")["fdb"].append({"mac": WRONG, "ifname": "vethz", "master": "cni0"})
    world.pods["default/z"] = {"ip": OTHER, "host_interface": "vethz", "state": "Running"}
    found = verdict(world, request(9))
    assert (found.cause, found.place) == ("no-neighbour", "node2")
    assert f"sent it to {WRONG}, which is default/z's" in found.summary
    assert found.advice.startswith(f"see whether default/z has {B.ip}, too; then `ip neigh del")
