"""A node as its kube-proxy sees it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

__all__ = ["LARGE", "Vantage"]

LARGE = 1000
"""Endpoints above which kube-proxy writes iptables rules without comments."""


@dataclass(frozen=True, slots=True)
class Vantage:
    """What rules of one node depend on, besides Services and their endpoints."""

    node: str
    address: IPv4Address
    """The node's own, on the underlay."""
    cluster_cidr: IPv4Network
    """Packets from here are pods' (kube-proxy's ``detectLocalMode: ClusterCIDR``)."""
    service_cidr: IPv4Network
    large: bool = False
    """More than :data:`LARGE` endpoints in the cluster."""
