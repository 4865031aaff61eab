"""What the loader must know of a CNI: its backends with their options, and who numbers its pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Cnis", "OptionType", "Traits"]

OptionType: TypeAlias = type | tuple[str, ...]
"""``int``, ``bool`` or ``str``, or the words that are allowed (the first is the default)."""


@dataclass(frozen=True, slots=True)
class Traits:
    """A CNI as topologies see it."""

    backends: Mapping[str, Mapping[str, OptionType]]
    """Backend type → option → its type; the first backend is the default."""
    blocks: bool = False
    """Whether it numbers pods from IPAM blocks of its own (Calico) and not from the node's CIDR."""
    tunnels: frozenset[str] = frozenset()
    """With blocks: the backends whose tunnel takes an address of the node's first block."""
    routed: frozenset[str] = frozenset()
    """Backends that work over several networks with a router between them."""
    bgp: frozenset[str] = frozenset()
    """Backends whose nodes speak BGP."""


Cnis: TypeAlias = Mapping[str, Traits]
"""CNI name → its traits."""
