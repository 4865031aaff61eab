"""flannel's DirectRouting over two segments: for each remote node, plain or encapsulated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.dataplane.features import Features
from tests.live.calico import lines, uplink
from tests.live.conftest import Running
from tests.live.wire import ping, requests, same_as_tshark

ENDS = {
    "vxlan": ("via {peer} dev eth0", "via {vtep} dev flannel.1 onlink"),
    "ipip": ("via {peer} dev eth0 onlink", "via {peer} dev flannel.ipip onlink"),
}
"""How routes end to a node of the same segment and to one behind the router."""


@pytest.mark.parametrize("backend", ENDS)
def test_within_a_rack_packets_are_plain(
    make: Callable[..., Running], able: Features, backend: str, tmp_path: Path
) -> None:
    """Tables line for line on every node, and frames from node1 to both others."""
    if backend == "ipip" and not (able.ipip or able.ipip_ebpf):
        pytest.skip("this kernel has neither ipip nor ipip_ebpf")
    live = make(f"flannel-racks-{backend}")
    assert live.outcome.report.ok, live.outcome.report.failures
    for node in live.cluster.nodes:
        shown = lines(live.host(node.name).check_output("ip route"))
        assert sorted(shown) == expected(live, node.name, *ENDS[backend])
    for target, plain in (("node2", True), ("node3", False)):
        with live.capture("node1") as wire:
            ping(live, "netexec-node1-1", live.ip(f"netexec-{target}-1"))
        echoes = requests(wire)
        assert len(echoes) == 3
        for frame in echoes:
            assert (frame.inner is None) == plain
            assert str(frame.innermost.destination) == live.ip(f"netexec-{target}-1")
            if not plain:
                assert frame.destination == uplink(live, target).ip
        same_as_tshark(wire, tmp_path)


def expected(live: Running, node: str, plain: str, tunnel: str) -> list[str]:
    """``ip route`` of a node, sorted."""
    own, here = uplink(live, node), live.cluster.node(node)
    router = own.network.broadcast_address - 1
    found = [
        f"default via {own.network.network_address + 1} dev eth0",
        f"{own.network} dev eth0 proto kernel scope link src {own.ip}",
        f"{here.pod_cidr} dev cni0 proto kernel scope link src {here.pod_cidr[1]}",
    ]
    others = {uplink(live, each.name).network for each in live.cluster.nodes} - {own.network}
    found += [f"{other} via {router} dev eth0" for other in others]
    for each in live.cluster.nodes:
        if each is not here:
            end = plain if each.network == here.network else tunnel
            peer = uplink(live, each.name).ip
            end = end.format(peer=peer, vtep=each.pod_cidr.network_address)
            found.append(f"{each.pod_cidr} {end}")
    return sorted(found)


def test_only_nodes_behind_the_router_have_neighbours_on_the_vtep(
    make: Callable[..., Running],
) -> None:
    """flannel makes no ARP and FDB entry where it made a plain route."""
    live = make("flannel-racks-vxlan")
    for node, remotes in {"node1": ["node3"], "node3": ["node1", "node2"]}.items():
        host = live.host(node)
        neighbours = lines(host.check_output("ip neighbour show dev flannel.1"))
        assert sorted(line.split()[0] for line in neighbours) == sorted(
            str(live.cluster.node(each).pod_cidr.network_address) for each in remotes
        )
        entries = lines(host.check_output("bridge fdb show dev flannel.1"))
        assert sorted(line.split()[2] for line in entries) == sorted(
            str(uplink(live, each).ip) for each in remotes
        )
