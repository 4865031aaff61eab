"""Calico's allocation of addresses in blocks. Pure: dictionaries in, dictionaries out.

Reproduces ``libcalico-go/lib/ipam/ipam_block.go``: a block is the specification of an IPAMBlock
resource, a free address is taken from the front of ``unallocated`` and goes back to its end, all of
a block's addresses can be used, and what belongs together has one handle. Which blocks a node has,
which addresses of theirs it lends and which of others' it borrows is Calico's datastore's business,
so it is decided elsewhere.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TypeAlias

    Block: TypeAlias = dict[str, Any]
    Attribute: TypeAlias = dict[str, Any]

__all__ = ["Allocations", "ordinal"]

TUNNELS = {
    "ipip-tunnel-addr-": "ipipTunnelAddress",
    "vxlan-tunnel-addr-": "vxlanTunnelAddress",
    "wireguard-tunnel-addr-": "wireguardTunnelAddress",
}
"""The beginning of the handle of a node's own address → its attribute ``type``."""


class Allocations:
    """What a node holds of the cluster's addresses.

    Args:
        datastore: ``node``, ``strict_affinity``, ``blocks``, ``lent``, ``borrowed`` and
            ``reserved``; what is missing is empty. ``None`` when nobody knows: then addresses can
            only be released.
        blocks: the blocks as they were kept, by CIDR. They are changed in place.
        borrowed: attributes of borrowed addresses as they were kept, by address; the same.

    Attributes:
        conflicts: addresses of the node itself that it could not have → who holds them; empty
            when they are in none of its blocks.

    Raises:
        ValueError: the datastore holds what is no address or block.
    """

    def __init__(
        self,
        datastore: dict[str, Any] | None,
        blocks: dict[str, Block],
        borrowed: dict[str, Attribute],
    ) -> None:
        known = datastore or {}
        self.node = str(known.get("node", ""))
        self.strict_affinity = bool(known.get("strict_affinity", False))
        self.blocks = blocks
        self.borrowed = borrowed
        self.conflicts: dict[str, str] = {}
        self._own: list[str] = list(known.get("blocks", ()))
        self._lent = {_number(text) for text in known.get("lent", ())}
        self._borrowable: list[str] = list(known.get("borrowed", ()))
        if datastore is None:
            self._own = list(blocks)
            return
        for cidr in self._own:
            if cidr not in blocks:
                blocks[cidr] = _new_block(cidr)
        for cidr, block in blocks.items():
            block["affinity"] = f"host:{self.node}" if cidr in self._own else None
            block["strictAffinity"] = self.strict_affinity
        self._reserve(known.get("reserved", {}))

    def _reserve(self, reserved: dict[str, str]) -> None:
        """Assign the node's own addresses; release those that it has no longer."""
        for prefix in TUNNELS:
            handle = f"{prefix}{self.node}"
            if self.held(handle) not in ([], [reserved.get(handle)]):
                self.release(handle)
        for handle, address in reserved.items():
            if self._holder(address) == handle:
                continue
            owner = {"node": self.node}
            kinds = [TUNNELS[prefix] for prefix in TUNNELS if handle.startswith(prefix)]
            if kinds:
                owner["type"] = kinds[0]
            if not self._take(address, {"handle_id": handle, "secondary": owner}):
                self.conflicts[address] = self._holder(address)

    def assign(self, handle: str, owner: dict[str, str], wanted: str = "") -> str:
        """Give an address: ``wanted`` if it is free, else the next one; empty when there is none.

        Args:
            handle: by which it is released.
            owner: the attributes that are kept with it.
            wanted: an address of an own block or a borrowed one.
        """
        attribute = {"handle_id": handle, "secondary": owner}
        free = self._free()
        if wanted:
            free = iter(sorted(free, key=lambda address: address != wanted))
        return next((address for address in free if self._take(address, attribute)), "")

    def _free(self) -> Iterator[str]:
        """What may be given, in order."""
        for cidr in self._own:
            first = _number(cidr.partition("/")[0])
            for index in list(self.blocks[cidr]["unallocated"]):
                if first + index not in self._lent:
                    yield _text(first + index)
        if not self.strict_affinity:
            yield from self._borrowable

    def _take(self, address: str, attribute: Attribute) -> bool:
        if self._holder(address):
            return False
        for cidr in self._own:
            index = ordinal(cidr, address)
            if index is not None:
                _allocate(self.blocks[cidr], index, attribute)
                return True
        if address not in self._borrowable:
            return False
        self.borrowed[address] = attribute
        return True

    def _holder(self, address: str) -> str:
        """The handle of an address, also in a block or on a loan that the node has no longer."""
        kept = [self.borrowed[address]] if address in self.borrowed else []
        for cidr, block in self.blocks.items():
            index = ordinal(cidr, address)
            if index is not None and block["allocations"][index] is not None:
                kept.append(block["attributes"][block["allocations"][index]])
        return str(kept[0]["handle_id"]) if kept else ""

    def held(self, handle: str) -> list[str]:
        """The addresses of a handle."""
        found = []
        for cidr, block in self.blocks.items():
            first = _number(cidr.partition("/")[0])
            for index, which in enumerate(block["allocations"]):
                if which is not None and block["attributes"][which]["handle_id"] == handle:
                    found.append(_text(first + index))
        return found + [
            address for address, kept in self.borrowed.items() if kept["handle_id"] == handle
        ]

    def release(self, handle: str) -> list[str]:
        """Release the addresses of a handle; they are given again when all others have been."""
        found = self.held(handle)
        for address in found:
            if self.borrowed.pop(address, None) is None:
                for cidr, block in self.blocks.items():
                    index = ordinal(cidr, address)
                    if index is not None:
                        block["allocations"][index] = None
                        block["unallocated"].append(index)
        for block in self.blocks.values():
            _forget_unused(block)
        return found

    def unused(self) -> list[str]:
        """Blocks that the node no longer has and that hold nothing any more."""
        return [
            cidr
            for cidr, block in self.blocks.items()
            if cidr not in self._own and not block["attributes"]
        ]


def _new_block(cidr: str) -> Block:
    size = 1 << 32 - int(cidr.partition("/")[2])
    return {
        "cidr": cidr,
        "affinity": "",
        "strictAffinity": False,
        "allocations": [None] * size,
        "attributes": [],
        "unallocated": list(range(size)),
        "deleted": False,
    }


def _allocate(block: Block, index: int, attribute: Attribute) -> None:
    if attribute not in block["attributes"]:
        block["attributes"].append(attribute)
    block["allocations"][index] = block["attributes"].index(attribute)
    block["unallocated"].remove(index)


def _forget_unused(block: Block) -> None:
    """Attributes are numbered anew when one of them is not referred to any more."""
    used = sorted({which for which in block["allocations"] if which is not None})
    if len(used) < len(block["attributes"]):
        fresh = {old: new for new, old in enumerate(used)}
        block["attributes"] = [block["attributes"][old] for old in used]
        block["allocations"] = [
            None if which is None else fresh[which] for which in block["allocations"]
        ]


def ordinal(cidr: str, address: str) -> int | None:
    """How far into a block an address lies; ``None`` when it is outside.

    Raises:
        ValueError: one of them is malformed.
    """
    first, _, length = cidr.partition("/")
    distance = _number(address) - _number(first)
    return distance if 0 <= distance < 1 << 32 - int(length) else None


def _number(address: str) -> int:
    octets = address.split(".")
    if len(octets) == 4 and all(each.isascii() and each.isdigit() for each in octets):
        numbers = [int(each) for each in octets]
        if max(numbers) <= 255:
            return numbers[0] << 24 | numbers[1] << 16 | numbers[2] << 8 | numbers[3]
    raise ValueError(f"invalid IP address: {address}")


def _text(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))
