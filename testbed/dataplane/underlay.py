"""The networks between the nodes, as planners see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.topology.model import Client, Cluster

__all__ = ["Segment", "Underlay"]


@dataclass(frozen=True, slots=True)
class Segment:
    """One layer 2 segment: a Docker bridge network."""

    subnet: IPv4Network
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

    def router_address(self, index: int) -> IPv4Address:
        """The address of router number ``index`` (from 0): the last host address for the first."""
        return self.subnet.broadcast_address - 1 - index


@dataclass(frozen=True, slots=True)
class Underlay:
    """Every segment by its name in the topology; a node's uplink is on exactly one."""

    segments: Mapping[str, Segment]
    device: str = "eth0"
    """The uplink's name inside every node."""

    @classmethod
    def single(cls, subnet: IPv4Network, mtu: int = 1500) -> Underlay:
        """One segment, called ``default``."""
        return cls({"default": Segment(subnet, mtu)})

    @property
    def subnets(self) -> dict[str, IPv4Network]:
        """The subnet of every segment by its name."""
        return {name: segment.subnet for name, segment in self.segments.items()}

    @property
    def mtu(self) -> int:
        """What passes between any two nodes."""
        return min(segment.mtu for segment in self.segments.values())

    def address_of(self, network: str, index: int) -> IPv4Address:
        """The uplink address of node number ``index`` of the topology, which is on ``network``.

        Raises:
            ValueError: the subnet has no address left for it.
        """
        return self.segments[network].address_of(index)

    def client_address(self, cluster: Cluster, client: Client) -> IPv4Address:
        """A client's address: counted down from the subnet's end, after the routers."""
        segment = self.segments[client.network]
        return segment.router_address(len(cluster.routers) + client.index)
