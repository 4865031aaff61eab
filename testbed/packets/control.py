"""Positive controls: when a capture without some packets proves that they were not there.

That nothing was seen is proof where something else was, under otherwise equal terms: the same
packets at another place, or other packets at the same place. Of those, packets that machines send
unasked do not count: a test whose ping never left would be content with a router solicitation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from testbed.packets.endpoints import Ends
from testbed.packets.packet import Packet, is_group

__all__ = ["Criterion", "NoControlError", "Recorded", "demand", "described"]


class NoControlError(AssertionError):
    """Nothing was captured, and nothing in the same capture shows that it would have been."""


class Criterion(NamedTuple):
    """One step of narrowing down."""

    words: str
    admits: Callable[[Packet], bool]
    interface: bool = False
    """Whether it asks where the packet was seen, not what it is."""
    ends: Ends | None = None
    """Who sends to whom, where it asks that."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A whole capture."""

    packets: tuple[Packet, ...]
    interfaces: tuple[str, ...]
    uplinks: frozenset[str]
    """Those of :attr:`interfaces` where the underlay is seen."""
    dropped: int = 0
    """Frames that the kernel could not hand to the capture."""


def described(criteria: Iterable[Criterion]) -> str:
    """All of them, as words that follow a noun."""
    return "".join(f" {each.words}" for each in criteria)


def demand(whole: Recorded, criteria: Sequence[Criterion]) -> None:
    """Make sure that a capture without such packets proves that there were none.

    Raises:
        NoControlError: it does not; the message says what to add.
    """
    __tracebackhide__ = True
    none = f"no packet{described(criteria)} was captured, but"
    if whole.dropped:
        raise NoControlError(
            f"{none} the kernel dropped {whole.dropped} frames: one of them may have been it"
        )
    places = [each for each in criteria if each.interface]
    kinds = [each for each in criteria if not each.interface]
    asked = (each for each in whole.packets if not _unasked(each))
    there = any(_admitted(each, places) for each in asked) if kinds else False
    elsewhere = any(_admitted(each, kinds) for each in whole.packets) if places else False
    if not there and not elsewhere:
        wanted = _wanted(whole, bool(places), bool(kinds))
        raise NoControlError(f"{none} this capture has no positive control: {wanted}")


def _wanted(whole: Recorded, places: bool, kinds: bool) -> str:
    if not whole.packets:
        return (
            "it holds no packet at all. Send something that must be seen in the same block, "
            "and capture that too."
        )
    if places and not kinds:
        return (
            "nothing was seen at any other interface either. Capture an interface that the "
            "packets do cross, such as the sender's own."
        )
    unasked = "ARP, groups and link-local addresses do not count"
    if not places:
        return (
            f"nothing else was seen either ({unasked}). Send something that must be seen in the "
            "same block."
        )
    return (
        f"neither did anything else appear at that interface ({unasked}), nor did such packets "
        "elsewhere. Send something that must cross it in the same block, or capture the sender's "
        "interface."
    )


def _unasked(packet: Packet) -> bool:
    """Whether machines send such packets by themselves, as to find neighbours and routers."""
    to = packet.innermost.destination
    if to is None or to.is_multicast or to.is_link_local:
        return True
    mac = packet.innermost.destination_mac
    return mac is not None and is_group(mac)


def _admitted(packet: Packet, criteria: Iterable[Criterion]) -> bool:
    return all(each.admits(packet) for each in criteria)
