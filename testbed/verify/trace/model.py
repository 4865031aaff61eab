"""What a trace is made of: the expected path, what was seen of the packet, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from testbed.packets.packet import Packet
from testbed.verify.oracle import Encapsulation

__all__ = [
    "CLUSTER_IP",
    "EXTERNAL_IP",
    "IN",
    "LOAD_BALANCER",
    "NODE_PORT",
    "OUT",
    "Diagnosis",
    "Endpoint",
    "Entrance",
    "Event",
    "ExpectedHop",
    "Facts",
    "Hop",
    "Leg",
    "Probe",
    "Service",
    "ServiceEndpoint",
    "Trace",
]

IN, OUT = "in", "out"
"""Directions as the interface's own network namespace sees them."""

CLUSTER_IP, NODE_PORT = "cluster-ip", "node-port"
LOAD_BALANCER, EXTERNAL_IP = "load-balancer", "external-ip"
"""By which kind of address a Service is asked."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a trace begins or ends."""

    place: str
    """A pod's key (``default/web``) or the name of a node or router."""
    node: str
    """The node that holds it; its own name for a node or router."""
    ip: str
    """Empty: it has none (the pod is gone)."""
    pod: bool
    """Whether it has a network namespace of its own within the node."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What is sent."""

    protocol: str
    """``icmp``, ``tcp`` or ``udp``."""
    ip: str
    """The destination address."""
    port: int = 0
    size: int = 56
    """Bytes of payload: ICMP's behind its 8 bytes of header, as ``ping -s`` counts, or UDP's."""
    dont_fragment: bool = False
    marker: str = ""
    """ASCII, repeated through the whole payload, so that every fragment holds it."""
    sequence: int = 0
    """TCP's initial sequence number, known once it was sent; NAT and encapsulation keep it. 0 for
    other protocols."""


@dataclass(frozen=True, slots=True)
class ExpectedHop:
    """One crossing of an interface that the topology demands."""

    place: str
    """The namespace: a pod's key or the name of a node or router."""
    node: str
    interface: str
    """The device: ``eth0``, ``vethca95d759``, ``flannel.1``."""
    direction: str
    encapsulation: Encapsulation = None
    """How the packet must look here."""
    what: str = ""
    """What is done to the packet here, in words: ``sent``, ``veth crossing``, ``shaped``,
    ``bridged``, ``routed``, ``encapsulated``, ``underlay crossing``, ``decapsulated``,
    ``delivered`` (several joined by comma)."""
    source: str = ""
    """The address from which the endpoint's packet must be here; empty: any."""
    destination: str = ""
    masqueraded: str = ""
    """The address that must be its source no longer; empty: none."""


@dataclass(frozen=True, slots=True)
class Event:
    """One sight of the packet: an interface saw it once."""

    place: str
    node: str
    interface: str
    direction: str
    packet: Packet
    """As seen there, so with its outer headers where it is encapsulated."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One numbered line of the walk."""

    number: int
    """From 1, through the request and then the reply."""
    event: Event
    happened: tuple[str, ...]
    """What was done to the packet on its way here: ``veth crossing``, ``DNATed 10.96.0.1:80 to
    10.244.1.2:8080``, …"""
    since_ns: int
    """Since the first hop of the trace."""
    expected: bool
    """Whether the model demands this hop at this point."""
    fragments: int = 1
    """How many frames made it up."""


@dataclass(frozen=True, slots=True)
class Leg:
    """The way there, or the way back."""

    expected: tuple[ExpectedHop, ...]
    observed: tuple[Hop, ...]
    divergence: int | None
    """Index in ``expected`` of the first hop that was not seen as it must be; ``None``: none."""
    complete: bool
    """Whether the packet was seen arriving at its end."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why the packet died."""

    cause: str
    """A stable word: one of :data:`testbed.verify.trace.diagnosis.CAUSES`."""
    leg: str
    """``request`` or ``reply``."""
    last: str
    """The last hop that saw it: ``node1/flannel.1``; empty: nothing saw it."""
    expected: str
    """The hop that should have come next: ``node1/eth0``."""
    place: str
    """Where the fault is: a node, router or pod key."""
    summary: str
    """One sentence: what killed it, where."""
    evidence: tuple[str, ...] = ()
    """Lines that prove it: a rule with its counter, a route, a counter before and after."""
    advice: str = ""
    """What to do about it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a node's kernel says of itself, before and after the probe, as the agent read it.

    ``before`` and ``after`` map a namespace (``""`` for the node's own, else a pod's key) to what
    :mod:`testbed.agent.facts` returns for it.
    """

    before: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    after: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """One endpoint of a Service, as EndpointSlices name it."""

    end: Endpoint
    port: int
    ready: bool
    """Whether any node must send there."""
    usable: bool
    """Whether the node by which it comes in must: of policy Local, only those that are its own."""

    def __str__(self) -> str:
        return f"{self.end.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Entrance:
    """What kube-proxy must do on one node with the packets of one sender for one portal."""

    node: str
    usable: tuple[str, ...]
    """Endpoints that it may give them: ``10.244.1.2:8080``."""
    keeps: bool | None
    """Whether they keep the sender's address; ``None``: that is not demanded."""
    firewalled: bool = False
    """Whether ``loadBalancerSourceRanges`` shut the sender out."""


@dataclass(frozen=True, slots=True)
class Service:
    """A Service as the target of a trace: one of its addresses is what the probe is sent to."""

    key: str
    """``namespace/name``."""
    cluster_ip: str
    protocol: str
    """The probe's."""
    port: int
    """The probe's; 0 for ICMP."""
    known: bool
    """Whether the Service has this port."""
    ports: tuple[str, ...]
    """Those that it has: ``80/tcp``."""
    mode: str
    """kube-proxy's, or ``none``."""
    local: bool
    """``internalTrafficPolicy: Local``."""
    endpoints: tuple[ServiceEndpoint, ...]
    translated: str = ""
    """What the node made of the destination: ``10.244.1.2:8080``; empty: nothing."""
    kind: str = CLUSTER_IP
    other_ip: str = ""
    """What is asked for, where that is not the cluster IP."""
    entrances: tuple[Entrance, ...] = ()
    """The nodes by which the packet may come in; none: no node takes it."""
    entered: str = ""
    """The one by which it came or, where that was not seen, by which it must."""
    external_local: bool = False
    """``externalTrafficPolicy: Local``."""

    @property
    def ip(self) -> str:
        """The address that is asked for."""
        return self.other_ip or self.cluster_ip

    @property
    def address(self) -> str:
        """What is asked for: ``10.96.0.10:80``, without a port for ICMP."""
        return f"{self.ip}:{self.port}" if self.port else self.ip

    @property
    def entrance(self) -> Entrance | None:
        """What must be done where it came in."""
        return next((each for each in self.entrances if each.node == self.entered), None)

    @property
    def usable(self) -> tuple[ServiceEndpoint, ...]:
        """Those that a packet which comes in there may be sent to."""
        return tuple(each for each in self.endpoints if each.usable)

    @property
    def chosen(self) -> ServiceEndpoint | None:
        """The usable endpoint that it was sent to."""
        return next((each for each in self.usable if str(each) == self.translated), None)

    @property
    def served(self) -> bool:
        """Whether it was given to whom it must be."""
        return self.chosen is not None


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything that one trace found."""

    testbed: str
    source: Endpoint
    target: Endpoint
    probe: Probe
    request: Leg
    reply: Leg
    answered: bool
    error: str
    """What the sender's socket said where no answer came; empty: nothing."""
    errors: tuple[Event, ...]
    """ICMP errors about the probe that were seen anywhere, in order."""
    diagnosis: Diagnosis | None
    """``None``: answered, and every hop was as expected."""
    strays: tuple[Event, ...] = ()
    """Sights of the packet in places where no expected hop is."""
    service: Service | None = None
    """What was asked for, where that was a Service; then ``target`` is the endpoint behind it."""
    conntrack: tuple[str, ...] = ()
    """The probe's entries on the node that translates, as ``conntrack -L`` prints them."""

    @property
    def ok(self) -> bool:
        """Whether the packet arrived and was answered, on the path that the topology demands."""
        served = self.service is None or self.service.served
        legs = self.request, self.reply
        return self.answered and served and all(leg.divergence is None for leg in legs)
