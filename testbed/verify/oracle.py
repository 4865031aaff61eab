"""What the network must do, from the topology alone.

Shares no code with the planners that it judges, so that one mistake cannot pass on both sides. The
rules are Kubernetes' networking model (every pod reaches every pod without NAT, agents on a node
reach its pods) and each CNI's documented encapsulation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from testbed.topology.model import Cluster, Node, Pod

__all__ = [
    "NODE",
    "Crossing",
    "Encapsulation",
    "Flow",
    "Ipip",
    "Vxlan",
    "Wireguard",
    "crossings",
    "encapsulation",
    "encapsulations",
    "flows",
    "mesh",
]

NODE = ""
"""The source of a flow that starts at the node itself, as a kubelet's probe does."""


@dataclass(frozen=True, slots=True)
class Vxlan:
    """Frames inside UDP; ``port`` is the outer destination port."""

    vni: int
    port: int

    def __str__(self) -> str:
        return f"VXLAN VNI {self.vni}, UDP {self.port}"


@dataclass(frozen=True, slots=True)
class Ipip:
    """Packets inside IPv4, protocol 4."""

    def __str__(self) -> str:
        return "IP-in-IP (protocol 4)"


@dataclass(frozen=True, slots=True)
class Wireguard:
    """Encrypted packets inside UDP: what is inside cannot be seen, only that it is not plain."""

    port: int

    def __str__(self) -> str:
        return f"WireGuard, UDP {self.port}"


Encapsulation: TypeAlias = Vxlan | Ipip | Wireguard | None
"""``None``: the pods' packets as they are."""


@dataclass(frozen=True, slots=True)
class Flow:
    """``source`` must reach ``target``; both are pod keys, or the source is :data:`NODE`."""

    node: str
    source: str
    target: str
    preserved: bool
    """Whether the target must see the source pod's own address."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A flow between two nodes, and how its packets must look on the underlay."""

    source: str
    source_node: str
    target: str
    target_node: str
    encapsulation: Encapsulation


def flows(cluster: Cluster) -> Iterator[Flow]:
    """Every ordered pair of pods, and every node to its own pods."""
    for source in cluster.pods:
        for target in cluster.pods:
            if source is not target:
                preserved = not source.host_network and not target.host_network
                yield Flow(source.node, source.key, target.key, preserved)
    for pod in cluster.pods:
        if not pod.host_network:
            yield Flow(pod.node, NODE, pod.key, preserved=False)


def crossings(cluster: Cluster, ended: Collection[str] = ()) -> Iterator[Crossing]:
    """One flow per ordered pair of nodes that both hold a pod with an address of its own.

    ``ended`` are keys of pods that have done their work and do not answer.
    """
    first: dict[str, Pod] = {}
    for pod in cluster.pods:
        if not pod.host_network and pod.key not in ended:
            first.setdefault(pod.node, pod)
    for source in first.values():
        for target in first.values():
            if source.node != target.node:
                how = encapsulation(cluster, cluster.node(source.node), cluster.node(target.node))
                yield Crossing(source.key, source.node, target.key, target.node, how)


_VXLAN_DEFAULTS = {"flannel": (1, 8472), "calico": (4096, 4789)}
"""VNI and UDP port."""
_WIREGUARD_PORT = 51820


def encapsulation(cluster: Cluster, source: Node, target: Node) -> Encapsulation:
    """How pod packets between two nodes look on the underlay, as each CNI documents it.

    flannel's DirectRouting and Calico's CrossSubnet leave packets plain within a network.
    """
    options = cluster.backend.options
    within = source.network == target.network
    if within and (options.get("direct_routing") or options.get("mode") == "CrossSubnet"):
        return None
    match cluster.backend.type:
        case "vxlan":
            vni, port = _VXLAN_DEFAULTS[cluster.cni]
            return Vxlan(int(options.get("vni", vni)), int(options.get("port", port)))
        case "ipip":
            return Ipip()
        case "wireguard":
            return Wireguard(int(options.get("port", _WIREGUARD_PORT)))
    return None


def encapsulations(cluster: Cluster) -> tuple[Encapsulation, ...]:
    """Every way of :func:`encapsulation` that occurs between two nodes, each once."""
    nodes = cluster.nodes
    ways = (encapsulation(cluster, a, b) for a in nodes for b in nodes if a is not b)
    return tuple(dict.fromkeys(ways))


def mesh(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """The BGP sessions that must be established: ``(node, peer)``, both ends of each.

    Calico's node-to-node mesh, and every node with the routers and clients of its network that have
    an AS. With VXLAN, Calico's manifests run without BGP.
    """
    if cluster.cni != "calico" or cluster.backend.type == "vxlan":
        return
    for node in cluster.nodes:
        yield from ((node.name, peer.name) for peer in cluster.nodes if peer is not node)
        for router in cluster.routers:
            if router.as_number is not None and node.network in router.networks:
                yield node.name, router.name
        for client in cluster.clients:
            if client.as_number is not None and node.network == client.network:
                yield node.name, client.name
