"""What kube-proxy makes rules of: every port of every Service, with its endpoints. Pure.

:func:`slices` is the endpoint slice controller: from selectors, pods' labels, readiness and
addresses to EndpointSlices. :func:`portals` is kube-proxy's own join of both
(``pkg/proxy/serviceport.go``, ``endpointslicecache.go``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from testbed.topology.model import Pod
from testbed.topology.service import Endpoint, EndpointPort, EndpointSlice, Service, ServicePort

__all__ = ["Portal", "Seen", "Target", "answers", "portals", "slices"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a pod that runs: its address, and whether it is ready."""

    address: IPv4Address
    ready: bool


@dataclass(frozen=True, slots=True)
class Target:
    """One endpoint of a portal."""

    address: IPv4Address
    port: int
    node: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False

    def __str__(self) -> str:
        """As kube-proxy names it: ``10.244.0.5:80``."""
        return f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Portal:
    """One port of a Service that has a cluster IP: a ``ServicePortMap`` entry of kube-proxy."""

    service: str
    """``namespace/name``."""
    port_name: str
    protocol: str
    """Lower case, as rules spell it."""
    cluster_ip: IPv4Address
    port: int
    targets: tuple[Target, ...] = ()
    """All endpoints, also those that are not ready, sorted by their text as kube-proxy sorts."""
    node_port: int | None = None
    external_ips: tuple[IPv4Address, ...] = ()
    load_balancer_ip: IPv4Address | None = None
    source_ranges: tuple[IPv4Network, ...] = ()
    affinity_seconds: int | None = None
    external_local: bool = False
    internal_local: bool = False
    health_check_node_port: int | None = None

    @property
    def name(self) -> str:
        """kube-proxy's ServicePortName: ``ns1/svc1:p80``, without a colon for a nameless port."""
        return f"{self.service}:{self.port_name}" if self.port_name else self.service

    @property
    def usable(self) -> tuple[Target, ...]:
        """The endpoints that get traffic under policy Cluster.

        Those that are ready; where none is, those that serve while they terminate.
        """
        return _preferred(self.targets)

    def local(self, node: str) -> tuple[Target, ...]:
        """The endpoints on ``node`` that get traffic under policy Local."""
        return _preferred([target for target in self.targets if target.node == node])

    @property
    def external(self) -> bool:
        """Whether anything outside the cluster can reach it."""
        return bool(self.node_port or self.external_ips or self.load_balancer_ip)


def _preferred(targets: Sequence[Target]) -> tuple[Target, ...]:
    ready = tuple(target for target in targets if target.ready)
    return ready or tuple(each for each in targets if each.serving and each.terminating)


def answers(portals: Iterable[Portal], node: str) -> bool:
    """Whether somebody answers what comes to ``node`` from outside for a Service with these."""
    return any(portal.local(node) if portal.external_local else portal.usable for portal in portals)


def slices(
    services: Iterable[Service], pods: Sequence[Pod], seen: Mapping[str, Seen]
) -> tuple[EndpointSlice, ...]:
    """The slices of Services with selectors; pods without an address are left out.

    One slice for each set of ports that pods resolve the Service's ports to: a named target port
    may be another number in another pod.
    """
    found: list[EndpointSlice] = []
    for service in services:
        if service.selector:
            found += _slices(service, pods, seen)
    return tuple(found)


def _slices(
    service: Service, pods: Sequence[Pod], seen: Mapping[str, Seen]
) -> Iterator[EndpointSlice]:
    by_ports: dict[tuple[EndpointPort, ...], list[Endpoint]] = {}
    for pod in pods:
        known = seen.get(pod.key)
        if known is None or pod.namespace != service.namespace or not _selected(service, pod):
            continue
        ports = tuple(_resolved(service.ports, pod))
        ready = known.ready or service.publish_not_ready_addresses
        endpoint = Endpoint(known.address, pod.node, ready, known.ready)
        by_ports.setdefault(ports, []).append(endpoint)
    for number, (ports, endpoints) in enumerate(by_ports.items(), start=1):
        name = f"{service.name}-{number}"
        yield EndpointSlice(service.namespace, name, service.name, ports, tuple(endpoints))


def _selected(service: Service, pod: Pod) -> bool:
    return all(pod.labels.get(key) == value for key, value in service.selector.items())


def _resolved(ports: Iterable[ServicePort], pod: Pod) -> Iterator[EndpointPort]:
    """A port whose target's name the pod does not have is left out, as the controller does."""
    for port in ports:
        if isinstance(port.target_port, int):
            yield EndpointPort(port.target_port, port.protocol, port.name)
            continue
        for container in pod.containers:
            for each in container.ports:
                if (each.name, each.protocol) == (port.target_port, port.protocol):
                    yield EndpointPort(each.container_port, port.protocol, port.name)


def portals(
    services: Iterable[Service], slices: Iterable[EndpointSlice]
) -> dict[str, tuple[Portal, ...]]:
    """Service ``namespace/name`` → its portals; headless Services have none. Sorted by key."""
    targets: dict[tuple[str, str, str], dict[str, Target]] = {}
    for piece in slices:
        for port in piece.ports:
            way = (f"{piece.namespace}/{piece.service}", port.name, port.protocol)
            known = targets.setdefault(way, {})
            for each in piece.endpoints:
                target = Target(
                    *(each.address, port.port, each.node),
                    *(each.ready, each.serving, each.terminating),
                )
                known[str(target)] = target
    return {
        service.key: tuple(_portal(service, port, targets) for port in service.ports)
        for service in sorted(services, key=lambda each: each.key)
        if service.cluster_ip is not None
    }


def _portal(
    service: Service, port: ServicePort, targets: Mapping[tuple[str, str, str], dict[str, Target]]
) -> Portal:
    found = targets.get((service.key, port.name, port.protocol), {})
    assert service.cluster_ip is not None
    return Portal(
        service=service.key,
        port_name=port.name,
        protocol=port.protocol.lower(),
        cluster_ip=service.cluster_ip,
        port=port.port,
        targets=tuple(found[text] for text in sorted(found)),
        node_port=port.node_port,
        external_ips=service.external_ips,
        load_balancer_ip=service.load_balancer_ip,
        source_ranges=service.load_balancer_source_ranges,
        affinity_seconds=service.session_affinity_seconds,
        external_local=service.external_traffic_policy == "Local",
        internal_local=service.internal_traffic_policy == "Local",
        health_check_node_port=service.health_check_node_port,
    )
