"""A Calico node's sessions: with every other node, with its network's routers and clients. Pure."""

from __future__ import annotations

from testbed.bgp import bird
from testbed.dataplane.underlay import Underlay
from testbed.topology import load_balancer
from testbed.topology.model import MESH_AS_NUMBER, Cluster, Node

__all__ = ["speaker"]


def speaker(
    cluster: Cluster, node: Node, underlay: Underlay, *, tunnel: str, programs_routes: bool
) -> bird.Node:
    """What BIRD on ``node`` must know.

    ``tunnel`` is the device of encapsulated routes, or empty; with ``programs_routes`` BIRD writes
    the pool's routes to the kernel itself.
    """
    segment = underlay.segments[node.network]
    mesh = (
        bird.Peer("Mesh", underlay.address_of(each.network, each.index), MESH_AS_NUMBER)
        for each in cluster.nodes
        if each.name != node.name
    )
    routers = (
        bird.Peer("Global", segment.router_address(router.index), router.as_number)
        for router in cluster.routers
        if router.as_number is not None and node.network in router.networks
    )
    clients = (
        bird.Peer("Global", underlay.client_address(cluster, client), client.as_number)
        for client in cluster.clients
        if client.as_number is not None and node.network == client.network
    )
    options = cluster.backend.options
    restart = options.get("max_restart_time")
    return bird.Node(
        address=underlay.address_of(node.network, node.index),
        subnet=segment.subnet,
        as_number=MESH_AS_NUMBER,
        pool=cluster.cluster_cidr,
        blocks=node.pod_cidrs,
        peers=(*mesh, *routers, *clients),
        tunnel=tunnel,
        cross_subnet=options.get("mode") == "CrossSubnet",
        programs_routes=programs_routes,
        max_restart_time=None if restart is None else int(restart),
        service_pools=load_balancer.networks(cluster),
    )
