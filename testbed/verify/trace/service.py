"""A Service as the target of a trace: what it leads to, and the way that a packet must take.

Which endpoint a packet gets is random. So the way is known only after the packet was sent: what the
source's node made of its destination is observed, and the model says whether that is an endpoint,
and how packets get there. kube-proxy's planners are not asked, as they are not for other paths.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from testbed.errors import UsageError
from testbed.topology.model import Cluster
from testbed.topology.portals import Portal, Target
from testbed.verify.observed import Observed
from testbed.verify.trace import path
from testbed.verify.trace.correlation import Sight
from testbed.verify.trace.devices import Devices
from testbed.verify.trace.model import IN, OUT, Endpoint, ExpectedHop, Facts, Service
from testbed.verify.trace.model import ServiceEndpoint as Behind

__all__ = ["expect", "named", "resolve"]

_Hops: TypeAlias = tuple[ExpectedHop, ...]
_Legs: TypeAlias = tuple[_Hops, _Hops]
_PREFIXES = ("svc", "service", "services")


def named(cluster: Cluster, text: str) -> str:
    """``namespace/name`` of ``svc/[NAMESPACE/]NAME``; empty: a pod or machine is meant.

    A pod ``web`` in a namespace ``svc`` is still found by its name.
    """
    kind, *rest = text.split("/")
    if kind not in _PREFIXES or len(rest) not in (1, 2) or any(p.key == text for p in cluster.pods):
        return ""
    return "/".join(rest if len(rest) == 2 else ("default", *rest))


def resolve(
    cluster: Cluster,
    observed: Observed,
    portals: Mapping[str, Sequence[Portal]],
    key: str,
    source: Endpoint,
    *,
    protocol: str | None = None,
    port: int | None = None,
) -> Service:
    """The Service, as it is from the source's node.

    Args:
        cluster: the topology, with its Services.
        observed: addresses of nodes and pods.
        portals: what the Services and the pods that run come to.
        key: ``namespace/name``.
        source: who sends.
        protocol: of the probe; ``None``: that of the port, else TCP.
        port: of the probe, also one that the Service does not have; ``None``: its first.

    Raises:
        UsageError: there is no such Service, it has no cluster IP, or the source is no part of the
            cluster.
    """
    found = _existing(cluster, portals, key)
    if source.node not in {node.name for node in cluster.nodes}:
        raise UsageError(
            f"svc/{key}: {source.place} runs no kube-proxy, so no cluster IP leads anywhere there."
            "\nTrace from a pod or a node, or trace to one of the Service's pods."
        )
    fitting = [
        each for each in found if port in (None, each.port) and protocol in (None, each.protocol)
    ]
    portal = next(iter(fitting), None)
    if protocol == "icmp":
        portal, port = found[0], 0
    elif portal is not None:
        protocol, port = portal.protocol, portal.port
    elif port is None:  # no port of that protocol
        port = found[0].port
    targets = portal.targets if portal else ()
    ready = portal.usable if portal else ()
    usable = (portal.local(source.node) if portal.internal_local else ready) if portal else ()
    return Service(
        key=key,
        cluster_ip=str(found[0].cluster_ip),
        protocol=protocol or "tcp",
        port=port or 0,
        known=portal is not None and protocol != "icmp",
        ports=tuple(f"{each.port}/{each.protocol}" for each in found),
        mode=cluster.proxy,
        local=found[0].internal_local,
        endpoints=tuple(
            Behind(_end(observed, cluster, each), each.port, each in ready, each in usable)
            for each in targets
        ),
    )


def _existing(
    cluster: Cluster, portals: Mapping[str, Sequence[Portal]], key: str
) -> Sequence[Portal]:
    service = next((each for each in cluster.services if each.key == key), None)
    if service is None:
        known = ", ".join(each.key.removeprefix("default/") for each in cluster.services)
        raise UsageError(
            f"testbed {cluster.name!r} has no Service {key!r}.\nservices: {known or 'none'}"
        )
    if not portals.get(key):
        raise UsageError(
            f"svc/{key} is headless: it has no cluster IP, and its name stands for its pods' own "
            "addresses.\nTrace to one of its pods."
        )
    return portals[key]


def _end(observed: Observed, cluster: Cluster, target: Target) -> Endpoint:
    """The pod or node that has an endpoint's address; else a place of that name."""
    hosts = {pod.key for pod in cluster.pods if pod.host_network}
    ip = str(target.address)
    for key, entry in observed.pods.items():
        pod = next((each for each in cluster.pods if each.key == key), None)
        if entry.get("ip") == ip and pod is not None and key not in hosts:
            return Endpoint(key, pod.node, ip, pod=True)
    for node, address in observed.node_ips.items():
        if address == target.address:
            return Endpoint(node, node, ip, pod=False)
    return Endpoint(ip, target.node or ip, ip, pod=False)


def expect(
    cluster: Cluster,
    observed: Observed,
    source: Endpoint,
    service: Service,
    facts: Mapping[str, Facts],
    sights: tuple[Collection[Sight], Collection[Sight]] = ((), ()),
) -> tuple[Endpoint, _Legs]:
    """Who is to answer, and every interface that the packet and its reply must cross.

    Where nothing answers, the source's node is the end of the way: it rejects or drops the packet,
    and the place is named after the Service.

    Args:
        cluster: the topology.
        observed: names of veths, and addresses.
        source: who sends.
        service: with what the source's node made of the destination.
        facts: of routers, for the names of their interfaces.
        sights: of the request and of the reply. They only tell whether a bridge, translating from
            one of its ports to another, asked its neighbour table by its own device (where the MAC
            is not known to be right: ``br_nf_pre_routing_finish_bridge``) or went past it.
    """
    node = path.endpoint(cluster, observed, source.node)
    entered = path.expect(cluster, observed, source, node, facts)
    behind = service.chosen or (
        next(iter(service.usable), None) if service.known and service.mode != "none" else None
    )
    if behind is None:
        nobody = Endpoint(f"svc/{service.key}", source.node, service.cluster_ip, pod=False)
        return nobody, (_undelivered(entered[0]) if source.pod else (), ())
    if behind.end.node not in {each.name for each in cluster.nodes}:
        return behind.end, ((), ())  # a foreign address: the topology knows no way there
    legs = _legs(cluster, observed, source, behind.end, node, service, facts)
    legs = _addressed(legs, source, behind, service)
    if source.pod and behind.end.pod and source.node == behind.end.node:
        bridge = Devices(cluster, observed, facts).bridge
        there = legs[0] if service.mode == "ipvs" else _asking(legs[0], bridge, sights[0])
        legs = there, _asking(legs[1], bridge, sights[1])
    return behind.end, legs


def _legs(
    cluster: Cluster,
    observed: Observed,
    source: Endpoint,
    end: Endpoint,
    node: Endpoint,
    service: Service,
    facts: Mapping[str, Facts],
) -> _Legs:
    """As to the endpoint itself, but that IPVS takes the request from the node, not the bridge.

    The reply goes to the client's own MAC address, so the bridge translates it back in every mode.
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
    node = hops[1].node
    own = ExpectedHop(node, node, bridge, OUT, None, "bridged")
    crossed = {(each.event.place, each.event.interface, each.event.direction) for each in sights}
    return (*hops[:2], own, *hops[2:]) if (node, bridge, OUT) in crossed else hops


def _undelivered(hops: _Hops) -> _Hops:
    words = hops[-1].what.removesuffix("delivered").removesuffix(", ")
    return (*hops[:-1], replace(hops[-1], what=words))


def _joined(into: _Hops, onward: _Hops) -> _Hops:
    """Through the node, between whose two ways the packet is neither delivered nor sent."""
    return (*_undelivered(into), replace(onward[0], what="routed"), *onward[1:])


def _addressed(legs: _Legs, source: Endpoint, behind: Behind, service: Service) -> _Legs:
    """With the addresses that the packet must have: translated on the source's node and only there.

    A pod's own address stays, unless it is its own endpoint; a node's packets are masqueraded.
    """
    keeps = source.pod and behind.end.pod and source.place != behind.end.place
    own, ip = source.ip if keeps else "", behind.end.ip

    def there() -> Iterator[ExpectedHop]:
        for hop in legs[0]:
            before = hop.place == source.place and hop.direction == OUT and source.pod
            before |= hop.place == source.node and hop.direction == IN
            yield replace(hop, source=own, destination="" if before else ip)

    def back() -> Iterator[ExpectedHop]:
        for hop in legs[1]:
            after = hop.place == source.node and hop.direction == OUT
            after |= hop.place == source.place and hop.direction == IN
            seen = source.pod or hop.interface == "lo"  # a node's own is, but on its way to itself
            origin = service.cluster_ip if after and seen else ip
            yield replace(hop, source=origin, destination=own)

    return tuple(there()), tuple(back())
