"""Routers and clients: what is on the underlay besides nodes. Pure.

A top-of-rack router forwards between networks, and may learn the nodes' routes by eBGP; a client
only sends for itself, and may learn them too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv4Address

from testbed.bgp import bird
from testbed.dataplane.spec import NodeSpec
from testbed.dataplane.underlay import Underlay
from testbed.topology import load_balancer
from testbed.topology.model import MESH_AS_NUMBER, Client, Cluster, Router

__all__ = ["plan", "plan_client"]

_HOLD = 3
"""Seconds, the least there is: a peer that was silent for so long is gone."""


def plan(cluster: Cluster, router: Router, underlay: Underlay) -> NodeSpec:
    """What ``router`` holds; its links and connected routes are the engine's.

    With an AS number it peers with every node of its networks; the nodes dial. Nothing names an
    interface, because the engine decides which network is ``eth0``.
    """
    spec = NodeSpec(testbed=cluster.name, node=router.name, sysctls={"net.ipv4.ip_forward": "1"})
    if router.as_number is None:
        return spec
    identity = underlay.segments[router.networks[0]].router_address(router.index)
    return _speaking(spec, cluster, underlay, router.networks, router.as_number, identity)


def plan_client(cluster: Cluster, client: Client, underlay: Underlay) -> NodeSpec:
    """What ``client`` holds, without its routes to other networks; with an AS number it peers, too.

    Of several routes to one address it uses all (ECMP), a connection one of them. Like a switch in
    front of load balancers it has a short hold time: with BIRD's own, 240 s, a dead node would go
    on getting its share of all connections for so long.
    """
    sysctls = {"net.ipv4.ip_forward": "0"}
    spec = NodeSpec(testbed=cluster.name, node=client.name, sysctls=sysctls)
    if client.as_number is None:
        return spec
    identity = underlay.client_address(cluster, client)
    spec = replace(spec, sysctls={**sysctls, "net.ipv4.fib_multipath_hash_policy": "1"})
    return _speaking(
        *(spec, cluster, underlay, (client.network,), client.as_number, identity), hold=_HOLD
    )


def _speaking(
    spec: NodeSpec,
    cluster: Cluster,
    underlay: Underlay,
    networks: Collection[str],
    as_number: int,
    identity: IPv4Address,
    hold: int | None = None,
) -> NodeSpec:
    peers = (
        bird.Peer("Node", underlay.address_of(node.network, node.index), MESH_AS_NUMBER)
        for node in cluster.nodes
        if node.network in networks
    )
    pools = (cluster.cluster_cidr, *load_balancer.networks(cluster))
    return replace(
        spec,
        files=bird.router_files(as_number, identity, pools, peers, hold),
        processes=(replace(bird.process(), files=(f"{bird.DIRECTORY}/bird.cfg",)),),
    )
