"""Pod CIDRs."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from testbed.topology.declared import Cidr, NodeDeclaration
from testbed.topology.ipam import allocate, capacity
from testbed.topology.source import Place, Problems

PLACE = Place("f.yaml", 1)


def node(name: str, pod_cidr: str = "") -> NodeDeclaration:
    """A node, perhaps with a CIDR of its own choice."""
    chosen = Cidr("pod_cidr", IPv4Network(pod_cidr), PLACE) if pod_cidr else None
    return NodeDeclaration(name, PLACE, pod_cidr=chosen)


def allocated(cluster: str, mask: int, *nodes: NodeDeclaration) -> list[str]:
    """Every node's CIDR."""
    problems = Problems()
    found = allocate(Cidr("c", IPv4Network(cluster), PLACE), mask, PLACE, nodes, problems)
    problems.check()
    return [str(subnet) for subnet in found or ()]


def test_node_number_i_has_the_ith_subnet() -> None:
    """As Kubernetes' node IPAM controller hands them out."""
    assert allocated("10.244.0.0/16", 24, node("a"), node("b"), node("c")) == [
        "10.244.0.0/24",
        "10.244.1.0/24",
        "10.244.2.0/24",
    ]


def test_a_chosen_subnet_is_not_given_to_another_node() -> None:
    """The others take the next free ones."""
    assert allocated("10.244.0.0/16", 24, node("a"), node("b", "10.244.0.0/23"), node("c")) == [
        "10.244.2.0/24",
        "10.244.0.0/23",
        "10.244.3.0/24",
    ]


def test_the_whole_cluster_cidr_can_be_one_nodes() -> None:
    """A mask as long as the prefix gives one subnet."""
    assert allocated("10.244.0.0/24", 24, node("a")) == ["10.244.0.0/24"]


def test_every_subnet_is_used() -> None:
    """Sixteen nodes fill a /24 of /28s."""
    found = allocated("10.244.0.0/24", 28, *(node(f"n{number}") for number in range(16)))
    assert found[-1] == "10.244.0.240/28"


@pytest.mark.parametrize(("network", "pods"), [("10.0.0.0/24", 253), ("10.0.0.0/29", 5)])
def test_capacity(network: str, pods: int) -> None:
    """The network, the bridge and the broadcast address number no pod."""
    assert capacity(IPv4Network(network)) == pods
