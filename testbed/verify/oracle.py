"""What the network must do, from the topology alone.

Shares no code with the planners that it judges, so that one mistake cannot pass on both sides. The
rules are Kubernetes' networking model (every pod reaches every pod without NAT, agents on a node
reach its pods) and each CNI's documented encapsulation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from testbed.topology.model import Cluster, Pod

__all__ = ["NODE", "Crossing", "Flow", "Vxlan", "crossings", "encapsulation", "flows"]

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
    encapsulation: Vxlan | None
    """``None``: the pods' packets as they are."""


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
    how = encapsulation(cluster)
    for source in first.values():
        for target in first.values():
            if source.node != target.node:
                yield Crossing(source.key, source.node, target.key, target.node, how)


def encapsulation(cluster: Cluster) -> Vxlan | None:
    """How pod packets between two nodes look on the underlay, all nodes being in one segment."""
    options = cluster.backend.options
    if cluster.backend.type == "vxlan" and not options.get("direct_routing"):
        return Vxlan(vni=int(options.get("vni", 1)), port=int(options.get("port", 8472)))
    return None
