"""Calico's IPAM blocks: which parts of the pool are affine to which node.

As ``libcalico-go/lib/ipam`` does it: a node claims a block when it has no address left, beginning
at one that the FNV hash of its name chooses and walking on, from the pool's last block to its
first, to the next that nobody has. A node has at most twenty. When it can have no more, it borrows
single addresses from other nodes' blocks, unless ``strictAffinity`` forbids that.

Calico leaves the rest to chance; here it is decided, so that a topology always gives the same
addresses. The hash chooses the first block by itself and not as the seed of Go's random generator;
nodes claim in turns, one block in a turn, in the topology's order; and who borrows takes the last
free address of the node with the most to spare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from ipaddress import IPv4Address, IPv4Network

__all__ = ["MAX_BLOCKS", "Holding", "Pool", "assign", "fnv1"]

MAX_BLOCKS = 20
"""Blocks of one node: the default of Calico's ``maxBlocksPerHost``."""


@dataclass(frozen=True, slots=True)
class Pool:
    """An IP pool."""

    network: IPv4Network
    block_size: int
    """The blocks' prefix length, not shorter than the network's."""
    strict_affinity: bool = False

    @property
    def block_count(self) -> int:
        """How many blocks it is cut into."""
        return 1 << (self.block_size - self.network.prefixlen)

    @property
    def block_addresses(self) -> int:
        """How many addresses a block has; every one of them can be a pod's."""
        return 1 << (32 - self.block_size)

    def block(self, index: int) -> IPv4Network:
        """Block number ``index``, from 0."""
        first = int(self.network.network_address) + index * self.block_addresses
        return IPv4Network((first, self.block_size))


@dataclass(frozen=True, slots=True)
class Holding:
    """What a node has of the cluster's addresses."""

    blocks: tuple[IPv4Network, ...]
    """In the order of allocation."""
    borrowed: tuple[IPv4Address, ...] = ()
    missing: int = 0
    """How many addresses it wanted and could not get."""


def assign(pool: Pool, wanted: Mapping[str, int]) -> dict[str, Holding]:
    """Every node's blocks and borrowed addresses; ``wanted`` says how many addresses it needs.

    A node that wants none gets a block too, as long as there are any.
    """
    claimed = _claimed(pool, wanted)
    missing = {
        name: max(wanted[name] - len(blocks) * pool.block_addresses, 0)
        for name, blocks in claimed.items()
    }
    borrowed = {} if pool.strict_affinity else _borrowed(pool, wanted, claimed, missing)
    return {
        name: Holding(
            tuple(blocks),
            tuple(borrowed.get(name, ())),
            missing[name] - len(borrowed.get(name, ())),
        )
        for name, blocks in claimed.items()
    }


def fnv1(text: str) -> int:
    """FNV-1, 32 bits: Go's ``fnv.New32``."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = value * 0x01000193 % 2**32 ^ byte
    return value


def _claimed(pool: Pool, wanted: Mapping[str, int]) -> dict[str, list[IPv4Network]]:
    claimed: dict[str, list[IPv4Network]] = {name: [] for name in wanted}
    taken: set[int] = set()
    cursors = {name: fnv1(name) % pool.block_count for name in wanted}
    for turn in range(MAX_BLOCKS):
        for name, need in wanted.items():
            if (turn and need <= turn * pool.block_addresses) or len(taken) == pool.block_count:
                continue
            while cursors[name] in taken:
                cursors[name] = (cursors[name] + 1) % pool.block_count
            taken.add(cursors[name])
            claimed[name].append(pool.block(cursors[name]))
    return claimed


def _borrowed(
    pool: Pool,
    wanted: Mapping[str, int],
    claimed: Mapping[str, list[IPv4Network]],
    missing: Mapping[str, int],
) -> dict[str, list[IPv4Address]]:
    """What every node borrows; lenders keep what they need themselves.

    Only a node's last block has addresses to spare, so they are counted from that block's end.
    """
    spare = [
        (wanted[name] - len(blocks) * pool.block_addresses, order, blocks[-1][-1])
        for order, (name, blocks) in enumerate(claimed.items())
        if wanted[name] < len(blocks) * pool.block_addresses
    ]
    heapify(spare)
    found: dict[str, list[IPv4Address]] = {}
    for name, count in missing.items():
        for _ in range(count):
            if not spare:
                return found
            negative, order, address = spare[0]
            found.setdefault(name, []).append(address)
            if negative == -1:
                heappop(spare)
            else:
                heapreplace(spare, (negative + 1, order, address - 1))
    return found
