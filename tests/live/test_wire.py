"""Frames on the uplink, decoded by testbed and, independently, by tshark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import VXLAN
from testbed.cni.flannel import vtep_mac
from tests.live.conftest import Running
from tests.live.wire import marked, ping, replies, requests, same_as_tshark


def test_pods_of_two_nodes_speak_vxlan(live: Running, tmp_path: Path) -> None:
    """flannel.md section 2.4: outer nodes, UDP 8472, VNI 1, VTEP MACs, TTL 63, no DF outside."""
    target = live.ip("netexec-node2-1")
    with live.capture("node1") as wire:
        ping(live, "netexec-node1-1", target)
    node1, node2 = (live.host(node).interface("eth0").addresses[0] for node in ("node1", "node2"))
    echoes = requests(wire)
    answers = replies(wire)
    assert (len(echoes), len(answers)) == (3, 3)
    for frame in echoes:
        assert (str(frame.source), str(frame.destination)) == (node1, node2)
        assert (frame.destination_port, frame.vni, frame.ttl) == (8472, 1, 64)
        assert frame.source_port is not None
        assert 32768 <= frame.source_port <= 60999
        assert frame.dont_fragment is False
        assert frame.innermost.dont_fragment is True
        assert frame.innermost.ttl == 63
        assert frame.innermost.source_mac == vtep_mac(live.name, "node1")
        assert frame.innermost.destination_mac == vtep_mac(live.name, "node2")
        assert str(frame.innermost.source) == live.ip("netexec-node1-1")
        assert str(frame.innermost.destination) == target
    same_as_tshark(wire, tmp_path)


def test_pods_of_one_node_stay_on_the_bridge(live: Running) -> None:
    """Nothing of theirs on the uplink; a ping to another node is the control in that capture."""
    here, near, far = (live.pods[f"netexec-{name}"] for name in ("node1-1", "node1-2", "node2-1"))
    with live.capture("node1") as wire:
        here.ping(near)
        here.ping(far)
    assert wire.between(here, far).encapsulated_in(VXLAN(1, 8472), outer=(here.node, far.node))
    assert not wire.between(here, near)


def test_nobody_sends_arp_over_the_overlay(live: Running) -> None:
    """Neighbours are permanent; ARP on cni0 is the control."""
    node, here, near, far = (
        live.nodes["node1"],
        *(live.pods[f"netexec-{name}"] for name in ("node1-1", "node1-2", "node2-1")),
    )
    node.run("ip", "neighbour", "flush", "dev", "cni0")
    with live.capture(node["flannel.1"], node["cni0"]) as packets:
        here.ping(far)
        node.run("ip", "neighbour", "flush", "dev", "cni0")
        node.ping(near)
    assert packets.on(node["flannel.1"]).between(here, far)
    assert packets.on(node["cni0"]).arp()
    assert not packets.on(node["flannel.1"]).arp()


def test_the_largest_packet_passes_and_one_byte_more_does_not(live: Running) -> None:
    """MTU 1450: 1422 bytes of ping payload with DF; the kernel says what would fit."""
    target = live.ip("netexec-node2-1")
    assert " 0% packet loss" in ping(live, "netexec-node1-1", target, "-M do", "-s 1422")
    refused = live.host("netexec-node1-1").run(f"ping -n -c 1 -W 1 -M do -s 1423 {target}")
    assert refused.rc != 0
    assert "mtu=1450" in refused.stdout + refused.stderr


def test_larger_packets_are_fragmented_inside(live: Running) -> None:
    """Without DF the inner packet is fragmented; no outer packet exceeds the uplink's MTU."""
    with live.capture("node1") as wire:
        ping(live, "netexec-node1-1", live.ip("netexec-node2-1"), "-M dont", "-s 3000")
    vxlan = [frame for frame in wire if frame.inner]
    assert len([frame for frame in vxlan if frame.innermost.icmp_type is None]) >= 6
    assert not wire.where(lambda frame: frame.protocol == 17 and frame.inner is None)


def test_host_gw_is_plain(make: Callable[..., Running], tmp_path: Path) -> None:
    """No encapsulation, MTU 1500, node MACs, TTL 63; the host's source is its own address."""
    live = make("flannel-host-gw", nodes=2, pods_per_node=1)
    assert live.outcome.report.ok, live.outcome.report.failures
    target = live.ip("netexec-node2-1")
    with live.capture("node1") as wire:
        assert " 0% packet loss" in ping(live, "netexec-node1-1", target, "-M do", "-s 1472")
    echoes = requests(wire)
    assert len(echoes) == 3
    assert {frame.ttl for frame in echoes} == {63}
    mac = live.host("node2").check_output("cat /sys/class/net/eth0/address")
    assert {frame.destination_mac for frame in echoes} == {mac}
    assert not live.host("node1").interface("flannel.1").exists
    same_as_tshark(wire, tmp_path)
    seen = live.host("node1").check_output(f"curl -s http://{target}:8080/clientip")
    assert seen.rpartition(":")[0] == live.host("node1").interface("eth0").addresses[0]


def test_direct_routing_is_plain_with_the_overlays_mtu(make: Callable[..., Running]) -> None:
    """The device exists, but frames between nodes of one segment do not pass it."""
    live = make("flannel-direct-routing", nodes=2, pods_per_node=1)
    assert live.outcome.report.ok, live.outcome.report.failures
    with live.capture("node1") as wire:
        ping(live, "netexec-node1-1", live.ip("netexec-node2-1"))
    assert marked(wire).plain()
    assert live.host("node1").interface("flannel.1").exists
    assert " mtu 1450 " in live.host("netexec-node1-1").check_output("ip link show eth0")


@pytest.mark.parametrize(
    ("breakage", "words"),
    [
        ("ip route del 10.244.1.0/24", "no echo reply"),
        ("bridge fdb del {mac} dev flannel.1 dst {node2} self", "no echo reply"),
        ("iptables -I INPUT -p udp --dport 8472 -j DROP", "no echo reply"),
        (
            "iptables -t nat -I POSTROUTING -s 10.244.0.0/24 -d 10.244.1.0/24 -j MASQUERADE",
            "(NAT)",
        ),
        ("ip route replace 10.244.1.0/24 via {node2} dev eth0", "not encapsulated"),
    ],
)
def test_a_broken_network_fails_the_check(
    make: Callable[..., Running], breakage: str, words: str
) -> None:
    """Each way of breaking it is found, and the next ``up`` repairs what testbed installed."""
    from testbed import lifecycle
    from tests.live.conftest import quiet

    live = make("flannel", nodes=2, pods_per_node=1)
    host = live.host("node1")
    node2 = live.host("node2").interface("eth0").addresses[0]
    host.check_output(breakage.format(mac=vtep_mac(live.name, "node2"), node2=node2))
    report = lifecycle.check(live.client, live.name).report
    assert not report.ok
    assert any(words in finding.detail for finding in report.failures), report.failures
    if breakage.startswith("iptables"):
        host.check_output(breakage.replace(" -I ", " -D "))
    assert lifecycle.up(live.cluster, live.client, quiet).report.ok
