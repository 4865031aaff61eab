"""Which node a pod runs on.

A stand-in for kube-scheduler with its filters NodeName, NodeAffinity (``nodeSelector`` only),
NodePorts and, for pod addresses, NodeResourcesFit; of the nodes that remain, the one with the
fewest pods wins, the first of several. Pods with a ``nodeName`` are placed before all others, so
the result is the same at every load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from testbed.topology.declared import HostPort, PodDeclaration
from testbed.topology.shares import Share
from testbed.topology.source import Place, Problems, quote

__all__ = ["Room", "listed", "schedule"]

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True)
class Room:
    """A node while it fills."""

    name: str
    labels: Mapping[str, str]
    share: Share
    pods: int = 0
    addresses: int = 0
    """How many pods have an address of their own."""
    ports: dict[tuple[int, str], list[tuple[HostPort, str]]] = field(default_factory=dict)

    def place(self, pod: PodDeclaration) -> None:
        """Put ``pod`` here."""
        self.pods += 1
        self.addresses += not pod.host_network
        for wanted in pod.host_ports():
            self.ports.setdefault((wanted.port, wanted.protocol), []).append((wanted, pod.key))

    def missing_labels(self, pod: PodDeclaration) -> list[str]:
        """What the pod's ``nodeSelector`` asks for and this node is not."""
        wanted = pod.node_selector.items()
        return [f"{key}={value}" for key, value in wanted if self.labels.get(key) != value]

    def conflicts(self, pod: PodDeclaration) -> list[tuple[HostPort, HostPort, str]]:
        """Every port that the pod wants, the one that has it and that one's pod."""
        return [
            (wanted, taken, owner)
            for wanted in pod.host_ports()
            for taken, owner in self.ports.get((wanted.port, wanted.protocol), ())
            if wanted.conflicts(taken)
        ]

    def is_full(self, pod: PodDeclaration) -> bool:
        """Whether no address is left for the pod."""
        return not pod.host_network and self.addresses >= self.share.capacity

    def objection(self, pod: PodDeclaration) -> str | None:
        """Why the pod cannot run here, or None."""
        if missing := self.missing_labels(pod):
            return f"has no label {', '.join(missing)}"
        if conflicts := self.conflicts(pod):
            wanted, _, owner = conflicts[0]
            return f"port {wanted} is taken by pod {owner}"
        if self.is_full(pod):
            return f"no address is left in {self.share.source}"
        return None


def listed(names: Sequence[str], limit: int = 10) -> str:
    """``node1, node2, …``, cut to what one line bears."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, … ({len(names)} in all)"


def schedule(
    pods: Sequence[PodDeclaration],
    rooms: Sequence[Room],
    problems: Problems,
    absent: Mapping[str, str] = _NOTHING,
) -> dict[int, str]:
    """The node of every pod, by the pod's position; pods that fit nowhere are left out.

    ``absent`` says of names in the file why they are no nodes, as a clause for messages.
    """
    nodes = {room.name: room for room in rooms}
    chosen: dict[int, str] = {}
    overfull: set[str] = set()
    for position, pod in enumerate(pods):
        if pod.node is None:
            continue
        room = nodes.get(pod.node)
        if room is None:
            _report_unknown(pod, rooms, absent, problems)
            continue
        _report_pinned(pod, room, overfull, problems)
        room.place(pod)
        chosen[position] = room.name
    for position, pod in enumerate(pods):
        if pod.node is None:
            fitting = [room for room in rooms if room.objection(pod) is None]
            if fitting:
                room = min(fitting, key=lambda each: each.pods)
                room.place(pod)
                chosen[position] = room.name
            else:
                _report_unschedulable(pod, rooms, problems)
    return chosen


def _report_unknown(
    pod: PodDeclaration, rooms: Sequence[Room], absent: Mapping[str, str], problems: Problems
) -> None:
    nodes = listed([room.name for room in rooms])
    name = pod.node or ""
    problems.add(
        pod.node_place or pod.place,
        f"spec.nodeName: pod {pod.key} wants node {quote(name)}, but "
        f"{absent.get(name, 'there is no such node')}; the nodes are {nodes}",
    )


def _report_pinned(pod: PodDeclaration, room: Room, overfull: set[str], problems: Problems) -> None:
    place = pod.node_place or pod.place
    if missing := room.missing_labels(pod):
        problems.add(
            place,
            f"pod {pod.key}: nodeName says {room.name}, which its nodeSelector excludes (no label "
            f"{', '.join(missing)}); remove one of the two",
        )
    for wanted, taken, owner in room.conflicts(pod):
        problems.add(
            wanted.place,
            f"pod {pod.key}: port {wanted} of {room.name} is taken by pod {owner} "
            f"({_at(taken.place)}); choose another port or node",
        )
    if room.is_full(pod) and room.name not in overfull:
        overfull.add(room.name)
        problems.add(
            place,
            f"pod {pod.key} finds no address on {room.name}: {room.share.reason}; move pods or "
            f"use {room.share.remedy}",
        )


def _at(place: Place) -> str:
    return f"{place.file}:{place.line}" if place.line else place.file


def _report_unschedulable(pod: PodDeclaration, rooms: Sequence[Room], problems: Problems) -> None:
    reasons: dict[str, list[str]] = {}
    for room in rooms:
        reasons.setdefault(room.objection(pod) or "", []).append(room.name)
    why = "; ".join(f"{listed(names, 3)}: {reason}" for reason, names in reasons.items())
    problems.add(pod.place, f"pod {pod.key} fits on no node ({why}); change the pod or the nodes")
