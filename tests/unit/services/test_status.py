"""Services in ``status -o json``, and who is to have load balancers' addresses."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from testbed.announce import layer2
from testbed.services import state
from testbed.services.announced import holders
from testbed.services.status import entries
from tests.unit.services.cluster import UNDERLAY, WEB, cluster, running


def test_an_entry() -> None:
    """Endpoints have their pods, addresses are text."""
    kept, _ = state.kept(cluster(), running("a", "b"))
    (entry,) = entries(cluster(), kept.inputs, running("a", "b"))
    assert (entry["name"], entry["cluster_ip"], entry["type"]) == ("web", "10.96.0.11", "NodePort")
    assert entry["ports"] == [
        {
            "name": "http",
            "protocol": "TCP",
            "port": 80,
            "target_port": "http",
            "node_port": 30080,
        }
    ]
    assert [(each["pod"], each["node"]) for each in entry["endpoints"]] == [
        ("default/a", "node1"),
        ("default/b", "node2"),
    ]


def test_headless() -> None:
    """As kubectl says it."""
    headless = cluster(services=(replace(WEB, cluster_ip=None, type="ClusterIP"),))
    kept, _ = state.kept(headless, running("a"))
    assert entries(headless, kept.inputs, {})[0]["cluster_ip"] == "None"


def test_who_is_to_have_an_address() -> None:
    """The elected node, or the next one that runs; with policy Local one that has an endpoint."""
    address = IPv4Address("172.18.255.200")
    balanced = replace(WEB, type="LoadBalancer", load_balancer_ip=address)
    full = cluster(services=(balanced,))
    _, portals = state.kept(full, running("a", "b"))
    first, second = layer2.elected(full.nodes, address)
    both = [node.name for node in full.nodes]
    assert holders(full, UNDERLAY, portals, both) == {str(address): first.name}
    assert holders(full, UNDERLAY, portals, [second.name]) == {str(address): second.name}
    local = cluster(services=(replace(balanced, external_traffic_policy="Local"),))
    _, portals = state.kept(local, running("b"))
    assert holders(local, UNDERLAY, portals, both) == {str(address): "node2"}
