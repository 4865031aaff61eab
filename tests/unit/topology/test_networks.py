"""Several networks with routers between them."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings

from testbed.errors import TopologyError
from testbed.topology.cnis import Traits
from testbed.topology.load import Overrides, from_dict
from testbed.topology.model import Cluster, Network, Router
from tests.unit.topology.strategies import CNIS, wide_clusters

ROUTER = {
    "image": "testbed-node",
    "networks": ["rack1", "rack2"],
    "x-testbed": {"role": "router", "as_number": 64513},
}


_FILE = Overrides()


def data(**x_testbed: Any) -> dict[str, Any]:
    """Two racks with a router between them, which stands before the nodes."""
    services: dict[str, Any] = {"tor": dict(ROUTER)}
    for name, network in (("node1", "rack1"), ("node2", "rack1"), ("node3", "rack2")):
        services[name] = {"image": "testbed-node", "networks": [network]}
    subnet = {"ipam": {"config": [{"subnet": "172.30.0.0/24"}]}}
    return {
        "services": services,
        "networks": {"rack2": None, "rack1": subnet},
        "x-testbed": {"cni": "flannel", **x_testbed},
    }


def made(overrides: Overrides = _FILE, **x_testbed: Any) -> Cluster:
    """The cluster of two racks."""
    return from_dict(data(**x_testbed), overrides, cnis=CNIS)


def test_nodes_and_routers_and_networks() -> None:
    """Each in the file's order; a router is none of the nodes and runs no pods."""
    cluster = made()
    assert [(node.name, node.index, node.network) for node in cluster.nodes] == [
        ("node1", 0, "rack1"),
        ("node2", 1, "rack1"),
        ("node3", 2, "rack2"),
    ]
    assert cluster.routers == (Router("tor", 0, ("rack1", "rack2"), 64513),)
    assert cluster.networks == (Network("rack2"), Network("rack1", IPv4Network("172.30.0.0/24")))
    assert {pod.node for pod in cluster.pods} == {"node1", "node2", "node3"}


def test_networks_may_be_mappings() -> None:
    """Compose's long form, without options; a router need not speak BGP."""
    topology = data()
    topology["services"]["tor"] |= {
        "networks": {"rack2": None, "rack1": {}},
        "x-testbed": {"role": "router"},
    }
    topology["services"]["node3"] |= {"networks": {"rack2": None}, "x-testbed": {"role": "node"}}
    cluster = from_dict(topology, cnis=CNIS)
    assert cluster.routers == (Router("tor", 0, ("rack2", "rack1")),)
    assert cluster.node("node3").network == "rack2"


@pytest.mark.parametrize("networks", [None, [], ["default"], {}, {"default": None}])
def test_default_is_there_by_itself(networks: Any) -> None:
    """As in Compose: a service without networks is on it."""
    topology = data()
    del topology["services"]["tor"], topology["services"]["node3"], topology["networks"]
    for service in topology["services"].values():
        service["networks"] = networks
    cluster = from_dict(topology, cnis=CNIS)
    assert cluster.networks == (Network("default"),)
    assert {node.network for node in cluster.nodes} == {"default"}


def test_default_beside_declared_networks() -> None:
    """It comes last, and a router reaches it like any other."""
    topology = data()
    del topology["services"]["node3"]["networks"], topology["networks"]["rack2"]
    topology["services"]["tor"]["networks"] = ["default", "rack1"]
    cluster = from_dict(topology, cnis=CNIS)
    assert [network.name for network in cluster.networks] == ["rack1", "default"]


def test_a_network_of_routers_only_needs_no_other_router() -> None:
    """Only nodes must reach each other."""
    topology = data()
    topology["networks"]["spine"] = None
    topology["services"]["tor"]["networks"] = ["rack1", "rack2", "spine"]
    assert len(from_dict(topology, cnis=CNIS).networks) == 3


def test_added_nodes_are_on_the_network_of_the_last() -> None:
    """And never have a router's name."""
    topology = data()
    topology["services"]["node4"] = topology["services"].pop("tor")
    cluster = from_dict(topology, Overrides(nodes=5), cnis=CNIS)
    assert [(node.name, node.network) for node in cluster.nodes[3:]] == [
        ("node5", "rack2"),
        ("node6", "rack2"),
    ]


def test_fewer_nodes_leave_networks_and_routers() -> None:
    """What is routed stays as the file says."""
    cluster = made(Overrides(nodes=1))
    assert [node.name for node in cluster.nodes] == ["node1"]
    assert (len(cluster.networks), len(cluster.routers)) == (2, 1)


def test_routers_take_ports_of_the_bridge_too() -> None:
    """1023 in all."""
    with pytest.raises(TopologyError, match="use 1 to 1022, the ports of a Linux bridge less 1 fo"):
        made(Overrides(nodes=1023))


def test_any_routed_backend_may_have_several_networks() -> None:
    """And one that is not may have several of which one has all the nodes."""
    assert made(cni="calico").node("node1").network == "rack1"
    topology = data(backend="host-gw")
    topology["services"]["node3"]["networks"] = ["rack1"]
    assert len(from_dict(topology, cnis=CNIS).networks) == 2


def test_a_cni_without_backends_has_one_network() -> None:
    """The message names what there is to name."""
    with pytest.raises(TopologyError, match=r"^topology: plain does not work .* use one network$"):
        from_dict(data(cni="plain"), cnis={"plain": Traits({})})


@settings(max_examples=50, deadline=None)
@given(wide_clusters())
def test_every_cluster_is_connected(cluster: Cluster) -> None:
    """Nodes are on networks that exist, and a router joins those of any two nodes."""
    known = {network.name for network in cluster.networks}
    assert {node.network for node in cluster.nodes} <= known
    assert [router.index for router in cluster.routers] == list(range(len(cluster.routers)))
    for router in cluster.routers:
        assert len(router.networks) >= 2
        assert set(router.networks) <= known
    for one in cluster.nodes:
        for other in cluster.nodes:
            pair = {one.network, other.network}
            assert len(pair) == 1 or any(pair <= {*each.networks} for each in cluster.routers)
