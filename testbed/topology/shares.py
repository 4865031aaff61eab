"""What every node has of the cluster CIDR: before its pods are known, and once they are.

Most CNIs number pods from the node's CIDR (:mod:`testbed.topology.ipam`), which limits how many
there can be; Calico gives a node as many blocks as its pods need (:mod:`testbed.topology.blocks`),
so only the whole pool is a limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from testbed.topology.blocks import MAX_BLOCKS, Holding, Pool, assign
from testbed.topology.declared import NodeDeclaration, Settings
from testbed.topology.ipam import allocate
from testbed.topology.source import Problems

__all__ = ["Share", "holdings", "of_blocks", "of_cidr", "shares"]

_SHORTEST_BLOCK = 20


@dataclass(frozen=True, slots=True)
class Share:
    """How many pods a node can number at most, with the words for messages."""

    capacity: int
    source: str
    """What numbers them: ``10.244.0.0/24``."""
    reason: str
    """Where the capacity comes from, as a clause about the node."""
    remedy: str
    """What would make it larger."""
    pod_cidr: IPv4Network | None = None
    """``None``: blocks."""


def of_cidr(pod_cidr: IPv4Network) -> Share:
    """All of a node's CIDR but the network, the bridge and the broadcast address."""
    capacity = pod_cidr.num_addresses - 3
    return Share(
        capacity,
        str(pod_cidr),
        f"its pod CIDR {pod_cidr} numbers {capacity} pods (the network, the bridge and the "
        "broadcast address take three)",
        "a shorter node_cidr_mask",
        pod_cidr,
    )


def of_blocks(pool: Pool, nodes: int, tunnel: int) -> Share:
    """What one of ``nodes`` can have at most; each takes ``tunnel`` addresses for its tunnel."""
    if not pool.strict_affinity:
        size = pool.network.num_addresses
        tunnels = f", {nodes} of them for the nodes' tunnels" if tunnel else ""
        return Share(
            size - nodes * tunnel,
            str(pool.network),
            f"cluster_cidr {pool.network} has {size} addresses{tunnels}",
            "a larger cluster_cidr",
        )
    blocks = min(MAX_BLOCKS, pool.block_count - (nodes - 1))
    size = blocks * pool.block_addresses
    return Share(
        size - tunnel,
        f"its blocks of /{pool.block_size}",
        f"its blocks of /{pool.block_size} can have {size} addresses"
        f"{', one of them for its tunnel' if tunnel else ''}",
        f"a {'shorter block_size' if blocks == MAX_BLOCKS else 'larger cluster_cidr'}",
    )


def shares(
    settings: Settings, nodes: Sequence[NodeDeclaration], problems: Problems
) -> Sequence[Share]:
    """Every node's share; when there are none to give, a stand-in is given.

    So the pods are still checked, and their problems reported together with this one.
    """
    found: Sequence[Share] | None = None
    if settings.traits.blocks:
        found = _block_shares(settings, nodes, problems)
    elif settings.cluster is not None and settings.node_cidr_mask is not None:
        mask, place = settings.node_cidr_mask, settings.mask_place
        subnets = allocate(settings.cluster, mask, place, nodes, problems)
        found = [of_cidr(subnet) for subnet in subnets] if subnets else None
    return found or [of_cidr(IPv4Network("10.0.0.0/8"))] * len(nodes)


def _block_shares(
    settings: Settings, nodes: Sequence[NodeDeclaration], problems: Problems
) -> Sequence[Share] | None:
    for node in nodes:
        if node.pod_cidr is not None:
            problems.add(
                node.pod_cidr.place,
                f"pod_cidr {node.pod_cidr.network} of {node.name}: {settings.cni} numbers pods "
                "from blocks of its own; remove it, and write block_size under backend",
            )
    pool = _pool(settings, problems)
    if pool is None:
        return None
    if pool.block_count < len(nodes):
        problems.add(
            settings.mask_place,
            f"cluster_cidr {pool.network} has blocks of /{pool.block_size} for {pool.block_count} "
            f"of {len(nodes)} nodes; use a larger cluster_cidr or a longer block_size",
        )
        return None
    return [of_blocks(pool, len(nodes), _tunnel(settings))] * len(nodes)


def _pool(settings: Settings, problems: Problems) -> Pool | None:
    """The cluster CIDR with its blocks; None when it has none."""
    if settings.cluster is None or settings.node_cidr_mask is None:
        return None
    network, size = settings.cluster.network, settings.node_cidr_mask
    if size < network.prefixlen:
        problems.add(
            settings.mask_place,
            f"block_size {size} is shorter than the prefix of cluster_cidr {network}, so not one "
            f"block fits; use {max(_SHORTEST_BLOCK, network.prefixlen)} to 32, or a larger "
            "cluster_cidr",
        )
        return None
    return Pool(network, size, settings.backend.options.get("strict_affinity") is True)


def _tunnel(settings: Settings) -> int:
    """How many addresses a node's own tunnel takes."""
    return int(settings.backend.type in settings.traits.tunnels)


def holdings(
    settings: Settings, given: Mapping[str, tuple[Share, int]], problems: Problems
) -> Mapping[str, Holding]:
    """What every node has, from its share and the number of its pods with an address of their own.

    Reports what blocks cannot give, unless a share is exceeded, which the scheduler reports.
    """
    cidrs = {name: share.pod_cidr for name, (share, _) in given.items() if share.pod_cidr}
    if len(cidrs) == len(given):
        return {name: Holding((cidr,)) for name, cidr in cidrs.items()}
    pool = _pool(settings, problems)
    assert pool is not None  # else every share would be a stand-in
    wanted = {name: pods + _tunnel(settings) for name, (_, pods) in given.items()}
    found = assign(pool, wanted)
    if all(pods <= share.capacity for share, pods in given.values()):
        _check_enough(settings, pool, wanted, found, problems)
    return found


def _check_enough(
    settings: Settings,
    pool: Pool,
    wanted: Mapping[str, int],
    found: Mapping[str, Holding],
    problems: Problems,
) -> None:
    assert settings.cluster
    total, size = sum(wanted.values()), pool.network.num_addresses
    if total > size:
        tunnels = f", {len(wanted)} of them for the nodes' tunnels" if _tunnel(settings) else ""
        problems.add(
            settings.cluster.place,
            f"cluster_cidr {pool.network} has {size} addresses, but {total} are wanted{tunnels}; "
            "use a larger cluster_cidr or fewer pods",
        )
        return
    for name, holding in found.items():
        if holding.missing:
            problems.add(settings.mask_place, _shortage(pool, name, wanted[name], holding))


def _shortage(pool: Pool, node: str, wanted: int, holding: Holding) -> str:
    """Why a node lacks addresses though the pool has enough for all."""
    count = len(holding.blocks)
    if count == MAX_BLOCKS:
        limit, remedy = f"a node has at most {MAX_BLOCKS} blocks", "a shorter block_size"
    else:
        limit, remedy = f"cluster_cidr {pool.network} has no other block", "a larger cluster_cidr"
    if pool.strict_affinity:
        lenders = "strict_affinity forbids to borrow from other nodes"
    else:
        lenders = "the other nodes have too few to lend"
    return (
        f"{node} wants {wanted} addresses, but its blocks of /{pool.block_size} have "
        f"{count * pool.block_addresses}: {limit}, and {lenders}; use {remedy} or move pods"
    )
