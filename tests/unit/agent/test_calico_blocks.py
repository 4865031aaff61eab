"""Calico's allocation in blocks: order, reuse, lending, borrowing, and what must never happen."""

from __future__ import annotations

import copy
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.agent.calico_blocks import Allocations, ordinal

FIRST, SECOND = "10.65.0.8/29", "10.65.3.0/29"
DATASTORE: dict[str, Any] = {"node": "node1", "strict_affinity": False, "blocks": [FIRST, SECOND]}


def addresses(cidr: str) -> list[str]:
    """All of a block's, with the first and the last."""
    return [str(address) for address in IPv4Network(cidr)]


def fresh(**changes: Any) -> Allocations:
    """A node that has given nothing yet."""
    return Allocations({**DATASTORE, **changes}, {}, {})


def again(before: Allocations, **changes: Any) -> Allocations:
    """The next call of the plugin: what was kept, and the datastore of now."""
    blocks, borrowed = copy.deepcopy((before.blocks, before.borrowed))
    return Allocations({**DATASTORE, **changes}, blocks, borrowed)


def give(allocations: Allocations, count: int, prefix: str = "pod") -> list[str]:
    """The next ``count`` addresses, each with a handle of its own: ``pod0``, ``pod1``, …."""
    return [allocations.assign(f"{prefix}{index}", {}) for index in range(count)]


def test_a_block_reads_like_an_ipamblock() -> None:
    """Keys and values of the resource's specification, also while addresses are given."""
    allocations = fresh(blocks=["10.65.0.8/30"])
    allocations.assign("k8s-pod-network.c0ffee", {"node": "node1", "pod": "web"})
    assert allocations.blocks["10.65.0.8/30"] == {
        "cidr": "10.65.0.8/30",
        "affinity": "host:node1",
        "strictAffinity": False,
        "allocations": [0, None, None, None],
        "attributes": [
            {
                "handle_id": "k8s-pod-network.c0ffee",
                "secondary": {"node": "node1", "pod": "web"},
            }
        ],
        "unallocated": [1, 2, 3],
        "deleted": False,
    }


def test_every_address_is_used_and_the_second_block_follows_the_first() -> None:
    """There is no network and no broadcast address; then there is no address at all."""
    allocations = fresh()
    assert give(allocations, 17) == [*addresses(FIRST), *addresses(SECOND), ""]


def test_a_released_address_goes_to_the_end_of_its_block() -> None:
    """First in, first out, per block: the first block is filled before the second."""
    allocations = fresh()
    given_ = give(allocations, 3)
    assert allocations.release("pod0") == given_[:1]
    assert allocations.release("pod2") == [given_[2]]
    rest = addresses(FIRST)[3:]
    assert give(allocations, 8, "new") == [*rest, given_[0], given_[2], addresses(SECOND)[0]]


def test_releasing_what_nobody_holds() -> None:
    """Is no error and changes nothing."""
    allocations = fresh()
    give(allocations, 2)
    before = copy.deepcopy(allocations.blocks)
    assert allocations.release("nobody") == []
    assert allocations.blocks == before


def test_all_addresses_of_a_handle_are_released() -> None:
    """A repeated ADD leaves two; attributes are numbered anew."""
    allocations = fresh()
    first = allocations.assign("twice", {"timestamp": "1"})
    other = allocations.assign("other", {})
    second = allocations.assign("twice", {"timestamp": "2"})
    assert allocations.held("twice") == [first, second]
    assert allocations.release("twice") == [first, second]
    block = allocations.blocks[FIRST]
    assert block["attributes"] == [{"handle_id": "other", "secondary": {}}]
    assert block["allocations"].count(0) == 1
    assert allocations.held("other") == [other]


def test_a_lent_address_is_never_given() -> None:
    """Neither in turn nor when it is asked for."""
    lent = addresses(FIRST)[-1]
    allocations = fresh(blocks=[FIRST], lent=[lent])
    assert allocations.assign("pod", {}, wanted=lent) == addresses(FIRST)[0]
    assert give(allocations, 7, "next") == [*addresses(FIRST)[1:-1], ""]


def test_borrowed_addresses_come_last_and_in_order() -> None:
    """And may be borrowed again once they are released."""
    borrowed = ["10.65.9.7", "10.65.9.6"]
    allocations = fresh(blocks=[FIRST], borrowed=borrowed)
    assert give(allocations, 11) == [*addresses(FIRST), *borrowed, ""]
    assert allocations.borrowed["10.65.9.7"] == {"handle_id": "pod8", "secondary": {}}
    assert allocations.release("pod8") == ["10.65.9.7"]
    assert allocations.assign("next", {}) == "10.65.9.7"


def test_nothing_is_borrowed_with_strict_affinity() -> None:
    """Whatever the datastore lists."""
    allocations = fresh(blocks=[FIRST], borrowed=["10.65.9.7"], strict_affinity=True)
    assert give(allocations, 9)[-1] == ""
    assert allocations.assign("pod", {}, wanted="10.65.9.7") == ""
    assert allocations.blocks[FIRST]["strictAffinity"] is True


@pytest.mark.parametrize("wanted", ["10.65.0.12", "10.65.3.7", "10.65.9.7"])
def test_a_requested_address_is_given_if_it_is_free(wanted: str) -> None:
    """From any own block, or borrowed; a second time the next in turn is given."""
    allocations = fresh(borrowed=["10.65.9.7"])
    assert allocations.assign("pod", {}, wanted=wanted) == wanted
    assert allocations.assign("other", {}, wanted=wanted) == addresses(FIRST)[0]
    assert allocations.release("pod") == [wanted]
    assert allocations.assign("third", {}, wanted=wanted) == wanted


@pytest.mark.parametrize("wanted", ["10.65.1.1", "10.65.0.8", "fd00::1", "no address"])
def test_another_address_is_given_if_the_requested_one_is_not_to_be_had(wanted: str) -> None:
    """Of another block, the node's own, or none at all."""
    allocations = fresh(reserved={"ipip-tunnel-addr-node1": "10.65.0.8"})
    assert allocations.assign("pod", {}, wanted=wanted) == "10.65.0.9"


def test_the_nodes_own_address_is_assigned_once() -> None:
    """Before the first pod, with Calico's handle and attributes."""
    reserved = {"ipip-tunnel-addr-node1": "10.65.0.8"}
    allocations = again(fresh(reserved=reserved), reserved=reserved)
    assert allocations.blocks[FIRST]["attributes"] == [
        {
            "handle_id": "ipip-tunnel-addr-node1",
            "secondary": {"node": "node1", "type": "ipipTunnelAddress"},
        }
    ]
    assert allocations.conflicts == {}
    assert allocations.assign("pod", {}) == "10.65.0.9"


def test_the_nodes_own_address_follows_the_datastore() -> None:
    """Another one, another tunnel's, and none: what was there before is released."""
    allocations = fresh(reserved={"ipip-tunnel-addr-node1": "10.65.0.8"})
    allocations = again(allocations, reserved={"ipip-tunnel-addr-node1": "10.65.0.9"})
    assert allocations.held("ipip-tunnel-addr-node1") == ["10.65.0.9"]
    allocations = again(allocations, reserved={"vxlan-tunnel-addr-node1": "10.65.0.8"})
    assert allocations.held("ipip-tunnel-addr-node1") == []
    assert allocations.held("vxlan-tunnel-addr-node1") == ["10.65.0.8"]
    assert again(allocations).blocks[FIRST]["attributes"] == []


def test_an_own_address_that_a_pod_has_is_a_conflict() -> None:
    """So is one that is in no block; a handle that Calico does not know is kept as it is."""
    allocations = fresh()
    allocations.assign("pod", {})
    reserved = {"ipip-tunnel-addr-node1": "10.65.0.8", "mine": "10.65.0.9", "x": "10.66.0.1"}
    after = again(allocations, reserved=reserved)
    assert after.conflicts == {"10.65.0.8": "pod", "10.66.0.1": ""}
    assert after.held("mine") == ["10.65.0.9"]
    assert again(after, reserved={"mine": "10.65.0.9"}).conflicts == {}


def test_a_block_that_is_no_longer_listed_stays_until_it_is_empty() -> None:
    """Nothing is given from it, and it has no affinity."""
    allocations = fresh()
    (kept,) = give(allocations, 1)
    allocations = again(allocations, blocks=[SECOND])
    assert allocations.blocks[FIRST]["affinity"] is None
    assert allocations.unused() == []
    assert allocations.assign("next", {}, wanted=addresses(FIRST)[1]) == addresses(SECOND)[0]
    assert allocations.release("pod0") == [kept]
    assert allocations.unused() == [FIRST]


def test_a_loan_that_is_no_longer_listed_stays_until_it_is_released() -> None:
    """Also when the address has become one of an own block."""
    allocations = fresh(blocks=[], borrowed=["10.65.0.8"])
    assert give(allocations, 1) == ["10.65.0.8"]
    allocations = again(allocations)
    assert allocations.assign("next", {}, wanted="10.65.0.8") == "10.65.0.9"
    assert allocations.release("pod0") == ["10.65.0.8"]
    assert allocations.borrowed == {}
    assert allocations.assign("last", {}, wanted="10.65.0.8") == "10.65.0.8"


def test_an_address_of_a_former_block_is_not_borrowed_back_while_it_is_in_use() -> None:
    """The other way round."""
    allocations = fresh(blocks=[FIRST])
    assert give(allocations, 1) == ["10.65.0.8"]
    allocations = again(allocations, blocks=[], borrowed=["10.65.0.8", "10.65.0.9"])
    assert give(allocations, 2, "next") == ["10.65.0.9", ""]


def test_without_a_datastore_addresses_are_released_and_nothing_else_changes() -> None:
    """DEL must not depend on it."""
    allocations = fresh(reserved={"ipip-tunnel-addr-node1": "10.65.0.8"})
    give(allocations, 1)
    unknown = Allocations(None, allocations.blocks, allocations.borrowed)
    assert unknown.release("pod0") == ["10.65.0.9"]
    assert unknown.held("ipip-tunnel-addr-node1") == ["10.65.0.8"]
    assert unknown.blocks[FIRST]["affinity"] == "host:node1"
    assert unknown.unused() == []


@pytest.mark.parametrize(
    ("cidr", "address", "expected"),
    [
        ("10.65.0.8/29", "10.65.0.8", 0),
        ("10.65.0.8/29", "10.65.0.15", 7),
        ("10.65.0.8/29", "10.65.0.16", None),
        ("10.65.0.8/29", "10.65.0.7", None),
        ("10.65.0.8/32", "10.65.0.8", 0),
    ],
)
def test_ordinals(cidr: str, address: str, expected: int | None) -> None:
    """From 0; ``None`` outside of the block."""
    assert ordinal(cidr, address) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": ["10.65.0.0"]},
        {"blocks": ["10.65.0.0/33"]},
        {"blocks": ["10.65.0/26"]},
        {"lent": ["10.65.0.256"]},
        {"reserved": {"ipip-tunnel-addr-node1": "x"}},
    ],
)
def test_a_malformed_datastore(changes: dict[str, Any]) -> None:
    """Is refused as a whole."""
    with pytest.raises(ValueError):  # noqa: PT011 - Python's own words
        fresh(**changes)


HANDLES = st.integers(0, 12).map("pod{}".format)
WANTED = st.sampled_from(["", *addresses(FIRST), *addresses(SECOND), "10.65.9.7", "1.2.3.4"])
CALLS = st.lists(
    st.tuples(st.sampled_from(["ADD", "ADD", "DEL"]), HANDLES, WANTED), min_size=1, max_size=60
)


@given(
    calls=CALLS,
    lent=st.sets(st.sampled_from(addresses(SECOND))),
    borrowed=st.lists(st.sampled_from(["10.65.9.6", "10.65.9.7"]), unique=True),
    strict=st.booleans(),
)
def test_whatever_is_called(
    calls: list[tuple[str, str, str]], lent: set[str], borrowed: list[str], strict: bool
) -> None:
    """No address twice, none that is lent or the node's own; the oldest free one; all comes back.

    The model is a queue for each block, and each call reads what the one before it kept.
    """
    own = addresses(FIRST)[0]
    datastore = {
        "lent": sorted(lent),
        "borrowed": borrowed,
        "strict_affinity": strict,
        "reserved": {"vxlan-tunnel-addr-node1": own},
    }
    queues = [addresses(FIRST)[1:], addresses(SECOND)]
    held: dict[str, str] = {}
    allocations = fresh(**datastore)
    for command, handle, wanted in calls:
        allocations = again(allocations, **datastore)
        if command == "DEL":
            mine = [address for address, whose in held.items() if whose == handle]
            assert sorted(allocations.release(handle)) == sorted(mine)
            for address in sorted(mine, key=IPv4Address):
                del held[address]
                for queue, cidr in zip(queues, (FIRST, SECOND), strict=True):
                    queue += [address] if address in addresses(cidr) else []
        else:
            loans = [] if strict else [each for each in borrowed if each not in held]
            free = [each for queue in queues for each in queue if each not in lent] + loans
            expected = wanted if wanted in free else next(iter(free), "")
            assert allocations.assign(handle, {"call": command}, wanted) == expected
            if expected:
                held[expected] = handle
            for queue in queues:
                queue[:] = [each for each in queue if each != expected]
        check_consistency(allocations, {own, *held})


def check_consistency(allocations: Allocations, held: set[str]) -> None:
    """Each ordinal is allocated or unallocated, and each attribute is somebody's."""
    found = set(allocations.borrowed)
    for cidr, block in allocations.blocks.items():
        used = {i for i, which in enumerate(block["allocations"]) if which is not None}
        assert sorted([*used, *block["unallocated"]]) == list(range(len(block["allocations"])))
        referred = {block["allocations"][index] for index in used}
        assert referred == set(range(len(block["attributes"])))
        found |= {addresses(cidr)[index] for index in used}
    assert found == held
