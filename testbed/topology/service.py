"""Services and EndpointSlices, as frozen data.

Like those of :mod:`testbed.topology.model` the values are complete: defaults are filled in, and
addresses and ports that the API server and the cloud's controller would have chosen are chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

__all__ = ["Endpoint", "EndpointPort", "EndpointSlice", "Service", "ServicePort"]


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One entry of a Service's ``ports``."""

    port: int
    protocol: str = "TCP"
    """``TCP``, ``UDP`` or ``SCTP``."""
    name: str = ""
    """Empty only where the Service has a single port."""
    target_port: int | str = 0
    """A number, or the name of a container's port; never 0 after loading."""
    node_port: int | None = None
    """Chosen for types NodePort and LoadBalancer."""


@dataclass(frozen=True, slots=True)
class Service:
    """A Service of type ClusterIP, NodePort or LoadBalancer."""

    namespace: str
    name: str
    ports: tuple[ServicePort, ...]
    type: str = "ClusterIP"
    cluster_ip: IPv4Address | None = None
    """``None``: headless (``clusterIP: None``)."""
    selector: Mapping[str, str] = field(default_factory=dict)
    """Empty: its EndpointSlices are written by hand."""
    external_ips: tuple[IPv4Address, ...] = ()
    load_balancer_ip: IPv4Address | None = None
    """As in ``status.loadBalancer.ingress``; ``None`` for other types."""
    load_balancer_source_ranges: tuple[IPv4Network, ...] = ()
    """Empty: everybody."""
    session_affinity_seconds: int | None = None
    """Of ``sessionAffinity: ClientIP``; ``None``: no affinity."""
    external_traffic_policy: str = "Cluster"
    """Or ``Local``."""
    internal_traffic_policy: str = "Cluster"
    """Or ``Local``."""
    publish_not_ready_addresses: bool = False
    health_check_node_port: int | None = None
    """Chosen for type LoadBalancer with ``externalTrafficPolicy: Local``."""

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    def __str__(self) -> str:
        """As commands name it."""
        return f"svc/{self.key}"


@dataclass(frozen=True, slots=True)
class EndpointPort:
    """One entry of an EndpointSlice's ``ports``; ``name`` is that of the Service's port."""

    port: int
    protocol: str = "TCP"
    name: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One entry of an EndpointSlice's ``endpoints``, with its first address."""

    address: IPv4Address
    node: str = ""
    """``nodeName``; empty: it is on none, so it is local nowhere."""
    ready: bool = True
    serving: bool = True
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """An EndpointSlice of addressType IPv4."""

    namespace: str
    name: str
    service: str
    """Of its label ``kubernetes.io/service-name``."""
    ports: tuple[EndpointPort, ...]
    endpoints: tuple[Endpoint, ...]

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"
