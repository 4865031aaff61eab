"""VXLAN as flannel programs it: one VTEP a node, and per remote node one ARP, FDB and route entry.

Reproduces flannel's ``pkg/backend/vxlan``: no learning, no multicast, and the *network* address of
the node's pod CIDR as the VTEP's /32, so that a node's own traffic to remote pods has a source that
routes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from testbed.dataplane import objects
from testbed.dataplane.spec import KernelObject
from testbed.dataplane.underlay import Underlay

__all__ = ["OVERHEAD", "Vtep", "device", "peers"]

OVERHEAD = 50
"""Bytes: outer IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14."""


@dataclass(frozen=True, slots=True)
class Vtep:
    """What the other nodes must know of a node's tunnel endpoint."""

    underlay_ip: IPv4Address
    pod_cidr: IPv4Network
    mac: str


def device(
    name: str, own: Vtep, *, vni: int, port: int, mtu: int, underlay: Underlay
) -> tuple[KernelObject, ...]:
    """The VTEP link and its /32."""
    link = objects.vxlan(
        name,
        vni=vni,
        local=own.underlay_ip,
        device=underlay.device,
        port=port,
        mac=own.mac,
        mtu=mtu,
    )
    return link, objects.address(name, IPv4Interface((own.pod_cidr.network_address, 32)))


def peers(name: str, remotes: tuple[Vtep, ...]) -> tuple[KernelObject, ...]:
    """Neighbour, FDB and route entries of every remote; a route never precedes its neighbour."""
    neighbours = (
        objects.neighbour(name, vtep.pod_cidr.network_address, vtep.mac) for vtep in remotes
    )
    forwarding = (objects.fdb(name, vtep.mac, vtep.underlay_ip) for vtep in remotes)
    routes = (
        objects.route(vtep.pod_cidr, via=vtep.pod_cidr.network_address, device=name, onlink=True)
        for vtep in remotes
    )
    return (*neighbours, *forwarding, *routes)
