"""Clusters that Calico is planned for, by hand and at random, and ways to look at a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hypothesis import strategies as st

from testbed.cni import calico
from testbed.dataplane.features import Features
from testbed.dataplane.spec import NodeSpec
from testbed.dataplane.underlay import Segment, Underlay
from testbed.topology.model import Backend, Cluster, Network, Node, Router

__all__ = ["BIRD", "MODES", "UNDERLAY", "Options", "cluster", "clusters", "file", "lines", "on"]

UNDERLAY = Underlay(
    {
        "rack1": Segment(IPv4Network("172.18.0.0/16")),
        "rack2": Segment(IPv4Network("172.19.0.0/16")),
    }
)
RACKS = ("rack1", "rack1", "rack2")
"""Of three nodes, the last is behind a router."""
BIRD = "/etc/calico/confd/config"
Options = Mapping[str, int | bool | str]


def cluster(
    type_: str = "ipip",
    options: Options | None = None,
    racks: Sequence[str] = RACKS,
    **changes: Any,
) -> Cluster:
    """Nodes with a block each: 10.244.0.0/26, 10.244.1.0/26, … in the racks given."""
    nodes = tuple(
        Node(f"node{index + 1}", index, (IPv4Network(f"10.244.{index}.0/26"),), network=rack)
        for index, rack in enumerate(racks)
    )
    made = Cluster(
        name="t",
        cni="calico",
        backend=Backend(type_, options or {}),
        cluster_cidr=IPv4Network("10.244.0.0/16"),
        node_cidr_mask=26,
        service_cidr=IPv4Network("10.96.0.0/16"),
        nodes=nodes,
        pods=(),
        networks=(Network("rack1"), Network("rack2")),
        routers=(Router("tor", 0, ("rack1", "rack2"), 64513),),
        ipip="kernel",
    )
    return replace(made, **changes)


def on(of: Cluster, node: int = 0) -> NodeSpec:
    """The plan of one node."""
    return calico.plan(of, of.nodes[node], UNDERLAY, Features.full())


def lines(value: NodeSpec) -> list[str]:
    """Every native line that creates something."""
    return [line for item in value.objects for line in item.create]


def file(value: NodeSpec, path: str) -> str:
    """The content of one file of the plan."""
    return next(each.content for each in value.files if each.path == path)


MODES: list[tuple[str, Options]] = [
    ("ipip", {}),
    ("ipip", {"mode": "CrossSubnet"}),
    ("ipip", {"route_owner": "felix"}),
    ("ipip", {"route_owner": "felix", "mode": "CrossSubnet"}),
    ("vxlan", {}),
    ("vxlan", {"mode": "CrossSubnet"}),
    ("none", {}),
]
"""Every backend with what changes its routes."""


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Up to six nodes in two racks, with several blocks and borrowed addresses."""
    racks = draw(st.lists(st.sampled_from(["rack1", "rack2"]), min_size=1, max_size=6))
    base = cluster(*draw(st.sampled_from(MODES)), racks=racks)
    nodes = []
    for node in base.nodes:
        count = draw(st.integers(1, 3))
        blocks = tuple(IPv4Network(f"10.244.{node.index}.{64 * each}/26") for each in range(count))
        # the last address of another node's first block
        lender = draw(st.sampled_from(base.nodes))
        lent = IPv4Address(f"10.244.{lender.index}.{63 - node.index}")
        borrowed = (lent,) if lender is not node and draw(st.booleans()) else ()
        nodes.append(replace(node, pod_cidrs=blocks, borrowed=borrowed))
    return replace(base, nodes=tuple(nodes))
