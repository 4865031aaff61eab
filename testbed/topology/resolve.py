"""From what the files declare to a complete cluster, as a cluster's controllers would complete it.

Nodes get their pod CIDRs, every node gets its default pods, pods get their nodes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network

from testbed.topology import applications, ipam, names
from testbed.topology.declared import (
    Cidr,
    ContainerDeclaration,
    NodeDeclaration,
    PodDeclaration,
    PortDeclaration,
    Settings,
)
from testbed.topology.model import Cluster, ContainerPort, Node, Pod
from testbed.topology.pods import default_hostname
from testbed.topology.scheduling import Room, schedule
from testbed.topology.settings import MAX_PODS
from testbed.topology.source import Place, Problems, quote

__all__ = ["MAX_NODES", "Overrides", "resolve"]

MAX_NODES = 1023
"""Ports of a Linux bridge (BR_MAX_PORTS is 1024, and 0 is none): the underlay is one bridge."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says instead of the file; ``None`` leaves it to the file."""

    name: str | None = None
    nodes: int | None = None
    """Keep the first so many services, or go on with their naming."""
    pods_per_node: int | None = None


def resolve(
    settings: Settings,
    nodes: Sequence[NodeDeclaration],
    underlay: Cidr | None,
    pods: Sequence[PodDeclaration],
    overrides: Overrides,
    problems: Problems,
) -> Cluster:
    """Complete a topology.

    Raises:
        TopologyError: every problem found so far, by the readers or here.
    """
    settings = _overridden(settings, overrides, problems)
    kept = _kept(nodes, overrides, problems)
    dropped = [node.name for node in nodes[len(kept) :]]
    _check_names(settings, kept, overrides, problems)
    ipam.check_overlaps(filter(None, (settings.cluster, settings.service, underlay)), problems)
    if underlay:
        ipam.check_underlay(underlay, len(kept), problems)
    cluster_nodes = _nodes(settings, kept, problems)
    defaults = _default_pods(settings, cluster_nodes, problems)
    _check_unique(pods, defaults, problems)
    rooms = [Room(node.name, node.labels, node.pod_cidr) for node in cluster_nodes]
    every = (*pods, *defaults)
    where = schedule(every, rooms, problems, dropped) if rooms else {}
    problems.check()
    scheduled = tuple(pod.on(where[position]) for position, pod in enumerate(every))
    return _cluster(settings, cluster_nodes, scheduled, underlay)


def _cluster(
    settings: Settings, nodes: tuple[Node, ...], pods: tuple[Pod, ...], underlay: Cidr | None
) -> Cluster:
    """The model's value; a setting that was wrong has stopped loading before."""
    assert settings.cluster
    assert settings.service
    assert settings.node_cidr_mask is not None
    return Cluster(
        name=settings.name,
        cni=settings.cni,
        backend=settings.backend,
        cluster_cidr=settings.cluster.network,
        node_cidr_mask=settings.node_cidr_mask,
        service_cidr=settings.service.network,
        nodes=nodes,
        pods=pods,
        underlay=underlay.network if underlay else None,
    )


def _overridden(settings: Settings, overrides: Overrides, problems: Problems) -> Settings:
    if overrides.name is not None:
        if error := names.dns_label(overrides.name):
            problems.add(Place("--name"), error)
        else:
            settings = replace(settings, name=overrides.name)
    if overrides.pods_per_node is not None:
        place = Place("--pods-per-node")
        if not 0 <= overrides.pods_per_node <= MAX_PODS:
            problems.add(place, f"{overrides.pods_per_node} is out of range; use 0 to {MAX_PODS}")
        else:
            settings = replace(settings, default_pods=overrides.pods_per_node, pods_place=place)
    return settings


def _kept(
    nodes: Sequence[NodeDeclaration], overrides: Overrides, problems: Problems
) -> tuple[NodeDeclaration, ...]:
    """The first ``--nodes`` services, or all and more that continue their naming."""
    count = len(nodes) if overrides.nodes is None else overrides.nodes
    if not nodes:
        return ()
    if not 1 <= count <= MAX_NODES:
        place = nodes[0].place if overrides.nodes is None else Place("--nodes")
        problems.add(
            place,
            f"{count} nodes are out of range; use 1 to {MAX_NODES}, the ports of a Linux bridge",
        )
        return tuple(nodes[:MAX_NODES])
    added: list[NodeDeclaration] = []
    taken = {node.name for node in nodes}
    name = nodes[-1].name
    while len(nodes) + len(added) < count:
        name = _successor(name)
        if name not in taken:
            added.append(NodeDeclaration(name, Place("--nodes")))
    return (*nodes[:count], *added)


def _successor(name: str) -> str:
    """``node3`` → ``node4``, ``node09`` → ``node10``, ``worker`` → ``worker2`` as kind names it."""
    match = re.search(r"\d+$", name)
    if match is None:
        return f"{name}2"
    digits = match[0]
    return name[: match.start()] + str(int(digits) + 1).zfill(len(digits))


def _check_names(
    settings: Settings,
    nodes: Sequence[NodeDeclaration],
    overrides: Overrides,
    problems: Problems,
) -> None:
    for node in nodes:
        container = f"{settings.name}-{node.name}"
        if len(container) > 63 and names.dns_label(node.name) is None:
            problems.add(
                node.place if overrides.name is None else Place("--name"),
                f"the container of node {quote(node.name)} would be called {quote(container)}: "
                f"{len(container)} characters, but a host name has at most 63; shorten one name",
            )


def _nodes(
    settings: Settings, nodes: Sequence[NodeDeclaration], problems: Problems
) -> tuple[Node, ...]:
    """The nodes with their pod CIDRs; when there are none to give, a stand-in is given.

    So the pods are still checked, and their problems reported together with this one.
    """
    subnets = None
    if settings.cluster is not None and settings.node_cidr_mask is not None:
        mask, place = settings.node_cidr_mask, settings.mask_place
        subnets = ipam.allocate(settings.cluster, mask, place, nodes, problems)
    subnets = subnets or (IPv4Network("10.0.0.0/8"),) * len(nodes)
    return tuple(
        Node(node.name, index, subnet, {**node.labels, **_well_known(node.name)})
        for index, (node, subnet) in enumerate(zip(nodes, subnets, strict=True))
    )


def _well_known(node: str) -> dict[str, str]:
    return {"kubernetes.io/hostname": node, "kubernetes.io/os": "linux"}


def _default_pods(
    settings: Settings, nodes: Sequence[Node], problems: Problems
) -> tuple[PodDeclaration, ...]:
    count = settings.default_pods or 0
    for node in nodes:
        room = ipam.capacity(node.pod_cidr)
        if count > room:
            problems.add(
                settings.pods_place,
                f"{count} default pods do not fit on {node.name}: its pod CIDR {node.pod_cidr} "
                f"numbers {room} pods (the network, the bridge and the broadcast address take "
                "three); use fewer pods or a shorter node_cidr_mask",
            )
            return ()
    return tuple(
        _default_pod(f"netexec-{node.name}-{number}", node.name, settings.pods_place)
        for node in nodes
        for number in range(1, count + 1)
    )


def _default_pod(name: str, node: str, place: Place) -> PodDeclaration:
    image, argv = applications.resolve("netexec", (), ())
    ports = (ContainerPort(8080, "TCP", "http"), ContainerPort(8081, "UDP", "udp"))
    container = ContainerDeclaration(
        "netexec", image, argv, ports=tuple(PortDeclaration(port, place) for port in ports)
    )
    return PodDeclaration(
        place=place,
        namespace="default",
        name=name,
        containers=(container,),
        labels={"app": "netexec"},
        hostname=default_hostname(name),
        node=node,
    )


def _check_unique(
    pods: Sequence[PodDeclaration], defaults: Sequence[PodDeclaration], problems: Problems
) -> None:
    first: dict[str, PodDeclaration] = {}
    for pod in pods:
        other = first.setdefault(pod.key, pod)
        if other is not pod:
            problems.add(
                pod.place,
                f"pod {pod.key} exists twice: also at {other.place.file}:{other.place.line}; "
                "names are unique in a namespace: rename one",
            )
    for pod in defaults:
        if pod.key in first:
            problems.add(
                first[pod.key].place,
                f"pod {pod.key} has the name of a default pod; rename it, or write "
                "`default_pods: 0` under x-testbed",
            )
