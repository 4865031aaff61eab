"""The network between the nodes, as planners see it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

__all__ = ["Underlay"]


@dataclass(frozen=True, slots=True)
class Underlay:
    """One layer 2 segment that carries every node's uplink."""

    subnet: IPv4Network
    device: str = "eth0"
    """The uplink's name inside every node."""
    mtu: int = 1500
    """Bytes, as ``ip link`` counts them (without the Ethernet header)."""
    identity: str = ""
    """The engine's own name for the network; empty in plans that are made without an engine."""

    @property
    def gateway(self) -> IPv4Address:
        """The first host address. Nobody answers there: it only makes a default route."""
        return self.subnet.network_address + 1

    def address_of(self, index: int) -> IPv4Address:
        """The uplink address of node number ``index`` (from 0): .2 for the first, as Docker does.

        Raises:
            ValueError: the subnet has no address left for it.
        """
        address = self.subnet.network_address + 2 + index
        if address >= self.subnet.broadcast_address:
            raise ValueError(f"underlay {self.subnet} has no address for node number {index + 1}")
        return address
