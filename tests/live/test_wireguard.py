"""flannel's wireguard backend: device, peers, and what can and cannot be seen on the uplink."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import WIREGUARD, lifecycle
from testbed.dataplane.features import Features
from tests.live.calico import lines, uplink
from tests.live.conftest import Cli, Lasting, Running
from tests.live.wire import marked, ping, requests

NODES = ("node1", "node2", "node3")
LOCAL, REMOTE = "netexec-node1-1", "netexec-node2-1"
DATA, OVERHEAD = 4, 32
"""A WireGuard message's first byte, and what it adds to a packet padded to 16 bytes."""


@pytest.fixture(scope="module")
def encrypted(lasting: Lasting, able: Features) -> Iterator[Running]:
    """Three nodes, one pod each."""
    if not able.wireguard:
        pytest.skip("this kernel has no wireguard")
    with lasting("flannel-wireguard", name="wireguard", pods_per_node=1) as found:
        yield found


def test_a_kernel_without_wireguard_is_named(cli: Cli, client: Any, able: Features) -> None:
    """Exit code 3 before anything is created."""
    if able.wireguard:
        pytest.skip("this kernel has wireguard")
    name = f"unencrypted-{os.getpid()}"
    done = cli("up", "flannel-wireguard", "--name", name)
    assert done.returncode == 3
    assert "flannel with backend wireguard needs what kernel" in done.stderr
    assert "does not have: wireguard." in done.stderr
    assert not client.containers.list(all=True, filters={"label": f"testbed.name={name}"})
    assert not client.networks.list(filters={"label": f"testbed.name={name}"})


def test_every_pair_reaches_each_other_without_nat(encrypted: Running) -> None:
    """The whole check of ``up``."""
    assert encrypted.outcome.report.ok, encrypted.outcome.report.failures


@pytest.mark.parametrize("node", NODES)
def test_routing_table_line_for_line(encrypted: Running, node: str) -> None:
    """flannel.md section 1: one route for the whole network, and the node's own pods."""
    own, index = uplink(encrypted, node), NODES.index(node)
    assert sorted(lines(encrypted.host(node).check_output("ip route"))) == sorted(
        [
            f"default via {own.network.network_address + 1} dev eth0",
            "10.244.0.0/16 dev flannel-wg scope link",
            f"10.244.{index}.0/24 dev cni0 proto kernel scope link src 10.244.{index}.1",
            f"{own.network} dev eth0 proto kernel scope link src {own.ip}",
        ]
    )


@pytest.mark.parametrize("node", NODES)
def test_device(encrypted: Running, node: str) -> None:
    """``.0/32`` and MTU 1420, which the node's pods have too."""
    shown = encrypted.host(node).check_output("ip -d address show dev flannel-wg")
    assert f"inet 10.244.{NODES.index(node)}.0/32 scope global flannel-wg" in shown
    assert " mtu 1420 " in shown
    assert " wireguard " in shown
    pod = encrypted.host(f"netexec-{node}-1")
    assert " mtu 1420 " in pod.check_output("ip link show eth0")


@pytest.mark.parametrize("node", NODES)
def test_peers_are_the_other_nodes(encrypted: Running, node: str) -> None:
    """By the keys that ``wg`` itself derives from their private ones, at their own addresses."""
    host = encrypted.host(node)
    assert host.check_output("wg show flannel-wg listen-port") == "51820"
    others = {
        encrypted.host(other).check_output("wg pubkey < /run/flannel/wgkey"): other
        for other in NODES
        if other != node
    }
    allowed = [line.split() for line in lines(host.check_output("wg show flannel-wg allowed-ips"))]
    ends = [line.split() for line in lines(host.check_output("wg show flannel-wg endpoints"))]
    assert {others[key]: cidrs for key, *cidrs in allowed} == {
        other: [f"10.244.{NODES.index(other)}.0/24"] for other in others.values()
    }
    assert {others[key]: end for key, end in ends} == {
        other: f"{uplink(encrypted, other).ip}:51820" for other in others.values()
    }


@pytest.mark.parametrize("node", NODES)
def test_key_file(encrypted: Running, node: str) -> None:
    """Where flanneld keeps it, for root only; it is the device's own."""
    host = encrypted.host(node)
    file = host.file("/run/flannel/wgkey")
    assert file.mode == 0o400
    assert file.content_string == host.check_output("wg show flannel-wg private-key")


def test_nothing_of_a_pods_packet_can_be_read(encrypted: Running, tmp_path: Path) -> None:
    """UDP 51820 between the nodes and no mark in it; a ping between the nodes is the control."""
    here, there = (uplink(encrypted, node).ip for node in ("node1", "node2"))
    with encrypted.capture("node1", "node1:flannel-wg") as packets:
        ping(encrypted, LOCAL, encrypted.ip(REMOTE))
        ping(encrypted, "node1", str(there))
    wire, inside = (packets.on(f"node1/{device}") for device in ("eth0", "flannel-wg"))
    pods = packets.between(encrypted.pods[LOCAL], encrypted.pods[REMOTE])
    ends = encrypted.nodes["node1"], encrypted.nodes["node2"]
    assert pods.encapsulated_in(WIREGUARD(51820), outer=ends)
    assert [str(f.destination) for f in requests(inside)] == ([encrypted.ip(REMOTE)] * 3)
    assert {frame.ttl for frame in requests(inside)} == {63}
    assert len(marked(wire)) == 6
    for frame in marked(wire):
        assert {frame.source, frame.destination} == {here, there}
    sent = [frame for frame in wire if frame.protocol == 17 and frame.source == here]
    assert {(frame.source_port, frame.destination_port) for frame in sent} == {(51820, 51820)}
    assert {(frame.ttl, frame.dont_fragment) for frame in sent} == {(64, False)}
    echoes = [
        frame for frame in sent if frame.payload[0] == DATA and len(frame.payload) == 96 + OVERHEAD
    ]
    assert [frame.destination for frame in echoes] == [there] * 3
    pcap = tmp_path / "wire.pcapng"
    pcap.write_bytes(packets.pcapng)
    chosen = f"wg.type == {DATA} && ip.src == {here} && udp.length == {96 + OVERHEAD + 8}"
    shown = subprocess.run(
        ["tshark", "-r", str(pcap), "-Y", chosen], check=True, capture_output=True, text=True
    )
    assert len(lines(shown.stdout)) == len(echoes)


def test_the_largest_packet_passes_and_one_byte_more_does_not(encrypted: Running) -> None:
    """MTU 1420: 1392 bytes of ping payload with DF; the kernel says what would fit."""
    target = encrypted.ip(REMOTE)
    assert " 0% packet loss" in ping(encrypted, LOCAL, target, "-M do", "-s 1392")
    refused = encrypted.host(LOCAL).run(f"ping -n -c 1 -W 1 -M do -s 1393 {target}")
    assert refused.rc != 0
    assert "mtu=1420" in refused.stdout + refused.stderr


def test_a_node_reaches_remote_pods_from_its_tunnel_address(encrypted: Running) -> None:
    """Which is among the addresses that the other side allows it."""
    url = f"http://{encrypted.ip(REMOTE)}:8080/clientip"
    seen = encrypted.host("node1").check_output(f"curl -s {url}")
    assert seen.rpartition(":")[0] == "10.244.0.0"


def synced(live: Running) -> list[str]:
    """What the nodes said of another ``up``, which ends in a network that works."""
    said: list[str] = []
    again = lifecycle.up(live.cluster, live.client, lambda *words: said.append(" ".join(words)))
    assert again.report.ok, again.report.failures
    return [each for each in said if "ready" in each]


def test_a_second_sync_changes_nothing(encrypted: Running) -> None:
    """Keys and peers read back as they were written."""
    assert len([each for each in synced(encrypted) if "nothing to change" in each]) == len(NODES)


def test_a_removed_peer_is_found_and_repaired(encrypted: Running) -> None:
    """The check names the pair, and ``up`` puts back what the spec says and nothing else."""
    node = encrypted.host("node1")
    key = encrypted.host("node2").check_output("wg pubkey < /run/flannel/wgkey")
    node.check_output(f"wg set flannel-wg peer {key} remove")
    assert not lifecycle.check(encrypted.client, encrypted.name).report.ok
    said = synced(encrypted)
    assert len([each for each in said if "nothing to change" in each]) == len(NODES) - 1
    assert len([each for each in said if " 1 changes" in each]) == 1
