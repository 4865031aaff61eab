"""Whom a trace is to reach: a name, ``svc/NAME``, or an address that something of the testbed has.

Nothing is ever sent to an address that is none of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network

from testbed.errors import UsageError
from testbed.topology.model import Cluster
from testbed.topology.portals import Portal
from testbed.verify.observed import Observed
from testbed.verify.trace import path, service
from testbed.verify.trace.model import Endpoint, Service

__all__ = ["PORTS", "Known", "address", "found"]

PORTS = {"icmp": 0, "tcp": 8080, "udp": 8081}
"""Where the default pods' netexec answers."""

Known = Mapping[str, Sequence[Portal]]
"""Service ``namespace/name`` → its portals."""


def address(text: str) -> str:
    """``text`` if it is an IPv4 address, else nothing."""
    try:
        return str(IPv4Address(text))
    except ValueError:
        return ""


def found(
    cluster: Cluster,
    observed: Observed,
    portals: Known,
    source: Endpoint,
    text: str,
    *,
    protocol: str | None,
    port: int | None,
    subnets: Mapping[str, IPv4Network],
) -> tuple[Endpoint, Service | None]:
    """What is to be sent to, and the Service that is asked for there, if it is one.

    Args:
        cluster: the topology, with its Services.
        observed: addresses of nodes and pods.
        portals: of all Services.
        source: who sends.
        text: a name, ``svc/[NAMESPACE/]NAME`` or an address.
        protocol: of the probe; ``None``: what suits a Service's port, else ICMP.
        port: of the probe; ``None``: a Service's first, else netexec's.
        subnets: of the underlay's networks.

    Raises:
        UsageError: it is none of them, or does not lead anywhere from the source.
    """
    ip = address(text)
    if key := service.named(cluster, text):
        ip = ""
    elif end := _owner(cluster, observed, ip) if ip else path.endpoint(cluster, observed, text):
        served = _on(cluster, observed, portals, source, end, protocol, port)
        return (_front(served, source), served) if served else (end, None)
    else:
        key = service.having(portals, ip, protocol, port)
    if not key:
        raise UsageError(_unknown(cluster, observed, portals, ip))
    served = service.resolve(
        *(cluster, observed, portals, key, source),
        ip=ip,
        protocol=protocol,
        port=port,
        subnets=subnets,
    )
    return _front(served, source), served


def _front(served: Service, source: Endpoint) -> Endpoint:
    """The Service itself as the target, until an endpoint is known."""
    return Endpoint(f"svc/{served.key}", served.entered or source.node, served.ip, pod=False)


def _owner(cluster: Cluster, observed: Observed, ip: str) -> Endpoint | None:
    """The machine or else the pod that has an address."""
    for name in cluster.machines:
        if str(observed.node_ips.get(name, "")) == ip:
            return path.endpoint(cluster, observed, name)
    hosts = {pod.key for pod in cluster.pods if pod.host_network}
    for pod in cluster.pods:
        if pod.key not in hosts and str(observed.ip(pod.key) or "") == ip:
            return path.endpoint(cluster, observed, pod.key)
    return None


def _on(
    cluster: Cluster,
    observed: Observed,
    portals: Known,
    source: Endpoint,
    end: Endpoint,
    protocol: str | None,
    port: int | None,
) -> Service | None:
    """The Service that has a port of a node that runs: as its node port, or at an external IP."""
    running = end.ip and end.place in {node.name for node in cluster.nodes}
    if not running or protocol not in ("tcp", "udp"):
        return None
    asked = (protocol, PORTS[protocol] if port is None else port)
    return service.on_node(cluster, observed, portals, source, end, *asked)


def _unknown(cluster: Cluster, observed: Observed, portals: Known, ip: str) -> str:
    return "\n".join(
        (
            f"nothing of testbed {cluster.name!r} has address {ip}, and nothing is sent elsewhere.",
            *_addresses(cluster, observed, portals),
        )
    )


def _addresses(cluster: Cluster, observed: Observed, portals: Known) -> Iterator[str]:
    """Everything that has one, a line each kind."""
    for title, machines in (
        ("nodes", cluster.nodes),
        ("routers", cluster.routers),
        ("clients", cluster.clients),
    ):
        known = [f"{each.name} {observed.node_ips.get(each.name, '-')}" for each in machines]
        if known:
            yield f"{title}: {', '.join(known)}"
    pods = [pod for pod in cluster.pods if not pod.host_network]
    names = [f"{_short(pod.key)} {observed.ip(pod.key) or '-'}" for pod in pods]
    yield f"pods: {', '.join(names) or 'none'}"
    fronts = [
        f"{_short(key)} {' '.join(_fronts(each[0]))}" for key, each in portals.items() if each
    ]
    yield f"services: {', '.join(fronts) or 'none'}"


def _short(key: str) -> str:
    return key.removeprefix("default/")


def _fronts(portal: Portal) -> Iterator[str]:
    outer = (portal.load_balancer_ip, *portal.external_ips)
    yield from (str(each) for each in (portal.cluster_ip, *outer) if each is not None)
