"""By which node a packet for a Service comes in, and what kube-proxy must do with it there.

Pods and nodes are served by their own node, whatever address they ask; but a node port is served
by the node that is asked. From outside, a load balancer's address leads to a node that announces
it, and which one of several that is shows when the packet is seen. The rules are those of
kube-proxy 1.30 (``CategorizeEndpoints``, and the chains of each mode), told from the portals alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from testbed.topology.model import Cluster, Node
from testbed.topology.portals import Portal, answers
from testbed.verify import oracle
from testbed.verify.observed import Observed
from testbed.verify.trace.correlation import Sight
from testbed.verify.trace.devices import UPLINK
from testbed.verify.trace.facts import space_of
from testbed.verify.trace.model import (
    CLUSTER_IP,
    EXTERNAL_IP,
    IN,
    LOAD_BALANCER,
    NODE_PORT,
    Endpoint,
    Entrance,
    Facts,
    Service,
)

__all__ = ["enter", "entrances", "inside", "masked", "sender"]


def inside(cluster: Cluster, source: Endpoint) -> bool:
    """Whether its node has kube-proxy's rules: a pod or a node, but no router and no client."""
    return source.node in {node.name for node in cluster.nodes}


def masked(cluster: Cluster) -> bool:
    """Whether pods' packets to nodes leave their node with its address."""
    return bool(cluster.backend.options.get("nat_outgoing", True))


def sender(cluster: Cluster, observed: Observed, source: Endpoint, node: str) -> str:
    """The address that a packet comes from when it reaches ``node``; empty: that is not known."""
    if source.node in {router.name for router in cluster.routers}:
        return ""  # it has one in every network
    if source.pod and source.node != node and masked(cluster):
        return str(observed.node_ips.get(source.node, ""))
    return source.ip


def entrances(
    cluster: Cluster,
    observed: Observed,
    portals: Sequence[Portal],
    portal: Portal | None,
    kind: str,
    ip: str,
    source: Endpoint,
    *,
    subnets: Mapping[str, IPv4Network],
) -> tuple[Entrance, ...]:
    """Every node by which the packet may come in.

    Args:
        cluster: the topology.
        observed: addresses of nodes and pods.
        portals: all of the Service's.
        portal: the one that is asked for; ``None``: it has none of that port and protocol.
        kind: of the address that is asked.
        ip: that address.
        source: who sends.
        subnets: of the underlay's networks; not needed where there is only one.
    """
    found = _nodes(cluster, observed, portals, kind, ip, source, subnets)
    return tuple(
        _entrance(cluster, observed, portal, kind, source, node) if portal else _closed(node)
        for node in found
    )


def _closed(node: str) -> Entrance:
    return Entrance(node, (), keeps=None)


def _nodes(
    cluster: Cluster,
    observed: Observed,
    portals: Sequence[Portal],
    kind: str,
    ip: str,
    source: Endpoint,
    subnets: Mapping[str, IPv4Network],
) -> Iterator[str]:
    owners = [node for node, address in observed.node_ips.items() if str(address) == ip]
    if kind == NODE_PORT:
        yield from owners
    elif inside(cluster, source):
        yield source.node
    elif kind == EXTERNAL_IP and owners:
        yield from owners
    else:
        for node in cluster.nodes:
            announces = kind == EXTERNAL_IP or _announces(
                cluster, portals, node, IPv4Address(ip), source, subnets
            )
            if node.name in observed.node_ips and announces:
                yield node.name


def _announces(
    cluster: Cluster,
    portals: Sequence[Portal],
    node: Node,
    ip: IPv4Address,
    source: Endpoint,
    subnets: Mapping[str, IPv4Network],
) -> bool:
    """Whether a node may tell the source of a load balancer's address."""
    if not answers(portals, node.name):
        return False
    if cluster.load_balancer.announce == "bgp":
        return (node.name, source.node) in oracle.mesh(cluster)
    return len(cluster.networks) == 1 or ip in subnets[node.network]


def _entrance(
    cluster: Cluster, observed: Observed, portal: Portal, kind: str, source: Endpoint, node: str
) -> Entrance:
    everywhere = portal.usable
    comes = sender(cluster, observed, source, node)
    if kind == LOAD_BALANCER and everywhere and _shut_out(portal, comes):
        return Entrance(node, (), keeps=None, firewalled=True)
    near = source.pod and (source.node == node or not masked(cluster))
    own = source.place == node
    here = portal.local(node)
    keeps: bool | None
    if kind == CLUSTER_IP:
        found, keeps = here if portal.internal_local else everywhere, near
    elif not portal.external_local:
        found, keeps = everywhere, False
    elif cluster.proxy == "ipvs":
        # Where Local leaves no endpoint, all are used; what masquerades then is the CNI's affair.
        found, keeps = here or everywhere, True if near or (here and not own) else None
    elif near:
        found, keeps = everywhere, True
    elif own:
        dropped = cluster.proxy == "nftables" and kind != NODE_PORT and not here
        found, keeps = () if dropped else everywhere, False
    else:
        found, keeps = here, True
    return Entrance(node, tuple(map(str, found)), keeps)


def _shut_out(portal: Portal, comes: str) -> bool:
    """Whether the sender is in none of ``loadBalancerSourceRanges``."""
    ranges = portal.source_ranges
    return bool(ranges and comes and not any(IPv4Address(comes) in each for each in ranges))


def enter(service: Service, facts: Mapping[str, Facts], request: Collection[Sight] = ()) -> Service:
    """The Service as it is where the packet came in, or else must come in.

    Args:
        service: with all its entrances.
        facts: which node has the address of a load balancer that is announced by ARP.
        request: sights of the packet, in order.
    """
    nodes = [each.node for each in service.entrances]
    holder = next(
        (node for node in nodes if space_of(facts, node, node).holds(service.ip, UPLINK)), ""
    )
    came = (
        sight.event.place
        for sight in request
        if sight.event.place in nodes and sight.event.direction == IN
    )
    entered = (holder if service.kind == LOAD_BALANCER else "") or next(came, "")
    entered = entered or next(iter(nodes), "")
    found = next((each for each in service.entrances if each.node == entered), _closed(""))
    behind = tuple(replace(each, usable=str(each) in found.usable) for each in service.endpoints)
    return replace(service, entered=entered, endpoints=behind)
