"""The way that a packet for a Service must take: to the node that translates it, and on from there.

Every interface on it follows once the endpoint is known that it got: as to the node, and then as
from there to the endpoint. kube-proxy's planners are not asked, as they are not for other paths.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from testbed.topology.model import Cluster
from testbed.verify.observed import Observed
from testbed.verify.trace import entrance, path
from testbed.verify.trace.correlation import Sight
from testbed.verify.trace.devices import Devices, enters, shapes
from testbed.verify.trace.model import IN, OUT, Endpoint, ExpectedHop, Facts, Service
from testbed.verify.trace.model import ServiceEndpoint as Behind

__all__ = ["expect"]

_Hops: TypeAlias = tuple[ExpectedHop, ...]
_Legs: TypeAlias = tuple[_Hops, _Hops]


def expect(
    cluster: Cluster,
    observed: Observed,
    source: Endpoint,
    service: Service,
    facts: Mapping[str, Facts],
    sights: tuple[Collection[Sight], Collection[Sight]] = ((), ()),
) -> tuple[Endpoint, _Legs]:
    """Who is to answer, and every interface that the packet and its reply must cross.

    Where nothing answers, the node that it enters is the end of the way: it rejects or drops the
    packet, and the place is named after the Service.

    Args:
        cluster: the topology.
        observed: names of veths, and addresses.
        source: who sends.
        service: entered, and with what the node there made of the destination.
        facts: of routers, for the names of their interfaces.
        sights: of the request and of the reply. They only tell whether a bridge, translating from
            one of its ports to another, asked its neighbour table by its own device (where the MAC
            is not known to be right: ``br_nf_pre_routing_finish_bridge``) or went past it.
    """
    behind = service.chosen or (
        next(iter(service.usable), None) if service.known and service.mode != "none" else None
    )
    if not service.entered:
        return Endpoint(f"svc/{service.key}", source.node, service.ip, pod=False), ((), ())
    node = path.endpoint(cluster, observed, service.entered)
    into = path.expect(cluster, observed, source, node, facts)
    if behind is None:
        nobody = Endpoint(f"svc/{service.key}", node.node, service.ip, pod=False)
        return nobody, (_unserved(source, service, into[0]), ())
    if behind.end.node not in {each.name for each in cluster.nodes}:
        return behind.end, ((), ())  # a foreign address: the topology knows no way there
    if source.node != service.entered:
        onward = path.expect(cluster, observed, node, behind.end, facts)
        return behind.end, _through(cluster, observed, source, behind, service, into, onward)
    legs = _own(cluster, observed, source, behind.end, node, service, facts)
    legs = _addressed(legs, source, behind, service)
    if source.pod and behind.end.pod and source.node == behind.end.node:
        bridge = Devices(cluster, observed, facts).bridge
        there = legs[0] if service.mode == "ipvs" else _asking(legs[0], bridge, sights[0])
        legs = there, _asking(legs[1], bridge, sights[1])
    return behind.end, legs


def _unserved(source: Endpoint, service: Service, into: _Hops) -> _Hops:
    """Up to where kube-proxy rejects or drops it; a node's own packet is seen nowhere."""
    if source.place == service.entered:
        return ()
    shut = service.entrance is not None and service.entrance.firewalled
    if shut and service.mode == "nftables" and source.node == service.entered:
        into = into[: _bridged(into)]  # in prerouting, which a bridge asks before it hands it up
    return _undelivered(into)


def _own(
    cluster: Cluster,
    observed: Observed,
    source: Endpoint,
    end: Endpoint,
    node: Endpoint,
    service: Service,
    facts: Mapping[str, Facts],
) -> _Legs:
    """Translated by the source's own node: as to the endpoint itself.

    But IPVS takes the request from the node, not the bridge. The reply goes to the client's own MAC
    address, so the bridge translates it back in every mode.
    """
    near = source.pod and end.pod and source.node == end.node
    if near and source.place == end.place:
        legs = (path.hairpin(cluster, observed, source),) * 2
    else:
        legs = path.expect(cluster, observed, source, end, facts)
    if near and service.mode == "ipvs":
        into = path.expect(cluster, observed, source, node, facts)
        onward = path.expect(cluster, observed, node, end, facts)
        return _joined(into[0], onward[0]), legs[1]
    return legs


def _asking(hops: _Hops, bridge: str, sights: Collection[Sight]) -> _Hops:
    """With the bridge's own device on the way, if that is where it was seen.

    There its destination is translated already, and its source not yet.
    """
    node, at = hops[1].node, _bridged(hops)
    own = ExpectedHop(node, node, bridge, OUT, None, "bridged")
    crossed = {(each.event.place, each.event.interface, each.event.direction) for each in sights}
    return (*hops[:at], own, *hops[at:]) if (node, bridge, OUT) in crossed else hops


def _bridged(hops: _Hops) -> int:
    """Where a bridge has what a pod sent: behind its veth, and behind what shapes that."""
    return 2 + any(shapes(hop) for hop in hops[2:3])


def _undelivered(hops: _Hops) -> _Hops:
    if not hops:
        return ()
    words = hops[-1].what.removesuffix("delivered").removesuffix(", ")
    return (*hops[:-1], replace(hops[-1], what=words))


def _joined(into: _Hops, onward: _Hops) -> _Hops:
    """Through the node, between whose two ways the packet is neither delivered nor sent."""
    return (*_undelivered(into), replace(onward[0], what="routed"), *onward[1:])


def _through(
    cluster: Cluster,
    observed: Observed,
    source: Endpoint,
    behind: Behind,
    service: Service,
    into: _Legs,
    onward: _Legs,
) -> _Legs:
    """Translated by another node, through which the reply must come back.

    An endpoint in that node's own namespace gets it where it came in.
    """
    comes = entrance.sender(cluster, observed, source, service.entered)
    kept, masqueraded = _sources(service, comes)
    there = tuple(replace(hop, destination=service.ip) for hop in into[0])
    back = tuple(replace(hop, source=service.ip) for hop in into[1])
    if not all((*into, *onward)):
        return (), ()
    if behind.end.place == service.entered:
        return there, back
    after = tuple(
        replace(hop, source=kept, destination=behind.end.ip, masqueraded=masqueraded)
        for hop in onward[0]
    )
    before = tuple(replace(hop, source=behind.end.ip, destination=kept) for hop in onward[1])
    return _joined(there, after), _joined(before, back)


def _sources(service: Service, comes: str) -> tuple[str, str]:
    """The address that the packet must keep, and the one that it must not; empty: any will do."""
    keeps = service.entrance.keeps if service.entrance else None
    return (comes if keeps else ""), ("" if keeps is None or keeps else comes)


def _addressed(legs: _Legs, source: Endpoint, behind: Behind, service: Service) -> _Legs:
    """With the addresses that the packet must have: translated on the source's node and only there.

    A pod that is its own endpoint does not keep its address; a node's packets are masqueraded.
    """
    own, masqueraded = _sources(service, source.ip) if source.pod else ("", "")
    if not behind.end.pod:
        own = masqueraded = ""  # whatever the CNI makes of a pod's packet to a node
    elif source.place == behind.end.place:
        own, masqueraded = "", source.ip
    ip = behind.end.ip

    def there() -> Iterator[ExpectedHop]:
        for hop in legs[0]:
            before = hop.place == source.place and hop.direction == OUT and source.pod
            before |= hop.place == source.node and enters(hop)
            gone = "" if before else masqueraded
            yield replace(hop, source=own, destination="" if before else ip, masqueraded=gone)

    def back() -> Iterator[ExpectedHop]:
        for hop in legs[1]:
            after = hop.place == source.node and not enters(hop)
            after |= hop.place == source.place and hop.direction == IN
            seen = source.pod or hop.interface == "lo"  # a node's own is, but on its way to itself
            origin = service.ip if after and seen else ip
            yield replace(hop, source=origin, destination=own)

    return tuple(there()), tuple(back())
