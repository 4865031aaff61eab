"""From what the files declare to a complete cluster, as a cluster's controllers would complete it.

Nodes get their share of the pods' addresses, every node gets its default pods, pods get their
nodes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from testbed.topology import applications, ipam, names
from testbed.topology.allocation import complete
from testbed.topology.blocks import Holding
from testbed.topology.clients import placed
from testbed.topology.declared import (
    ClientDeclaration,
    ContainerDeclaration,
    Fabric,
    NodeDeclaration,
    PodDeclaration,
    PortDeclaration,
    RouterDeclaration,
    Settings,
)
from testbed.topology.manifests import Manifests
from testbed.topology.model import Client, Cluster, ContainerPort, Network, Node, Pod, Router
from testbed.topology.networks import check_routed, check_spoken
from testbed.topology.overrides import Overrides, overridden
from testbed.topology.pods import default_hostname
from testbed.topology.scheduling import Room, schedule
from testbed.topology.service import Service
from testbed.topology.shares import holdings, shares
from testbed.topology.slices import check_nodes
from testbed.topology.source import Place, Problems, quote

__all__ = ["MAX_NODES", "check_unique", "resolve"]

MAX_NODES = 1023
"""Ports of a Linux bridge (BR_MAX_PORTS is 1024, and 0 is none): every network is one."""


def resolve(
    settings: Settings,
    fabric: Fabric,
    manifests: Manifests,
    overrides: Overrides,
    problems: Problems,
) -> Cluster:
    """Complete a topology.

    Raises:
        TopologyError: every problem found so far, by the readers or here.
    """
    settings = overridden(settings, overrides, problems)
    check_routed(settings, fabric, problems)
    check_spoken(settings, problems)
    fabric = replace(fabric, clients=placed(settings.clients, fabric, problems))
    kept = _kept(fabric, overrides, problems)
    _check_names(settings, (*kept, *fabric.routers, *fabric.clients), overrides, problems)
    _check_addresses(settings, replace(fabric, nodes=kept), problems)
    rooms = [
        Room(node.name, {**node.labels, **_well_known(node.name)}, share)
        for node, share in zip(kept, shares(settings, kept, problems), strict=True)
    ]
    defaults = _default_pods(settings, rooms, problems)
    check_unique(manifests.pods, defaults, problems)
    every = (*manifests.pods, *defaults)
    where = schedule(every, rooms, problems, _absent(fabric, kept)) if rooms else {}
    taken = {room.name: (room.share, room.addresses) for room in rooms}
    held = holdings(settings, taken, problems)
    services: tuple[Service, ...] = ()
    if settings.service is not None:
        services = complete(manifests.services, settings.service.network, problems)
    check_nodes(manifests.slices, [room.name for room in rooms], problems)
    problems.check()
    scheduled = tuple(pod.on(where[position]) for position, pod in enumerate(every))
    cluster = _cluster(settings, replace(fabric, nodes=kept), held, scheduled)
    pieces = tuple(declared.slice for declared in manifests.slices)
    return replace(cluster, services=services, slices=pieces)


def _cluster(
    settings: Settings, fabric: Fabric, held: Mapping[str, Holding], pods: tuple[Pod, ...]
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
        nodes=tuple(
            Node(
                name=node.name,
                index=index,
                pod_cidrs=held[node.name].blocks,
                labels={**node.labels, **_well_known(node.name)},
                network=node.network,
                borrowed=held[node.name].borrowed,
            )
            for index, node in enumerate(fabric.nodes)
        ),
        pods=pods,
        networks=tuple(
            Network(each.name, each.subnet.network if each.subnet else None)
            for each in fabric.networks
        ),
        routers=tuple(
            Router(router.name, index, router.networks, router.as_number)
            for index, router in enumerate(fabric.routers)
        ),
        ipip=settings.ipip,
        proxy=settings.proxy,
        clients=tuple(
            Client(client.name, index, client.network, client.as_number)
            for index, client in enumerate(fabric.clients)
        ),
        load_balancer=settings.load_balancer,
    )


def _kept(fabric: Fabric, overrides: Overrides, problems: Problems) -> tuple[NodeDeclaration, ...]:
    """The first ``--nodes`` nodes, or all and more that continue their naming on their network."""
    nodes = fabric.nodes
    count = len(nodes) if overrides.nodes is None else overrides.nodes
    if not nodes:
        return ()
    others = len(fabric.routers) + len(fabric.clients)
    most = max(MAX_NODES - others, 0)
    if not 1 <= count <= most:
        place = nodes[0].place if overrides.nodes is None else Place("--nodes")
        what = "routers and clients" if fabric.clients else "routers"
        less = f" less {others} for {what}" if others else ""
        problems.add(
            place,
            f"{count} nodes are out of range; use 1 to {most}, the ports of a Linux bridge{less}",
        )
        return nodes[:most]
    added: list[NodeDeclaration] = []
    taken = {node.name for node in nodes} | {router.name for router in fabric.routers}
    taken |= {client.name for client in fabric.clients}
    name = nodes[-1].name
    while len(nodes) + len(added) < count:
        name = _successor(name)
        if name not in taken:
            added.append(NodeDeclaration(name, Place("--nodes"), network=nodes[-1].network))
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
    machines: Sequence[NodeDeclaration | RouterDeclaration | ClientDeclaration],
    overrides: Overrides,
    problems: Problems,
) -> None:
    for machine in machines:
        container = f"{settings.name}-{machine.name}"
        if len(container) > 63 and names.dns_label(machine.name) is None:
            kind = type(machine).__name__.removesuffix("Declaration").lower()
            problems.add(
                machine.place if overrides.name is None else Place("--name"),
                f"the container of {kind} {quote(machine.name)} would be called "
                f"{quote(container)}: {len(container)} characters, but a host name has at most 63; "
                "shorten one name",
            )


def _check_addresses(settings: Settings, fabric: Fabric, problems: Problems) -> None:
    subnets = (network.subnet for network in fabric.networks)
    ipam.check_overlaps(filter(None, (settings.cluster, settings.service, *subnets)), problems)
    ipam.check_underlay(fabric, problems)


def _absent(fabric: Fabric, kept: Sequence[NodeDeclaration]) -> dict[str, str]:
    """Why services of the file are no nodes."""
    routers = {router.name: "it is a router, which runs no pods" for router in fabric.routers}
    clients = {client.name: "it is a client, which runs no pods" for client in fabric.clients}
    dropped = fabric.nodes[len(kept) :]
    left_out = {node.name: f"--nodes {len(kept)} leaves it out" for node in dropped}
    return left_out | routers | clients


def _well_known(node: str) -> dict[str, str]:
    return {"kubernetes.io/hostname": node, "kubernetes.io/os": "linux"}


def _default_pods(
    settings: Settings, rooms: Sequence[Room], problems: Problems
) -> tuple[PodDeclaration, ...]:
    count = settings.default_pods or 0
    for room in rooms:
        if count > room.share.capacity:
            problems.add(
                settings.pods_place,
                f"{count} default pods do not fit on {room.name}: {room.share.reason}; use fewer "
                f"pods or {room.share.remedy}",
            )
            return ()
    return tuple(
        _default_pod(f"netexec-{room.name}-{number}", room.name, settings.pods_place)
        for room in rooms
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


def check_unique(
    pods: Sequence[PodDeclaration], defaults: Sequence[PodDeclaration], problems: Problems
) -> None:
    """Report pods whose name is another's, or a default pod's."""
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
