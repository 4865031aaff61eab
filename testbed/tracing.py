"""Tracing in a testbed that is there: who is meant, what runs, and then one probe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed import existing
from testbed.errors import UsageError
from testbed.node import inventory
from testbed.verify.observed import Observed
from testbed.verify.trace import path, run
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
    protocol: str = "icmp",
    port: int = 0,
    size: int = 56,
    dont_fragment: bool = False,
) -> tuple[Trace, bytes]:
    """Send one probe in testbed ``name`` and follow it there and back.

    Args:
        client: the engine's.
        name: the testbed's.
        source: a node, a router or ``[namespace/]pod``.
        target: the same.
        protocol: ``icmp``, ``tcp`` or ``udp``.
        port: of the target, for TCP and UDP.
        size: bytes of payload, for ICMP and UDP.
        dont_fragment: whether nobody may fragment it.

    Returns:
        The trace, and the pcapng file of all frames that were seen.

    Raises:
        UsageError: there is no such source or target; the message is about both.
    """
    cluster, containers, observed = _running(client, name)
    ends = _endpoints(cluster, observed, source, target)
    return run.trace(
        client,
        cluster,
        containers,
        observed,
        *ends,
        protocol=protocol,
        port=port,
        size=size,
        dont_fragment=dont_fragment,
    )


def _running(client: docker.DockerClient, name: str) -> tuple[Cluster, dict[str, str], Observed]:
    """The topology, the containers of all nodes and routers that run, and what those say."""
    listings = inventory.containers(client, name)
    cluster = existing.cluster_of(client, name, listings)
    running = {node: each for node, each in listings.items() if each["State"] == "running"}
    addresses = {node: inventory.address(listing) for node, listing in running.items()}
    containers = {node: listing["Names"][0].lstrip("/") for node, listing in running.items()}
    return cluster, containers, Observed.of(addresses, existing.states_of(client, listings))


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
