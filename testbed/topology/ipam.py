"""Which addresses a cluster's parts own.

As in Kubernetes' node IPAM controller, every node takes the next free subnet of the cluster CIDR,
so node number *i* has the *i*-th one unless a node chose its own. CNIs with an IPAM of their own
give nodes blocks instead: :mod:`testbed.topology.blocks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network
from itertools import combinations

from testbed.topology.declared import Cidr, Fabric, NodeDeclaration
from testbed.topology.source import Place, Problems

__all__ = ["allocate", "check_overlaps", "check_underlay"]


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


def check_underlay(fabric: Fabric, problems: Problems) -> None:
    """Report networks whose subnets are too small.

    .1 is the gateway; nodes are numbered from .2, and routers and then clients from the subnet's
    end, all by their position in the whole topology and not by that on the network.
    """
    for network in fabric.networks:
        if network.subnet is None:
            continue
        wanted = sum(
            max((position + 1 for position, is_on in enumerate(on) if is_on), default=0)
            for on in (
                [node.network == network.name for node in fabric.nodes],
                [network.name in router.networks for router in fabric.routers]
                + [network.name == client.network for client in fabric.clients],
            )
        )
        subnet = network.subnet.network
        room = max(subnet.num_addresses - 3, 0)
        if wanted > room:
            kinds = ("nodes", "routers" * bool(fabric.routers), "clients" * bool(fabric.clients))
            *others, last = filter(None, kinds)
            what = f"{', '.join(others)} and {last}" if others else last
            counted = ", counted through all networks" if len(fabric.networks) > 1 else ""
            problems.add(
                network.subnet.place,
                f"{network.subnet.name} {subnet} has addresses for {room} of {wanted} {what}"
                f"{counted} (the network, the gateway and the broadcast address take three); use a "
                "larger one",
            )
