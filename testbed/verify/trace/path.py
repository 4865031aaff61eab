"""The way that a packet must take, and its reply, from the topology alone.

As with the oracle, no planner is asked. What is here of the kernel was measured by a packet socket
that hears every interface, in all namespaces:

* A bridge device sees only what it hands up or sends itself: frames between two of its ports pass
  it by, frames to the node's own MAC come in by the port and then by the bridge.
* A packet is at the tunnel's device before it is encapsulated and after it was decapsulated. With
  the eBPF driver for IP-in-IP, too, although it is redirected there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from testbed.errors import UsageError
from testbed.topology.model import Client, Cluster, Node, Router
from testbed.topology.places import there_is
from testbed.verify import oracle
from testbed.verify.observed import Observed
from testbed.verify.oracle import Encapsulation
from testbed.verify.trace.devices import UPLINK, Devices
from testbed.verify.trace.model import IN, OUT, Endpoint, ExpectedHop, Facts

__all__ = ["addressed", "endpoint", "expect", "hairpin"]

_Hops: TypeAlias = tuple[ExpectedHop, ...]
_Machine: TypeAlias = Node | Router | Client
_WIRE = "underlay crossing"
_NO_FACTS: Mapping[str, Facts] = MappingProxyType({})


def endpoint(cluster: Cluster, observed: Observed, text: str) -> Endpoint:
    """Find ``NODE``, ``ROUTER``, ``CLIENT`` or ``[NAMESPACE/]POD``; pods come last.

    A hostNetwork pod is its node.

    Raises:
        UsageError: there is none; the message lists them.
    """
    key = text if "/" in text else f"default/{text}"
    pod = next((pod for pod in cluster.pods if pod.key == key), None)
    if text in cluster.machines:
        return _machine(observed, text)
    if pod is None:
        raise UsageError(
            f"testbed {cluster.name!r} has no node, router, client or pod {text!r}.\n"
            f"{there_is(cluster)}"
        )
    if pod.host_network:
        return _machine(observed, pod.node)
    ip = observed.ip(pod.key)
    return Endpoint(pod.key, pod.node, "" if ip is None else str(ip), pod=True)


def _machine(observed: Observed, name: str) -> Endpoint:
    return Endpoint(name, name, str(observed.node_ips.get(name, "")), pod=False)


def expect(
    cluster: Cluster,
    observed: Observed,
    source: Endpoint,
    target: Endpoint,
    facts: Mapping[str, Facts] = _NO_FACTS,
) -> tuple[_Hops, _Hops]:
    """Every interface that a packet and its reply must cross, in order.

    Args:
        cluster: the topology.
        observed: names of veths, and addresses.
        source: who sends.
        target: who is to answer; of a router its address says on which network it is meant.
        facts: of routers, for the names of their interfaces.

    Returns:
        The hops of the request and of the reply. None where the topology demands no way: a router
        that speaks no BGP, for example, knows no pods.
    """
    if source.place == target.place:
        loop = _Path(source.place, source.node).by("lo", OUT).by("lo", IN).arrived()
        return loop, loop
    ways = _Ways(cluster, Devices(cluster, observed, facts))
    request = ways.between(source, target, tunnelled=target.pod)
    if not request:
        return (), ()
    masked = bool(cluster.backend.options.get("nat_outgoing", True))
    tunnelled = target.pod or (source.pod and not masked)
    sender = replace(source, ip="")  # a router sends from its address on the way, not from any
    return request, ways.between(target, sender, tunnelled=tunnelled)


def addressed(
    legs: tuple[_Hops, _Hops], source: Endpoint, target: Endpoint, *, masked: bool
) -> tuple[_Hops, _Hops]:
    """With the addresses that must stay: both between two pods, elsewhere the target pod's.

    A pod sends from its own; with ``masked``, its node hides that from other machines. A reply goes
    to whoever the request seemed to be from.
    """
    there, back = legs
    to = target.ip if target.pod else ""
    away = masked and source.pod and not target.pod and source.node != target.node

    def own(hop: ExpectedHop) -> str:
        return source.ip if source.pod and (target.pod or hop.place == source.place) else ""

    def hidden(hop: ExpectedHop) -> str:
        left = hop.node != source.node or (hop.interface, hop.direction) == (UPLINK, OUT)
        return source.ip if away and left and hop.place != source.place else ""

    return (
        tuple(
            replace(hop, source=own(hop), destination=to, masqueraded=hidden(hop)) for hop in there
        ),
        tuple(replace(hop, source=to) for hop in back),
    )


def hairpin(cluster: Cluster, observed: Observed, pod: Endpoint) -> _Hops:
    """Out of a pod and back into it: what its node gives it as its own address, and the reply."""
    devices = Devices(cluster, observed, _NO_FACTS)
    veth, forwarded = devices.veth(pod.place), "bridged" if devices.bridge else "routed"
    out = _out_of(_Path(pod.place, pod.node), pod, devices)
    back = out.by(veth, OUT, forwarded).at(pod.place, pod.node)
    return back.by(UPLINK, IN, "veth crossing").arrived()


def _out_of(path: _Path, pod: Endpoint, devices: Devices) -> _Path:
    """Into the pod's node, by the device that limits what it sends, if it has one."""
    path = path.by(UPLINK, OUT).at(pod.node).by(devices.veth(pod.place), IN, "veth crossing")
    shaper = devices.shaper(pod.place)
    return path.by(shaper, OUT, "shaped") if shaper else path


@dataclass(frozen=True, slots=True)
class _Path:
    """Hops so far, each with what was done to the packet to get there."""

    place: str
    """In whose namespace the next hop is."""
    node: str
    hops: _Hops = ()

    def at(self, place: str, node: str = "") -> _Path:
        """Go on in another namespace: a machine's, or that of a pod of ``node``."""
        return replace(self, place=place, node=node or place)

    def by(self, device: str, direction: str, what: str = "", how: Encapsulation = None) -> _Path:
        """Cross an interface."""
        hop = ExpectedHop(self.place, self.node, device, direction, how, what)
        return replace(self, hops=(*self.hops, hop))

    def arrived(self) -> _Hops:
        """All hops: at the first the packet is sent, at the last delivered."""
        first, *between, last = self.hops
        delivered = ", ".join(filter(None, (last.what, "delivered")))
        return (replace(first, what="sent"), *between, replace(last, what=delivered))


@dataclass(frozen=True, slots=True)
class _Ways:
    """How a packet gets from one end to another."""

    cluster: Cluster
    devices: Devices

    def between(self, source: Endpoint, target: Endpoint, *, tunnelled: bool) -> _Hops:
        """Every hop; none where the topology demands no way.

        ``tunnelled`` says whether tunnels lead to its destination address: a pod's, or that of the
        tunnel itself, from which a node sends into it. They do not to uplinks and routers.
        """
        path = _Path(source.place, source.node)
        if source.pod:
            path = self._left(path, source, target)
        if source.node != target.node:
            crossed = self._across(path, source, target, tunnelled=tunnelled)
            if crossed is None:
                return ()
            path = crossed
        return (self._entered(path, source, target) if target.pod else path).arrived()

    def _left(self, path: _Path, source: Endpoint, target: Endpoint) -> _Path:
        """Out of the source pod, into its node."""
        bridge = self.devices.bridge
        path = _out_of(path, source, self.devices)
        return path.by(bridge, IN, "bridged") if bridge and not _close(source, target) else path

    def _entered(self, path: _Path, source: Endpoint, target: Endpoint) -> _Path:
        """From the target's node into the target pod."""
        veth, bridge = self.devices.veth(target.place), self.devices.bridge
        path = path.at(target.node)
        if bridge and not _close(source, target):
            path = path.by(bridge, OUT, "routed")
        path = path.by(veth, OUT, "bridged" if bridge else "routed")
        return path.at(target.place, target.node).by(UPLINK, IN, "veth crossing")

    def _across(
        self, path: _Path, source: Endpoint, target: Endpoint, *, tunnelled: bool
    ) -> _Path | None:
        """From one machine to another; ``None``: there is no route."""
        here, there = self._machine(source), self._machine(target)
        if not isinstance(here, Node) and tunnelled and not self._learned(here, target):
            return None
        how: Encapsulation = None
        if tunnelled and isinstance(here, Node) and isinstance(there, Node):
            how = oracle.encapsulation(self.cluster, here, there)
        path = path.at(here.name)
        if how is not None:
            path = path.by(self.devices.tunnel, OUT, "routed")
        crossed = self._wired(path, here, there, target, how)
        if how is None or crossed is None:
            return crossed
        return crossed.by(self.devices.tunnel, IN, "decapsulated")

    def _wired(
        self, path: _Path, here: _Machine, there: _Machine, target: Endpoint, how: Encapsulation
    ) -> _Path | None:
        """Over the underlay: within one network, or by the first router that is on both."""
        device, done = self.devices.uplink, "encapsulated" if how else "routed"
        network = self._reached(here, there, target)
        if network in _networks(here):
            path = path.by(device(here, network), OUT, done, how)
            return path.at(there.name).by(device(there, network), IN, _WIRE, how)
        router = self._router(here, network)
        if router is None:
            return None
        (near,) = _networks(here)
        path = path.by(device(here, near), OUT, done, how)
        path = path.at(router.name).by(device(router, near), IN, _WIRE, how)
        if router is there:
            return path
        path = path.by(device(router, network), OUT, "routed", how)
        return path.at(there.name).by(device(there, network), IN, _WIRE, how)

    def _reached(self, here: _Machine, there: _Machine, target: Endpoint) -> str:
        """The network on which ``there`` has the address that ``here`` sends to."""
        known = self.devices.network(there, target.ip) if isinstance(there, Router) else ""
        shared = [each for each in _networks(there) if each in _networks(here)]
        # A router answers from, and is answered at, its address on the network that both are on.
        return known or next(iter(shared), _networks(there)[0])

    def _router(self, here: _Machine, network: str) -> Router | None:
        """A node's next hop to another network; routers know of none but their own."""
        if isinstance(here, Router):
            return None
        wanted = {here.network, network}
        return next((each for each in self.cluster.routers if wanted <= {*each.networks}), None)

    def _learned(self, machine: Router | Client, target: Endpoint) -> bool:
        """Whether a router or client has a route to a pod: BGP must tell it."""
        return (target.node, machine.name) in oracle.mesh(self.cluster)

    def _machine(self, end: Endpoint) -> _Machine:
        cluster = self.cluster
        machines: tuple[_Machine, ...] = (*cluster.nodes, *cluster.routers, *cluster.clients)
        return next(each for each in machines if each.name == end.node)


def _networks(machine: _Machine) -> tuple[str, ...]:
    return machine.networks if isinstance(machine, Router) else (machine.network,)


def _close(source: Endpoint, target: Endpoint) -> bool:
    """Whether both are pods of one node."""
    return source.pod and target.pod and source.node == target.node
