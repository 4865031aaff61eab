"""A Service as the target of a trace: by which address it is asked, and what it leads to.

Which endpoint a packet gets is random, and so is, for some addresses, the node that gives it. So
everything that may be is laid down here, and what was made of it shows in what was observed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType

from testbed.errors import UsageError
from testbed.topology.model import Cluster
from testbed.topology.portals import Portal, Target
from testbed.verify.observed import Observed
from testbed.verify.trace import entrance
from testbed.verify.trace.model import (
    CLUSTER_IP,
    EXTERNAL_IP,
    LOAD_BALANCER,
    NODE_PORT,
    Endpoint,
    Service,
)
from testbed.verify.trace.model import ServiceEndpoint as Behind

__all__ = ["having", "named", "on_node", "resolve"]

_PREFIXES = ("svc", "service", "services")
_NO_SUBNETS: Mapping[str, IPv4Network] = MappingProxyType({})


def named(cluster: Cluster, text: str) -> str:
    """``namespace/name`` of ``svc/[NAMESPACE/]NAME``; empty: a pod or machine is meant.

    A pod ``web`` in a namespace ``svc`` is still found by its name.
    """
    kind, *rest = text.split("/")
    if kind not in _PREFIXES or len(rest) not in (1, 2) or any(p.key == text for p in cluster.pods):
        return ""
    return "/".join(rest if len(rest) == 2 else ("default", *rest))


def having(
    portals: Mapping[str, Sequence[Portal]], ip: str, protocol: str | None, port: int | None
) -> str:
    """The Service that has an address: one with this port, if there are several; empty: none."""
    address = IPv4Address(ip)
    found = [
        each
        for every in portals.values()
        for each in every
        if address in (each.cluster_ip, each.load_balancer_ip, *each.external_ips)
    ]
    fitting = [
        each for each in found if protocol in (None, each.protocol) and port in (None, each.port)
    ]
    return next((each.service for each in (*fitting, *found)), "")


def on_node(
    cluster: Cluster,
    observed: Observed,
    portals: Mapping[str, Sequence[Portal]],
    source: Endpoint,
    node: Endpoint,
    protocol: str,
    port: int,
) -> Service | None:
    """The Service that a node answers for at one of its own ports; ``None``: there is none.

    The port is its node port, or the node's address is one of its external IPs.
    """
    for found in portals.values():
        for portal in found:
            external = node.ip in map(str, portal.external_ips) and portal.port == port
            kind = NODE_PORT if portal.node_port == port else EXTERNAL_IP if external else ""
            if kind and portal.protocol == protocol:
                asked = kind, node.ip, protocol, port
                return _service(cluster, observed, found, portal, *asked, source, _NO_SUBNETS)
    return None


def resolve(
    cluster: Cluster,
    observed: Observed,
    portals: Mapping[str, Sequence[Portal]],
    key: str,
    source: Endpoint,
    *,
    ip: str = "",
    protocol: str | None = None,
    port: int | None = None,
    subnets: Mapping[str, IPv4Network] = _NO_SUBNETS,
) -> Service:
    """The Service, as it is for a source.

    Args:
        cluster: the topology, with its Services.
        observed: addresses of nodes and pods.
        portals: what the Services and the pods that run come to.
        key: ``namespace/name``.
        source: who sends.
        ip: the address that is asked; empty: the cluster IP from within the cluster, from outside
            the load balancer's address, else the first external IP.
        protocol: of the probe; ``None``: that of the port, else TCP.
        port: of the probe, also one that the Service does not have; ``None``: its first.
        subnets: of the underlay's networks; not needed where there is only one.

    Raises:
        UsageError: there is no such Service, or no address of it leads anywhere from the source.
    """
    found = _existing(cluster, portals, key)
    fitting = [
        each for each in found if port in (None, each.port) and protocol in (None, each.protocol)
    ]
    portal = next(iter(fitting), None)
    if protocol == "icmp":
        portal, port = None, 0
    elif portal is not None:
        protocol, port = portal.protocol, portal.port
    elif port is None:  # no port of that protocol
        port = found[0].port
    kind, ip = _address(cluster, found[0], source, ip)
    asked = kind, ip, protocol or "tcp", port or 0
    return _service(cluster, observed, found, portal, *asked, source, subnets)


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


def _address(cluster: Cluster, portal: Portal, source: Endpoint, ip: str) -> tuple[str, str]:
    """The kind of the address that is asked, and the address."""
    balanced = str(portal.load_balancer_ip or "")
    within = entrance.inside(cluster, source)
    if not ip and within:
        return CLUSTER_IP, str(portal.cluster_ip)
    if (ip or balanced) == balanced and balanced:
        return LOAD_BALANCER, balanced
    external = [str(each) for each in portal.external_ips if ip in ("", str(each))]
    if external:
        return EXTERNAL_IP, external[0]
    if within:
        return CLUSTER_IP, str(portal.cluster_ip)
    raise UsageError(_unreachable(portal, source))


def _unreachable(portal: Portal, source: Endpoint) -> str:
    """Nothing leads to a cluster IP from outside; what does instead."""
    said = (
        f"svc/{portal.service}: {source.place} runs no kube-proxy, so no cluster IP leads anywhere "
        "there.\n"
    )
    outer = [portal.load_balancer_ip, *portal.external_ips]
    if address := next(filter(None, outer), None):
        return f"{said}Trace to {address}, which is its address from outside."
    if portal.node_port is None:
        return f"{said}Trace from a pod or a node, or trace to one of the Service's pods."
    how = f"--proto {portal.protocol} --port {portal.node_port}"
    return f"{said}It has a node port: `testbed trace {source.place} NODE {how}`, by any node."


def _service(
    cluster: Cluster,
    observed: Observed,
    portals: Sequence[Portal],
    portal: Portal | None,
    kind: str,
    ip: str,
    protocol: str,
    port: int,
    source: Endpoint,
    subnets: Mapping[str, IPv4Network],
) -> Service:
    first = portals[0]
    targets = portal.targets if portal else first.targets if protocol == "icmp" else ()
    ready = (portal or first).usable
    found = Service(
        key=first.service,
        cluster_ip=str(first.cluster_ip),
        protocol=protocol,
        port=port,
        known=portal is not None,
        ports=tuple(f"{each.port}/{each.protocol}" for each in portals),
        mode=cluster.proxy,
        local=first.internal_local,
        endpoints=tuple(
            Behind(_end(observed, cluster, each), each.port, each in ready, usable=False)
            for each in targets
        ),
        kind=kind,
        other_ip="" if kind == CLUSTER_IP else ip,
        entrances=entrance.entrances(
            *(cluster, observed, portals, portal, kind, ip, source), subnets=subnets
        ),
        external_local=first.external_local,
    )
    return entrance.enter(found, {})


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
