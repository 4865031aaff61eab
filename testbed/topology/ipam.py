"""Which addresses a cluster's parts own.

As in Kubernetes' node IPAM controller, every node takes the next free subnet of the cluster CIDR,
so node number *i* has the *i*-th one unless a node chose its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network
from itertools import combinations

from testbed.topology.declared import Cidr, NodeDeclaration
from testbed.topology.source import Place, Problems

__all__ = ["allocate", "capacity", "check_overlaps", "check_underlay"]


def capacity(pod_cidr: IPv4Network) -> int:
    """How many pods a node's CIDR numbers: all but the network, the bridge and the broadcast."""
    return pod_cidr.num_addresses - 3


def allocate(
    cluster: Cidr,
    mask: int,
    mask_place: Place,
    nodes: Sequence[NodeDeclaration],
    problems: Problems,
) -> tuple[IPv4Network, ...] | None:
    """Every node's pod CIDR, in the nodes' order; None when they do not fit."""
    network = cluster.network
    if not _divides(cluster, mask, mask_place, problems):
        return None
    _check_chosen(network, nodes, problems)
    chosen = [node.pod_cidr.network for node in nodes if node.pod_cidr]
    free = (
        subnet
        for subnet in network.subnets(new_prefix=mask)
        if not any(subnet.overlaps(other) for other in chosen)
    )
    found: list[IPv4Network] = []
    for node in nodes:
        subnet = node.pod_cidr.network if node.pod_cidr else next(free, None)
        if subnet is None:
            problems.add(
                mask_place,
                f"cluster_cidr {network} has subnets of /{mask} for {len(found)} of {len(nodes)} "
                "nodes; use a larger cluster_cidr or a longer node_cidr_mask",
            )
            return None
        found.append(subnet)
    return tuple(found)


def _divides(cluster: Cidr, mask: int, mask_place: Place, problems: Problems) -> bool:
    """Whether the cluster's CIDR holds at least one node subnet."""
    network = cluster.network
    if network.prefixlen > 29:
        problems.add(
            cluster.place, f"cluster_cidr {network} has no room for pods; use 10.244.0.0/16"
        )
    elif mask < network.prefixlen:
        problems.add(
            mask_place,
            f"node_cidr_mask {mask} is shorter than the prefix of cluster_cidr {network}, so not "
            f"one node subnet fits; use {network.prefixlen} to 29, or a larger cluster_cidr",
        )
    return network.prefixlen <= min(mask, 29)


def _check_chosen(
    cluster: IPv4Network, nodes: Sequence[NodeDeclaration], problems: Problems
) -> None:
    chosen = [(node.name, node.pod_cidr) for node in nodes if node.pod_cidr]
    for name, cidr in chosen:
        if not cidr.network.subnet_of(cluster):
            problems.add(
                cidr.place,
                f"pod_cidr {cidr.network} of {name} is outside cluster_cidr {cluster}; "
                "choose a part of it",
            )
        elif cidr.network.prefixlen > 29:
            problems.add(
                cidr.place,
                f"pod_cidr {cidr.network} of {name} has no room for pods; use at most /29",
            )
    for (name, first), (other, second) in combinations(chosen, 2):
        if first.network.overlaps(second.network):
            problems.add(
                second.place,
                f"pod_cidr {second.network} of {other} overlaps {first.network} of {name}; pod "
                "addresses are unique in a cluster: choose another",
            )


def check_overlaps(cidrs: Iterable[Cidr], problems: Problems) -> None:
    """Report every pair of networks that share an address."""
    for first, second in combinations(cidrs, 2):
        if first.network.overlaps(second.network):
            problems.add(
                max(first.place, second.place),
                f"{second.name} {second.network} overlaps {first.name} {first.network}: a packet "
                "to an address of both would have two ways to go; choose networks apart",
            )


def check_underlay(underlay: Cidr, nodes: int, problems: Problems) -> None:
    """Report a node network that is too small; .1 is the gateway, .2 the first node."""
    room = max(underlay.network.num_addresses - 3, 0)
    if nodes > room:
        problems.add(
            underlay.place,
            f"{underlay.name} {underlay.network} has addresses for {room} of {nodes} nodes (the "
            "network, the gateway and the broadcast address take three); use a larger one",
        )
