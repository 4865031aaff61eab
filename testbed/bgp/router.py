"""A top-of-rack router: it forwards between networks, and may learn pod routes by eBGP. Pure."""

from __future__ import annotations

from dataclasses import replace

from testbed.bgp import bird
from testbed.dataplane.spec import NodeSpec
from testbed.dataplane.underlay import Underlay
from testbed.topology.model import MESH_AS_NUMBER, Cluster, Router

__all__ = ["plan"]


def plan(cluster: Cluster, router: Router, underlay: Underlay) -> NodeSpec:
    """What ``router`` holds; its links and connected routes are the engine's.

    With an AS number it peers with every node of its networks; the nodes dial. Nothing names an
    interface, because the engine decides which network is ``eth0``.
    """
    spec = NodeSpec(testbed=cluster.name, node=router.name, sysctls={"net.ipv4.ip_forward": "1"})
    if router.as_number is None:
        return spec
    peers = (
        bird.Peer("Node", underlay.address_of(node.network, node.index), MESH_AS_NUMBER)
        for node in cluster.nodes
        if node.network in router.networks
    )
    identity = underlay.segments[router.networks[0]].router_address(router.index)
    return replace(
        spec,
        files=bird.router_files(router.as_number, identity, cluster.cluster_cidr, peers),
        processes=(replace(bird.process(), files=(f"{bird.DIRECTORY}/bird.cfg",)),),
    )
