"""Clusters of a CNI that numbers pods from blocks."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings

from testbed.errors import TopologyError
from testbed.topology.blocks import Pool
from testbed.topology.load import Overrides, from_dict
from testbed.topology.model import Cluster
from testbed.topology.shares import of_blocks
from tests.unit.topology.strategies import CNIS, wide_clusters

_FILE = Overrides()


def made(
    nodes: int = 3,
    overrides: Overrides = _FILE,
    **x_testbed: Any,
) -> Cluster:
    """A minimal Calico cluster."""
    services = {f"node{number}": {"image": "testbed-node"} for number in range(1, nodes + 1)}
    topology = {"services": services, "x-testbed": {"cni": "calico", **x_testbed}}
    return from_dict(topology, overrides, cnis=CNIS)


def a_pod(name: str, **spec: Any) -> dict[str, Any]:
    """A manifest."""
    containers = [{"name": "c", "image": "netexec"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": containers, **spec},
    }


def counts(cluster: Cluster) -> list[tuple[int, int]]:
    """How many blocks every node has, and how many addresses it borrows."""
    return [(len(node.pod_cidrs), len(node.borrowed)) for node in cluster.nodes]


def test_every_node_has_a_block_of_26() -> None:
    """Calico's default, from the same pool as other CNIs' clusters; also without pods."""
    cluster = made(default_pods=0, backend="none")
    assert (str(cluster.cluster_cidr), cluster.node_cidr_mask) == ("10.244.0.0/16", 26)
    assert counts(cluster) == [(1, 0)] * 3
    assert [str(node.pod_cidr) for node in cluster.nodes] == [
        "10.244.179.128/26",
        "10.244.179.64/26",
        "10.244.179.0/26",
    ]


@pytest.mark.parametrize(("backend", "pods", "blocks"), [("none", 64, 1), ("ipip", 64, 2)])
def test_the_tunnel_takes_an_address(backend: str, pods: int, blocks: int) -> None:
    """So 63 pods fit into the first block beside it."""
    assert counts(made(1, default_pods=pods, backend=backend)) == [(blocks, 0)]


def test_host_network_pods_need_no_address() -> None:
    """They use their node's."""
    pods = [a_pod(f"h{number}", hostNetwork=True, nodeName="node1") for number in range(9)]
    cluster = made(2, manifests=pods, default_pods=63, cluster_cidr="10.244.0.0/25")
    assert counts(cluster) == [(1, 0), (1, 0)]


def test_borrowing() -> None:
    """Two nodes, two blocks, and one node with more pods than its block has addresses."""
    pods = [a_pod(f"p{number}", nodeName="node1") for number in range(70)]
    cluster = made(2, manifests=pods, default_pods=0, cluster_cidr="10.244.0.0/25")
    assert counts(cluster) == [(1, 7), (1, 0)]
    lender = cluster.node("node2").pod_cidr
    assert cluster.node("node1").borrowed == tuple(lender[-1 - number] for number in range(7))


def test_options_of_blocks() -> None:
    """``block_size`` is the cluster's mask; ``strict_affinity`` leaves a node its own blocks."""
    backend = {"type": "ipip", "block_size": 28, "strict_affinity": True}
    cluster = made(backend=backend, default_pods=20)
    assert cluster.node_cidr_mask == 28
    assert counts(cluster) == [(2, 0)] * 3


def test_an_option_that_is_null_is_not_there() -> None:
    """As everywhere in a file."""
    backend = {"type": "ipip", "block_size": None, "mode": None}
    assert made(backend=backend).node_cidr_mask == 26


def test_overrides_that_do_not_fit_the_blocks() -> None:
    """The message is about the pool, at the option."""
    with pytest.raises(TopologyError, match=r"^--pods-per-node: 254 default pods do not fit on"):
        made(overrides=Overrides(pods_per_node=254), cluster_cidr="10.244.0.0/24")
    with pytest.raises(TopologyError, match="has blocks of /26 for 4 of 5 nodes"):
        made(overrides=Overrides(nodes=5), cluster_cidr="10.244.0.0/24")


@pytest.mark.parametrize(
    ("network", "size", "strict", "capacity"),
    [
        ("10.0.0.0/16", 26, False, 65533),
        ("10.0.0.0/16", 26, True, 20 * 64 - 1),
        ("10.0.0.0/24", 26, True, 2 * 64 - 1),
        ("10.0.0.0/16", 32, True, 19),
    ],
)
def test_what_one_of_three_nodes_can_have(
    network: str, size: int, strict: bool, capacity: int
) -> None:
    """The pool but for the tunnels; or its blocks, when the others have one each."""
    assert of_blocks(Pool(IPv4Network(network), size, strict), 3, 1).capacity == capacity


@settings(max_examples=50, deadline=None)
@given(wide_clusters())
def test_every_pod_has_an_address(cluster: Cluster) -> None:
    """Own blocks and borrowed addresses suffice; nobody else has them."""
    if cluster.cni != "calico":
        return
    lent = {address for node in cluster.nodes for address in node.borrowed}
    taken: list[IPv4Address] = []
    for node in cluster.nodes:
        own = [address for block in node.pod_cidrs for address in block if address not in lent]
        pods = [pod for pod in cluster.pods_on(node.name) if not pod.host_network]
        needed = len(pods) + (cluster.backend.type == "ipip")
        assert len(own) + len(node.borrowed) >= needed
        assert {block.prefixlen for block in node.pod_cidrs} == {cluster.node_cidr_mask}
        taken += (*own, *node.borrowed)
    assert len(set(taken)) == len(taken)
    assert cluster.backend.options.get("strict_affinity") is not True or not lent
