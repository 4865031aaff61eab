"""Tracing in a testbed that is there: who is meant, what runs, and then one probe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Address
from typing import TYPE_CHECKING, Any

from testbed import existing
from testbed.errors import UsageError
from testbed.node import inventory, underlay
from testbed.services.kept import with_services
from testbed.services.state import seen
from testbed.topology.portals import Portal, portals, slices
from testbed.verify.observed import Observed
from testbed.verify.trace import destination, path, run, service
from testbed.verify.trace.model import Endpoint, Trace

if TYPE_CHECKING:
    import docker

    from testbed.topology.model import Cluster

__all__ = ["trace"]


def trace(
    client: docker.DockerClient,
    name: str,
    source: str,
    target: str,
    *,
    protocol: str | None = None,
    port: int | None = None,
    size: int = 56,
    dont_fragment: bool = False,
) -> tuple[Trace, bytes]:
    """Send one probe in testbed ``name`` and follow it there and back.

    Args:
        client: the engine's.
        name: the testbed's.
        source: a node, a router, a client or ``[namespace/]pod``.
        target: the same; the address of a pod, a machine or a Service; or
            ``svc/[namespace/]service``, which from pods and nodes is its cluster IP, and from
            elsewhere the load balancer's address, else an external IP. TCP and UDP to a node's port
            that is a Service's node port are for that Service.
        protocol: ``icmp``, ``tcp`` or ``udp``; ``None``: that of the Service's port, else ICMP.
        port: of the target, for TCP and UDP; ``None``: the Service's first, else netexec's.
        size: bytes of payload, for ICMP and UDP.
        dont_fragment: whether nobody may fragment it.

    Returns:
        The trace, and the pcapng file of all frames that were seen.

    Raises:
        UsageError: there is no such source or target, or none that leads anywhere; nothing is sent.
    """
    listings = inventory.containers(client, name)
    cluster = existing.cluster_of(client, name, listings)
    states = existing.states_of(client, listings)
    containers, observed = _running(listings, states)
    if _may_be_served(cluster, target, protocol):
        cluster = with_services(client, cluster, listings)
        start = path.endpoint(cluster, observed, source)
        end, found = destination.found(
            *(cluster, observed, _portals(cluster, states), start, target),
            protocol=protocol,
            port=port,
            subnets=_subnets(client, cluster),
        )
    else:
        found = None
        try:
            start, end = _endpoints(cluster, observed, source, target)
        except UsageError as error:
            cluster = with_services(client, cluster, listings)
            raise UsageError("\n".join([str(error), *_hints(cluster, target)])) from None
    if found is not None:
        protocol, port = found.protocol, found.port
    protocol, port = _probe(protocol, port)
    return run.trace(
        client,
        cluster,
        containers,
        observed,
        start,
        end,
        protocol=protocol,
        port=port,
        size=size,
        dont_fragment=dont_fragment,
        service=found,
    )


def _hints(cluster: Cluster, target: str) -> Iterator[str]:
    """What may have been meant by a target that there is not."""
    key = target if "/" in target else f"default/{target}"
    if any(each.key == key for each in cluster.services):
        yield f"There is a Service of that name: write svc/{target}."
    with suppress(ValueError):
        IPv6Address(target)
        yield "Only IPv4 can be traced."


def _may_be_served(cluster: Cluster, target: str, protocol: str | None) -> bool:
    """Whether Services must be known to say what is meant: by name, by address, by node port."""
    ports = target in {node.name for node in cluster.nodes} and protocol in ("tcp", "udp")
    return bool(service.named(cluster, target) or destination.address(target) or ports)


def _probe(protocol: str | None, port: int | None) -> tuple[str, int]:
    """What is sent where no Service says it.

    Raises:
        UsageError: a port without a protocol that has ports.
    """
    if protocol is None and port is not None:
        raise UsageError("--port: ICMP has no ports; it is for tcp and udp (--proto)")
    protocol = protocol or "icmp"
    return protocol, destination.PORTS[protocol] if port is None else port


def _subnets(client: docker.DockerClient, cluster: Cluster) -> dict[str, IPv4Network]:
    """Of the underlay's networks; where there is only one, nobody asks."""
    if len(cluster.networks) == 1:
        return {}
    return {name: each.subnet for name, each in underlay.find(client, cluster.name).items()}


def _running(
    listings: Mapping[str, inventory.Listing], states: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, str], Observed]:
    """The containers of all nodes and routers that run, and what those say."""
    running = {node: each for node, each in listings.items() if each["State"] == "running"}
    addresses = {node: inventory.address(listing) for node, listing in running.items()}
    containers = {node: listing["Names"][0].lstrip("/") for node, listing in running.items()}
    return containers, Observed.of(addresses, states)


def _portals(
    cluster: Cluster, states: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[Portal, ...]]:
    """What the Services are by the pods that run now, and not by what nodes were told of them."""
    running = seen(cluster, states)
    selected = slices(cluster.services, cluster.pods, running)
    return portals(cluster.services, (*cluster.slices, *selected))


def _endpoints(
    cluster: Cluster, observed: Observed, source: str, target: str
) -> tuple[Endpoint, Endpoint]:
    found: list[Endpoint] = []
    problems: list[tuple[str, str, str]] = []
    for text in (source, target):
        try:
            found.append(path.endpoint(cluster, observed, text))
        except UsageError as error:
            problems.append(str(error).partition("\n"))
    if problems:
        known = problems[0][2]  # what there is: the same for both
        raise UsageError("\n".join([*dict.fromkeys(problem for problem, _, _ in problems), known]))
    return found[0], found[1]
