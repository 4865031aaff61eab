"""No encapsulation: a pod CIDR is routed to its node's own address, as flannel's host-gw does.

The nodes must share a layer 2 segment.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from testbed.dataplane import objects
from testbed.dataplane.spec import KernelObject
from testbed.dataplane.underlay import Underlay

__all__ = ["routes"]


def routes(
    remotes: Iterable[tuple[IPv4Network, IPv4Address]], underlay: Underlay
) -> tuple[KernelObject, ...]:
    """One route per remote ``(pod CIDR, node address)`` by the uplink."""
    return tuple(
        objects.route(pod_cidr, via=node_ip, device=underlay.device)
        for pod_cidr, node_ip in remotes
    )
