"""Tracing in a testbed that is there: who is meant, what runs, and then one probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from testbed import existing
from testbed.errors import UsageError
from testbed.node import inventory
from testbed.services.kept import with_services
from testbed.services.state import seen
from testbed.topology.portals import Portal, portals, slices
from testbed.verify.observed import Observed
from testbed.verify.trace import path, run, service
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
        source: a node, a router or ``[namespace/]pod``.
        target: the same, or ``svc/[namespace/]service``: the cluster IP of a Service.
        protocol: ``icmp``, ``tcp`` or ``udp``; ``None``: that of the Service's port, else ICMP.
        port: of the target, for TCP and UDP; ``None``: the Service's first.
        size: bytes of payload, for ICMP and UDP.
        dont_fragment: whether nobody may fragment it.

    Returns:
        The trace, and the pcapng file of all frames that were seen.

    Raises:
        UsageError: there is no such source or target; the message is about both.
    """
    listings = inventory.containers(client, name)
    cluster = existing.cluster_of(client, name, listings)
    states = existing.states_of(client, listings)
    containers, observed = _running(listings, states)
    found = None
    if key := service.named(cluster, target):
        cluster = with_services(client, cluster, listings)
        start = path.endpoint(cluster, observed, source)
        portals = _portals(cluster, states)
        found = service.resolve(
            *(cluster, observed, portals, key, start), protocol=protocol, port=port
        )
        ends = start, Endpoint(f"svc/{key}", start.node, found.cluster_ip, pod=False)
        protocol, port = found.protocol, found.port
    else:
        ends = _endpoints(cluster, observed, source, target)
    return run.trace(
        client,
        cluster,
        containers,
        observed,
        *ends,
        protocol=protocol or "icmp",
        port=port or 0,
        size=size,
        dont_fragment=dont_fragment,
        service=found,
    )


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
