"""Changing a cluster that runs by manifests: ``kubectl apply`` and ``kubectl delete``. Pure.

What a manifest names is made or replaced; the rest stays as it is. A Service keeps the addresses
and ports that were chosen for it, a pod its node, and a Deployment with more or fewer replicas the
pods that it still wants. Nodes keep their share of the pods' addresses, so new pods must find room
in it.

A cluster does not remember everything that an API server would: namespaces are those that
something is in, and Deployments are those that have pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from testbed.topology.allocation import complete
from testbed.topology.cnis import Traits
from testbed.topology.declared import (
    ContainerDeclaration,
    PodDeclaration,
    PortDeclaration,
    ServiceDeclaration,
)
from testbed.topology.manifests import NAMESPACES, Manifests, read_manifests
from testbed.topology.model import Cluster, Node, Pod
from testbed.topology.removal import deleted
from testbed.topology.resolve import check_unique
from testbed.topology.scheduling import Room, schedule
from testbed.topology.service import Service, ServicePort
from testbed.topology.shares import Share
from testbed.topology.slices import check_nodes
from testbed.topology.source import Place, Problems, Value

__all__ = ["applied", "deleted"]

_RUNNING = Place("running")
_NODE_CIDRS = Traits({})


def applied(
    cluster: Cluster, documents: Iterable[tuple[str, Value]], *, traits: Traits = _NODE_CIDRS
) -> Cluster:
    """The cluster after ``kubectl apply`` of the documents; ``traits`` are those of its CNI.

    Raises:
        TopologyError: every problem of the documents, or of what they make of the cluster.
    """
    problems = Problems()
    manifests = read_manifests(documents, problems, _namespaces(cluster))
    check_unique(manifests.pods, (), problems)
    check_nodes(manifests.slices, [node.name for node in cluster.nodes], problems)
    pods = _pods(cluster, manifests, traits, problems)
    services = _services(cluster, manifests.services, problems)
    problems.check()
    slices = {piece.key: piece for piece in cluster.slices}
    slices |= {each.slice.key: each.slice for each in manifests.slices}
    return replace(cluster, pods=pods, services=services, slices=tuple(slices.values()))


def _namespaces(cluster: Cluster) -> frozenset[str]:
    return (
        NAMESPACES
        | {pod.namespace for pod in cluster.pods}
        | {service.namespace for service in cluster.services}
        | {piece.namespace for piece in cluster.slices}
    )


def _pods(
    cluster: Cluster, manifests: Manifests, traits: Traits, problems: Problems
) -> tuple[Pod, ...]:
    wanted = {pod.key for pod in manifests.pods}
    owners = {deployment.key for deployment in manifests.deployments}
    before = {pod.key: pod for pod in cluster.pods}
    rooms = {node.name: _room(cluster, node, traits) for node in cluster.nodes}
    found: dict[str, Pod | None] = {}
    for pod in cluster.pods:
        if pod.key in wanted:
            found[pod.key] = None
        elif f"{pod.namespace}/{pod.owner}" not in owners:
            found[pod.key] = pod
            rooms[pod.node].place(_declaration(pod))
    declared = [_kept(pod, before.get(pod.key), rooms) for pod in manifests.pods]
    where = schedule(declared, list(rooms.values()), problems)
    found |= {
        declared[position].key: declared[position].on(node) for position, node in where.items()
    }
    return tuple(pod for pod in found.values() if pod is not None)


def _room(cluster: Cluster, node: Node, traits: Traits) -> Room:
    """The node without pods, with the addresses that it has had since it was made."""
    lent = sum(
        address in block
        for other in cluster.nodes
        for address in other.borrowed
        for block in node.pod_cidrs
    )
    size = sum(block.num_addresses for block in node.pod_cidrs) + len(node.borrowed) - lent
    own = int(cluster.backend.type in traits.tunnels) if traits.blocks else 3
    running = sum(not pod.host_network for pod in cluster.pods_on(node.name))
    capacity = max(size - own, running)
    source = ", ".join(str(block) for block in node.pod_cidrs)
    reason = f"the {source} that it has number {capacity} pods, and a running node gets no more"
    return Room(
        node.name,
        node.labels,
        Share(capacity, source, reason, "a topology with more addresses, and `testbed up`"),
    )


def _declaration(pod: Pod) -> PodDeclaration:
    """What of a running pod is in the way of others."""
    containers = tuple(
        ContainerDeclaration(
            *(each.name, each.image, each.argv),
            ports=tuple(PortDeclaration(port, _RUNNING) for port in each.ports),
        )
        for each in pod.containers
    )
    return PodDeclaration(
        _RUNNING, pod.namespace, pod.name, containers, host_network=pod.host_network
    )


def _kept(pod: PodDeclaration, before: Pod | None, rooms: Mapping[str, Room]) -> PodDeclaration:
    """The pod on the node where it is, if it still may be there."""
    if before is None or pod.node is not None or rooms[before.node].objection(pod):
        return pod
    return replace(pod, node=before.node)


def _services(
    cluster: Cluster, declared: Iterable[ServiceDeclaration], problems: Problems
) -> tuple[Service, ...]:
    before = {service.key: service for service in cluster.services}
    settled = [
        _inherited(each, before[each.service.key], problems) if each.service.key in before else each
        for each in declared
    ]
    own = {each.service.key for each in settled}
    others = [service for service in cluster.services if service.key not in own]
    new = complete(settled, cluster.service_cidr, problems, others)
    return tuple((before | {service.key: service for service in new}).values())


def _inherited(
    declared: ServiceDeclaration, before: Service, problems: Problems
) -> ServiceDeclaration:
    """What the manifest leaves open is as it was, as the API server has it."""
    service = declared.service
    asks = service.cluster_ip is not None or declared.headless
    if asks and service.cluster_ip != before.cluster_ip:
        problems.add(
            declared.ip_place or declared.place,
            f"spec.clusterIP of Service {service.key} is {before.cluster_ip}, and a Service keeps "
            "it for life; remove it here, or `testbed delete` the Service first",
        )
    headless = before.cluster_ip is None
    if headless and not asks and service.type != "ClusterIP":
        problems.add(
            declared.place,
            f"Service {service.key} is headless, so it cannot become type {service.type}; "
            "`testbed delete` it first",
        )
    balanced = service.type == before.type == "LoadBalancer"
    local = balanced and service.external_traffic_policy == "Local"
    ports = service.ports
    if declared.allocates_node_ports:
        ports = _with_node_ports(service, before)
    service = replace(
        service,
        cluster_ip=before.cluster_ip,
        ports=ports,
        load_balancer_ip=service.load_balancer_ip
        or (before.load_balancer_ip if balanced else None),
        health_check_node_port=service.health_check_node_port
        or (before.health_check_node_port if local else None),
    )
    return replace(declared, service=service, headless=headless)


def _with_node_ports(service: Service, before: Service) -> tuple[ServicePort, ...]:
    """Ports are recognized by their names, which may all else have changed."""
    asked = {port.node_port for port in service.ports}
    had = {port.name: port.node_port for port in before.ports if port.node_port not in asked}
    return tuple(
        replace(port, node_port=port.node_port or had.get(port.name)) for port in service.ports
    )
