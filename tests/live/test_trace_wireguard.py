"""Tracing through flannel's wireguard: what the wire shows of a packet is when it went by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from testbed import WIREGUARD, tracing
from testbed.dataplane.features import Features
from testbed.verify.oracle import Wireguard
from testbed.verify.trace.model import Leg, Trace
from tests.live.conftest import Cli, Lasting, Running

HERE, THERE = "netexec-node1-1", "netexec-node2-1"
TCP = {"protocol": "tcp", "port": 8080}


@pytest.fixture(scope="module")
def encrypted(lasting: Lasting, able: Features) -> Iterator[Running]:
    """Two nodes, one pod each."""
    if not able.wireguard:
        pytest.skip("this kernel has no wireguard")
    with lasting("flannel-wireguard", name="trace-wg", nodes=2, pods_per_node=1) as found:
        yield found


def trace(live: Running, **probe: Any) -> Trace:
    """From pod to pod, over the tunnel."""
    return tracing.trace(live.client, live.name, HERE, THERE, **probe)[0]


def crossings(leg: Leg) -> list[tuple[str, str, str]]:
    """Where a leg's packet was seen."""
    return [(h.event.place, h.event.interface, h.event.direction) for h in leg.observed]


def way(live: Running, source: str, target: str) -> list[tuple[str, str, str]]:
    """From one node's pod to the other's, crossing by crossing."""
    sender, receiver = (live.pods[name].veth.device for name in (source, target))
    first, last = (live.pods[name].node.name for name in (source, target))
    return [
        (f"default/{source}", "eth0", "out"),
        (first, sender, "in"),
        (first, "cni0", "in"),
        (first, "flannel-wg", "out"),
        (first, "eth0", "out"),
        (last, "eth0", "in"),
        (last, "flannel-wg", "in"),
        (last, "cni0", "out"),
        (last, receiver, "out"),
        (f"default/{target}", "eth0", "in"),
    ]


@pytest.mark.parametrize("probe", [{}, TCP], ids=["icmp", "tcp"])
def test_from_pod_to_pod(encrypted: Running, probe: dict[str, Any]) -> None:
    """Answered, each crossing seen in both directions, and WireGuard between the uplinks."""
    found = trace(encrypted, **probe)
    assert found.answered, found.error
    assert found.diagnosis is None, found.diagnosis
    assert found.ok
    assert not found.strays, found.strays
    for leg, ends in ((found.request, (HERE, THERE)), (found.reply, (THERE, HERE))):
        assert crossings(leg) == way(encrypted, *ends)
        hidden = [hop.interface for hop in leg.expected if hop.encapsulation == Wireguard(51820)]
        assert hidden == ["eth0", "eth0"]
        wire = [hop.event.packet for hop in leg.observed[4:6]]
        assert [WIREGUARD(51820).mismatch(packet) for packet in wire] == ["", ""]
        addresses = {str(end) for packet in wire for end in (packet.source, packet.destination)}
        assert addresses == {str(encrypted.nodes[node].ip) for node in ("node1", "node2")}


def test_output(encrypted: Running, cli: Cli) -> None:
    """The JSON says of both uplinks that WireGuard is there."""
    done = cli("trace", HERE, THERE, "--name", encrypted.name, "-o", "json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["answered"] is True
    for leg in ("request", "reply"):
        wire = shown[leg]["expected"][4:6]
        kinds = [(hop["interface"], hop["encapsulation"]["type"]) for hop in wire]
        assert kinds == [("eth0", "wireguard")] * 2


def test_blocked(encrypted: Running) -> None:
    """A rule that drops WireGuard's port is named; without it, the packet passes again."""
    node = encrypted.nodes["node2"].host
    rule = "INPUT -p udp --dport 51820 -j DROP"
    node.check_output(f"iptables -I {rule}")
    try:
        verdict = trace(encrypted).diagnosis
    finally:
        node.check_output(f"iptables -D {rule}")
    assert verdict is not None
    assert (verdict.cause, verdict.leg, verdict.place) == ("rule", "request", "node2"), verdict
    assert trace(encrypted).ok
