"""What the oracle expects of a topology."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from testbed.topology.model import Backend, Cluster, Container, Node, Pod, Router
from testbed.verify import oracle

NETEXEC = Container("netexec", "netexec", ("/usr/local/bin/netexec",))


def cluster(
    *pods: Pod, type_: str = "vxlan", options: Mapping[str, int | bool | str] | None = None
) -> Cluster:
    """Two nodes with these pods."""
    return Cluster(
        name="t",
        cni="flannel",
        backend=Backend(type_, options or {}),
        cluster_cidr=IPv4Network("10.244.0.0/16"),
        node_cidr_mask=24,
        service_cidr=IPv4Network("10.96.0.0/16"),
        nodes=tuple(
            Node(f"node{index + 1}", index, (IPv4Network(f"10.244.{index}.0/24"),))
            for index in range(2)
        ),
        pods=pods,
    )


def pod(name: str, node: str, *, host: bool = False) -> Pod:
    """A netexec pod."""
    return Pod("default", name, node, (NETEXEC,), hostname=name, host_network=host)


A, B, C = pod("a", "node1"), pod("b", "node1"), pod("c", "node2")
HOST = pod("h", "node2", host=True)


def test_every_ordered_pair_of_pods_and_every_node_to_its_own() -> None:
    """Three pods: six pairs, and three flows of the nodes themselves."""
    flows = list(oracle.flows(cluster(A, B, C)))
    assert len([flow for flow in flows if flow.source != oracle.NODE]) == 6
    assert {(flow.node, flow.target) for flow in flows if flow.source == oracle.NODE} == {
        ("node1", "default/a"),
        ("node1", "default/b"),
        ("node2", "default/c"),
    }


def test_sources_are_preserved_between_pods_only() -> None:
    """A hostNetwork pod is the node: its address as seen depends on the route."""
    preserved = {
        (flow.source, flow.target): flow.preserved for flow in oracle.flows(cluster(A, C, HOST))
    }
    assert preserved["default/a", "default/c"] is True
    assert preserved["default/a", "default/h"] is False
    assert preserved["default/h", "default/a"] is False


def test_one_crossing_per_ordered_pair_of_nodes() -> None:
    """By each node's first pod that has an address of its own."""
    found = list(oracle.crossings(cluster(A, B, HOST, C)))
    assert [(each.source, each.target) for each in found] == [
        ("default/a", "default/c"),
        ("default/c", "default/a"),
    ]


def test_no_crossing_without_pods_on_both_sides() -> None:
    """hostNetwork pods do not use the overlay."""
    assert list(oracle.crossings(cluster(A, B, HOST))) == []


@pytest.mark.parametrize(
    ("type_", "options", "expected"),
    [
        ("vxlan", {}, oracle.Vxlan(1, 8472)),
        ("vxlan", {"vni": 7, "port": 4789}, oracle.Vxlan(7, 4789)),
        ("vxlan", {"direct_routing": True}, None),
        ("vxlan", {"direct_routing": False}, oracle.Vxlan(1, 8472)),
        ("host-gw", {}, None),
        ("ipip", {}, oracle.Ipip()),
        ("ipip", {"direct_routing": True}, None),
        ("wireguard", {}, oracle.Wireguard(51820)),
    ],
)
def test_encapsulation_by_backend(
    type_: str, options: Mapping[str, int | bool | str], expected: oracle.Encapsulation
) -> None:
    """As flannel documents its backends."""
    found = cluster(type_=type_, options=options)
    assert oracle.encapsulation(found, *found.nodes) == expected
    assert oracle.encapsulations(found) == (expected,)


RACKS = replace(
    cluster(),
    cni="calico",
    backend=Backend("ipip", {"mode": "CrossSubnet"}),
    nodes=tuple(
        Node(f"node{index + 1}", index, (IPv4Network(f"10.244.0.{64 * index}/26"),), network=rack)
        for index, rack in enumerate(("rack1", "rack1", "rack2"))
    ),
    routers=(Router("tor", 0, ("rack1", "rack2"), as_number=64513),),
)


def test_cross_subnet_encapsulates_between_networks_only() -> None:
    """Plain within a rack."""
    first, second, third = RACKS.nodes
    assert oracle.encapsulation(RACKS, first, second) is None
    assert oracle.encapsulation(RACKS, first, third) == oracle.Ipip()
    assert oracle.encapsulations(RACKS) == (None, oracle.Ipip())


def test_calico_s_own_vxlan() -> None:
    """VNI 4096, IANA's port."""
    always = replace(RACKS, backend=Backend("vxlan"))
    assert oracle.encapsulation(always, *always.nodes[:2]) == oracle.Vxlan(4096, 4789)


def test_bgp_mesh_and_routers() -> None:
    """Every node with every other, and with its racks' router if that has an AS."""
    assert list(oracle.mesh(RACKS)) == [
        ("node1", "node2"),
        ("node1", "node3"),
        ("node1", "tor"),
        ("node2", "node1"),
        ("node2", "node3"),
        ("node2", "tor"),
        ("node3", "node1"),
        ("node3", "node2"),
        ("node3", "tor"),
    ]
    assert not list(oracle.mesh(replace(RACKS, backend=Backend("vxlan"))))
    assert not list(oracle.mesh(cluster()))
    silent = replace(RACKS, routers=(Router("tor", 0, ("rack1", "rack2")),))
    assert ("node1", "tor") not in list(oracle.mesh(silent))
