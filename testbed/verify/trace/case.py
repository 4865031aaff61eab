"""A probe that died, or went astray, and everything that is known about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, NamedTuple

from testbed.packets.packet import UDP, Packet
from testbed.verify.observed import Observed
from testbed.verify.oracle import Ipip, Vxlan
from testbed.verify.trace.devices import shapes
from testbed.verify.trace.facts import Space, space_of
from testbed.verify.trace.happened import turned
from testbed.verify.trace.model import (
    Endpoint,
    ExpectedHop,
    Facts,
    Hop,
    Leg,
    Probe,
    Service,
)
from testbed.verify.trace.walk import Walk, crosses, tunnel

__all__ = ["Case", "Finding", "Question", "Scene", "came", "scene", "shapers"]


class Question(NamedTuple):
    """One for the kernel's routing: ``ip route get TO [from SOURCE iif INTERFACE]``."""

    node: str
    space: str
    """``""`` for the node itself, else a pod's key."""
    to: str
    source: str = ""
    interface: str = ""
    """Where the packet came in; empty: it is the namespace's own."""


class Finding(NamedTuple):
    """A cause that holds."""

    weight: int
    """The heaviest finding is the verdict."""
    cause: str
    place: str
    summary: str
    evidence: tuple[str, ...] = ()
    advice: str = ""
    leg: str = ""
    """Of the packet that it concerns; empty: the scene's."""


@dataclass(frozen=True, slots=True)
class Case:
    """What :mod:`testbed.verify.trace.diagnosis` judges."""

    probe: Probe
    source: Endpoint
    target: Endpoint
    walk: Walk
    observed: Observed
    facts: Mapping[str, Facts]
    """By node or router, which is in it only if it runs and answered."""
    answered: bool = False
    error: str = ""
    """What the sender's socket said."""
    answers: Mapping[Question, Mapping[str, Any]] = field(default_factory=dict)
    """``{"route": [...], "error": "..."}`` to each of ``diagnosis.questions``."""
    service: Service | None = None
    """Where the target is what a Service leads to."""
    silent: Mapping[str, str] = field(default_factory=dict)
    """Node that runs, but whose agent did not answer → why: what happened there is not known."""

    @property
    def port(self) -> int:
        """Of the target: behind a Service it may be another than the probe's."""
        chosen = self.service.chosen if self.service else None
        return chosen.port if chosen else self.probe.port

    def space(self, place: str) -> Space:
        """The facts of a place."""
        return space_of(self.facts, self.node(place), place)

    def node(self, place: str) -> str:
        """The node that holds a place."""
        for endpoint in (self.source, self.target):
            if endpoint.place == place:
                return endpoint.node
        hops = (*self.walk.request.expected, *self.walk.reply.expected)
        return next((hop.node for hop in hops if hop.place == place), place)

    def address(self, node: str) -> str:
        """Of a node on the underlay; empty: it does not run."""
        return str(self.observed.node_ips.get(node, ""))

    def owner(self, address: str) -> str:
        """The node or router that has an address; empty: none is known to."""
        for node, known in self.observed.node_ips.items():
            if str(known) == address:
                return node
        return next((node for node in self.facts if self.space(node).owns(address)), "")

    def repair(self, place: str) -> str:
        """How to have again what a place's CNI installed there."""
        node = self.node(place)
        if place == node:
            return "`testbed up` puts back what it installed"
        return f"restart {node}'s container: at boot it attaches its pods anew"

    def answer(self, question: Question) -> tuple[Mapping[str, Any], str]:
        """The route that the kernel took, and what it said where it took none."""
        answer = self.answers.get(question, {})
        return next(iter(answer.get("route") or ()), {}), str(answer.get("error", ""))


@dataclass(frozen=True, slots=True)
class Scene:
    """Where it happened: between two hops that must follow each other."""

    role: str
    """``request`` or ``reply``."""
    leg: Leg
    last: ExpectedHop | None
    """The hop up to which all was as it must be; ``None``: not even the first was seen."""
    next: ExpectedHop | None
    """The first that was not; ``None``: the packet arrived, and nothing came of it."""
    index: int
    """Of ``next`` in the expected path."""
    packet: Packet | None
    """As ``last`` saw it; what is for a Service as its node goes on with it."""
    where: str
    """The place that had the packet last, or had to send it."""
    otherwise: Hop | None = None
    """Where ``next`` saw it, but not as it must be."""

    @property
    def places(self) -> tuple[str, ...]:
        """Where it can have died: one place, or the two ends of a link."""
        names = (self.where, self.next.place if self.next else self.where)
        return tuple(dict.fromkeys(names))

    @property
    def routed(self) -> bool:
        """Whether ``where`` had to choose a route for it here."""
        if self.next is None or self.next.direction != "out" or self.next.place != self.where:
            return False
        return self.last is None or (
            self.last.direction == "in"
            and "bridged" not in self.next.what
            and not shapes(self.next)
        )

    @property
    def encapsulates(self) -> bool:
        """Whether ``where`` had to put an encapsulation on here."""
        return (
            self.last is not None
            and self.next is not None
            and self.last.place == self.next.place
            and self.last.encapsulation is None
            and self.next.encapsulation is not None
        )

    @property
    def decapsulator(self) -> str:
        """The node at the end of the tunnel that begins, or is under way, at ``next``."""
        return tunnel(self.leg.expected, self.index)[1] if self.next else ""

    def forms(self, case: Case) -> Iterator[Packet]:
        """Every header that the packet has or had to get here, for rules to match."""
        layer = self.packet
        while layer is not None:
            yield layer
            layer = layer.inner
        if self.packet is not None and self.role == "request" and case.service is not None:
            for each in case.service.usable:
                to = IPv4Address(each.end.ip)
                yield self.packet.innermost._replace(destination=to, destination_port=each.port)
        pod, other = case.source.pod, not case.target.pod
        if (
            self.packet
            and self.role == "reply"
            and pod
            and other
            and self.where == case.source.node
        ):
            masked = case.observed.node_ips.get(self.where)
            yield self.packet.innermost._replace(destination=masked)  # as it came in
        how = self.next.encapsulation if self.next else None
        if self.next is None or how is None:
            return
        ends = [case.observed.node_ips.get(node) for node in tunnel(self.leg.expected, self.index)]
        outer = Packet(source=ends[0], destination=ends[1], ttl=64)
        if isinstance(how, Ipip):
            yield outer._replace(protocol=4)
        else:
            port = how.port
            source_port = None if isinstance(how, Vxlan) else port
            yield outer._replace(protocol=UDP, source_port=source_port, destination_port=port)


def scene(case: Case) -> Scene | None:
    """Where to look; ``None``: answered, and every hop was as expected."""
    request, reply = case.walk.request, case.walk.reply
    if case.answered:
        for role, leg in (("request", request), ("reply", reply)):
            if leg.divergence is not None:
                return _at(case, role, leg, leg.divergence)
        misled = case.service is not None and not case.service.served
        return _at(case, "request", request, len(request.expected)) if misled else None
    if not request.complete:
        wanted = len(request.expected) if request.divergence is None else request.divergence
        return _at(case, "request", request, wanted)
    if reply.complete:
        return _arrived(case.source.place, reply, reply)
    if not reply.observed:
        if request.divergence is not None and case.source.place == case.target.place:
            return _at(case, "request", request, request.divergence)
        return _arrived(case.target.place, request, reply)
    return _at(case, "reply", reply, reply.divergence or 0)


def _at(case: Case, role: str, leg: Leg, index: int) -> Scene:
    sender = case.source if role == "request" else case.target
    last = came(leg.expected[:index])
    next_ = leg.expected[index] if index < len(leg.expected) else None
    seen = [
        hop
        for hop in leg.observed
        if last is not None and hop.expected and crosses(hop.event, last)
    ]
    packet = seen[0].event.packet if seen else None
    if packet is None and role == "reply" and case.walk.request.observed:
        packet = turned(case.walk.request.observed[-1].event.packet.innermost)
    otherwise = next(
        (hop for hop in leg.observed if next_ and not hop.expected and crosses(hop.event, next_)),
        None,
    )
    where = last.place if last else sender.place
    if packet is not None:
        translated = _translated if role == "request" else _unmasked
        packet = translated(case, where, packet)
    return Scene(role, leg, last, next_, index, packet, where, otherwise)


def _translated(case: Case, where: str, packet: Packet) -> Packet:
    """A packet to a Service as the node goes on with it that translates it: to the endpoint."""
    service = case.service
    if service is None or packet.inner or where != service.entered:
        return packet
    if str(packet.destination) != service.ip:
        return packet
    to, port = IPv4Address(case.target.ip or service.ip), case.port or None
    return packet._replace(destination=to, destination_port=port)


def _unmasked(case: Case, where: str, packet: Packet) -> Packet:
    """A reply as the node goes on with it that masqueraded the request: to the pod."""
    masked = case.source.pod and case.service is None and where == case.source.node
    if not masked or packet.inner or str(packet.destination) != case.address(where):
        return packet
    return packet._replace(destination=IPv4Address(case.source.ip))


def _arrived(place: str, last_leg: Leg, reply: Leg) -> Scene:
    hops = last_leg.observed
    packet = hops[-1].event.packet if hops else None
    return Scene("reply", reply, came(last_leg.expected), None, 0, packet, place)


def came(hops: Sequence[ExpectedHop]) -> ExpectedHop | None:
    """The last of some hops; to its node, what a shaper delayed is as if from the veth before."""
    taken = hops[:-1] if hops and shapes(hops[-1]) else hops
    return taken[-1] if taken else None


def shapers(case: Case, scene: Scene) -> Iterator[tuple[ExpectedHop, str]]:
    """What shapes limited pods' packets on the nodes of a scene, and the pod of each.

    Of both legs: a request does not go where the answers to ARP must come from.
    """
    nodes = {case.node(place) for place in scene.places}
    for leg in (case.walk.request, case.walk.reply):
        for sent, hop in zip(leg.expected, leg.expected[2:], strict=False):
            if shapes(hop) and hop.node in nodes:
                yield hop, sent.place
