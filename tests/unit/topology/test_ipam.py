"""Pod CIDRs."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from testbed.errors import TopologyError
from testbed.topology.declared import (
    Cidr,
    Fabric,
    NetworkDeclaration,
    NodeDeclaration,
    RouterDeclaration,
)
from testbed.topology.ipam import allocate, check_underlay
from testbed.topology.shares import of_cidr
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
    assert of_cidr(IPv4Network(network)).capacity == pods


def room(prefix: int, *on: str, routers: int = 0) -> None:
    """Check network ``a`` of this size with nodes on these networks, and routers on all."""
    problems = Problems()
    networks = tuple(
        NetworkDeclaration(name, PLACE, Cidr("subnet", IPv4Network(network), PLACE))
        for name, network in (("a", f"172.30.0.0/{prefix}"), ("b", "172.30.1.0/24"))
    )
    check_underlay(
        Fabric(
            tuple(
                NodeDeclaration(f"n{number}", PLACE, network=name) for number, name in enumerate(on)
            ),
            tuple(RouterDeclaration(f"r{number}", PLACE, ("a", "b")) for number in range(routers)),
            networks if "b" in on else networks[:1],
        ),
        problems,
    )
    problems.check()


def test_a_subnet_has_room_for_nodes_from_one_end_and_routers_from_the_other() -> None:
    """A /29 has five addresses for them; the last node's number counts, wherever the others are."""
    room(29, *"aaaaa")
    room(29, *"bbaa", routers=1)
    room(29, *"aaaab", routers=1)
    with pytest.raises(TopologyError, match=r"5 of 6 nodes \(the network"):
        room(29, *"aaaaaa")
    with pytest.raises(TopologyError, match="5 of 6 nodes and routers, counted through all"):
        room(29, *"bbbba", routers=1)
    with pytest.raises(TopologyError, match=r"5 of 6 nodes and routers \("):
        room(29, *"aaa", routers=3)
