"""flannel's ipip backend, by whichever driver this kernel has: device, routes, frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import lifecycle
from testbed.dataplane.features import Features
from tests.live.calico import lines, uplink
from tests.live.conftest import Lasting, Running
from tests.live.wire import ping, replies, requests, same_as_tshark

NODES = ("node1", "node2", "node3")
LOCAL, REMOTE = "netexec-node1-1", "netexec-node2-1"


@pytest.fixture(scope="module")
def tunnels(lasting: Lasting, able: Features) -> Iterator[Running]:
    """Three nodes, one pod each."""
    if not (able.ipip or able.ipip_ebpf):
        pytest.skip("this kernel has neither ipip nor ipip_ebpf")
    with lasting("flannel-ipip", name="ipip", pods_per_node=1) as found:
        yield found


def test_every_pair_reaches_each_other_without_nat(tunnels: Running, able: Features) -> None:
    """The whole check of ``up``; ``auto`` is the kernel's driver where there is one."""
    assert tunnels.outcome.report.ok, tunnels.outcome.report.failures
    assert tunnels.outcome.status["ipip"] == ("kernel" if able.ipip else "ebpf")


@pytest.mark.parametrize("node", NODES)
def test_routing_table_line_for_line(tunnels: Running, node: str) -> None:
    """flannel.md section 1: by the remote node's own address, on the tunnel, onlink."""
    own = uplink(tunnels, node)
    pods = [
        f"10.244.{index}.0/24 via {uplink(tunnels, other).ip} dev flannel.ipip onlink"
        if other != node
        else f"10.244.{index}.0/24 dev cni0 proto kernel scope link src 10.244.{index}.1"
        for index, other in enumerate(NODES)
    ]
    assert lines(tunnels.host(node).check_output("ip route")) == [
        f"default via {own.network.network_address + 1} dev eth0",
        *pods,
        f"{own.network} dev eth0 proto kernel scope link src {own.ip}",
    ]


@pytest.mark.parametrize("node", NODES)
def test_device(tunnels: Running, able: Features, node: str) -> None:
    """``.0/32``, MTU 1480, ARPHRD_TUNNEL; by the kernel's driver, flannel's own attributes."""
    host = tunnels.host(node)
    shown = host.check_output("ip -d address show dev flannel.ipip")
    assert f"inet 10.244.{NODES.index(node)}.0/32 scope global flannel.ipip" in shown
    assert " mtu 1480 " in shown
    assert host.check_output("cat /sys/class/net/flannel.ipip/type") == "768"
    if able.ipip:
        local = uplink(tunnels, node).ip
        assert f"ipip any remote any local {local} ttl inherit nopmtudisc" in shown


def test_pods_have_the_tunnels_mtu(tunnels: Running) -> None:
    """20 bytes less than the uplink's, in subnet.env, on the bridge and in the pod."""
    host = tunnels.host("node1")
    assert "FLANNEL_MTU=1480\n" in host.file("/run/flannel/subnet.env").content_string
    assert " mtu 1480 " in host.check_output("ip link show cni0")
    assert " mtu 1480 " in tunnels.host(LOCAL).check_output("ip link show eth0")


@pytest.mark.parametrize(("option", "dont_fragment"), [("-M do", True), ("-M dont", False)])
def test_pods_of_two_nodes_speak_protocol_4(
    tunnels: Running, tmp_path: Path, option: str, dont_fragment: bool
) -> None:
    """flannel.md section 4: outer nodes, inner pods; TTL and DF are the inner packet's."""
    nodes = tuple(str(uplink(tunnels, node).ip) for node in ("node1", "node2"))
    pods = (tunnels.ip(LOCAL), tunnels.ip(REMOTE))
    with tunnels.capture("node1") as wire:
        ping(tunnels, LOCAL, pods[1], option)
    echoes = requests(wire)
    answers = replies(wire)
    assert (len(echoes), len(answers)) == (3, 3)
    for frame in echoes:
        inner = frame.inner
        assert inner is not None
        assert (str(frame.source), str(frame.destination)) == nodes
        assert (str(inner.source), str(inner.destination)) == pods
        assert (frame.protocol, inner.protocol) == (4, 1)
        assert (frame.ttl, inner.ttl) == (63, 63)
        assert (frame.dont_fragment, inner.dont_fragment) == (dont_fragment, dont_fragment)
    same_as_tshark(wire, tmp_path)


def test_the_receiver_sees_a_packet_that_two_nodes_forwarded(tunnels: Running) -> None:
    """TTL 62 at the other end; a node's own packet has lost one less."""
    assert ping(tunnels, LOCAL, tunnels.ip(REMOTE)).count(" ttl=62 ") == 3
    assert ping(tunnels, "node1", tunnels.ip(REMOTE)).count(" ttl=63 ") == 3


def test_the_largest_packet_passes_and_one_byte_more_does_not(tunnels: Running) -> None:
    """MTU 1480: 1452 bytes of ping payload with DF; the kernel says what would fit."""
    target = tunnels.ip(REMOTE)
    assert " 0% packet loss" in ping(tunnels, LOCAL, target, "-M do", "-s 1452")
    refused = tunnels.host(LOCAL).run(f"ping -n -c 1 -W 1 -M do -s 1453 {target}")
    assert refused.rc != 0
    assert "mtu=1480" in refused.stdout + refused.stderr


def test_a_node_reaches_remote_pods_from_its_tunnel_address(tunnels: Running) -> None:
    """The device's /32 is a source that routes back by the tunnel."""
    url = f"http://{tunnels.ip(REMOTE)}:8080/clientip"
    assert tunnels.host("node1").check_output(f"curl -s {url}").rpartition(":")[0] == "10.244.0.0"


def test_a_second_sync_changes_nothing(tunnels: Running) -> None:
    """The device, its address and the routes read back as they were written."""
    said: list[str] = []
    again = lifecycle.up(
        tunnels.cluster, tunnels.client, lambda *words: said.append(" ".join(words))
    )
    assert again.report.ok, again.report.failures
    assert len([each for each in said if each.endswith("ready nothing to change")]) == len(NODES)
