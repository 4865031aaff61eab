"""Calico's blocks: who gets which, and who borrows from whom."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.topology.blocks import MAX_BLOCKS, Holding, Pool, assign, fnv1


def pool(network: str, size: int = 26, *, strict: bool = False) -> Pool:
    """A pool with blocks of this prefix length."""
    return Pool(IPv4Network(network), size, strict)


def blocks(holding: Holding) -> list[str]:
    """A node's blocks, as text."""
    return [str(block) for block in holding.blocks]


def addresses(holding: Holding) -> set[IPv4Address]:
    """All addresses of a node's own blocks."""
    return {address for block in holding.blocks for address in block}


@pytest.mark.parametrize(
    ("text", "value"), [("", 0x811C9DC5), ("a", 0x050C5D7E), ("foobar", 0x31F0B262)]
)
def test_fnv1(text: str, value: int) -> None:
    """The vectors of the algorithm's authors (FNV-1, not FNV-1a)."""
    assert fnv1(text) == value


def test_the_name_chooses_the_first_block() -> None:
    """Whatever other nodes there are, unless one of them has it."""
    wanted = {f"node{number}": 3 for number in range(1, 4)}
    found = assign(pool("10.244.0.0/16"), wanted)
    for name, holding in found.items():
        index = fnv1(name) % 1024
        assert holding == Holding((pool("10.244.0.0/16").block(index),))
    assert found["node2"] == assign(pool("10.244.0.0/16"), {"node2": 3})["node2"]


def test_a_taken_block_is_passed_over_and_the_walk_wraps() -> None:
    """Four nodes and four blocks: each has one, next to the one that its name chose."""
    found = assign(pool("10.0.0.0/24"), dict.fromkeys(("a", "b", "c", "d"), 1))
    assert {fnv1(name) % 4 for name in found} == {1, 2, 3, 0}
    crowd = assign(pool("10.0.0.0/24"), dict.fromkeys(("a", "e", "i", "m"), 1))
    start = fnv1("a") % 4
    assert [fnv1(name) % 4 for name in crowd] == [start] * 4
    taken = [pool("10.0.0.0/24").block((start + step) % 4) for step in range(4)]
    assert [holding.blocks for holding in crowd.values()] == [(block,) for block in taken]


def test_a_second_block_when_the_first_is_full() -> None:
    """The next free one after the first; 64 addresses fit into a /26, as there is no broadcast."""
    lone = pool("10.244.0.0/16")
    start = fnv1("node1") % 1024
    assert assign(lone, {"node1": 64})["node1"].blocks == (lone.block(start),)
    assert assign(lone, {"node1": 65})["node1"].blocks == (lone.block(start), lone.block(start + 1))


def test_first_blocks_come_before_second_ones() -> None:
    """A node that needs three does not take the others' only ones."""
    found = assign(pool("10.0.0.0/24"), {"a": 190, "b": 1, "c": 0})
    assert [len(holding.blocks) for holding in found.values()] == [2, 1, 1]


def test_borrowing_from_the_end_of_the_block_with_the_most_to_spare() -> None:
    """The lender keeps what it needs; its lowest addresses are the ones it keeps."""
    found = assign(pool("10.0.0.0/24", 25), {"a": 130, "b": 100})
    (own,) = found["b"].blocks
    assert found["a"].borrowed == (own[-1], own[-2])
    assert found["b"] == Holding((own,))


def test_lenders_take_turns_once_they_have_equally_many_to_spare() -> None:
    """The first in the topology's order begins."""
    found = assign(pool("10.0.0.0/26", 28), {"a": 20, "b": 14, "c": 13, "d": 14})
    b, c, d = (found[name].blocks[0] for name in "bcd")
    assert found["a"].borrowed == (c[-1], b[-1], c[-2], d[-1])
    assert [holding.missing for holding in found.values()] == [0, 0, 0, 0]


def test_strict_affinity_forbids_borrowing() -> None:
    """What is missing is counted."""
    found = assign(pool("10.0.0.0/24", 25, strict=True), {"a": 130, "b": 100})
    assert (found["a"].borrowed, found["a"].missing) == ((), 2)


def test_twenty_blocks_are_the_most() -> None:
    """Then a node borrows, though the pool has free blocks; nobody has those, so none can lend."""
    wide = pool("10.244.0.0/16", 30)
    found = assign(wide, {"a": 85, "b": 1, "c": 4})
    assert len(found["a"].blocks) == MAX_BLOCKS
    assert found["a"].borrowed == tuple(reversed([*found["b"].blocks[0]][1:]))
    assert found["a"].missing == 2


def test_blocks_of_one_address() -> None:
    """A /32 is a block like any other."""
    found = assign(pool("10.0.0.0/29", 32), {"a": 5, "b": 0, "c": 2})
    assert [len(holding.blocks) for holding in found.values()] == [5, 1, 2]


def test_fewer_blocks_than_nodes() -> None:
    """The last ones have none, and borrow."""
    found = assign(pool("10.0.0.0/26"), {"a": 3, "b": 2})
    assert found["b"] == Holding((), (found["a"].blocks[0][-1], found["a"].blocks[0][-2]))


@given(
    prefix=st.integers(22, 27),
    size=st.integers(26, 32),
    strict=st.booleans(),
    wanted=st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), st.integers(0, 90)),
)
def test_what_always_holds(prefix: int, size: int, strict: bool, wanted: dict[str, int]) -> None:
    """Nobody shares an address, lenders keep their own, nothing is missing without a reason."""
    where = pool(f"10.0.0.0/{prefix}", max(prefix, size), strict=strict)
    found = assign(where, wanted)
    assert found == assign(where, dict(wanted))
    assert list(found) == list(wanted)
    claimed = [block for holding in found.values() for block in holding.blocks]
    assert len(set(claimed)) == len(claimed)
    assert all(block.subnet_of(where.network) for block in claimed)
    borrowed = [address for holding in found.values() for address in holding.borrowed]
    assert len(set(borrowed)) == len(borrowed)
    for name, holding in found.items():
        own = addresses(holding)
        lent = own & set(borrowed)
        assert not own & set(holding.borrowed)
        assert not (lent and holding.borrowed)
        assert len(own) - len(lent) + len(holding.borrowed) + holding.missing >= wanted[name]
        assert not lent or len(own) - len(lent) >= wanted[name]
        assert len(holding.blocks) <= MAX_BLOCKS
        assert (
            len(holding.blocks) <= 1
            or wanted[name] > (len(holding.blocks) - 1) * where.block_addresses
        )
    everything = {address for holding in found.values() for address in addresses(holding)}
    assert set(borrowed) <= everything
    if sum(holding.missing for holding in found.values()) and not strict:
        spare = len(everything) - sum(wanted.values()) + sum(h.missing for h in found.values())
        assert spare == 0
