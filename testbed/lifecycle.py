"""The story of a testbed on one page: prepare, network, nodes, check.

The command line and the tests both tell this story; neither adds to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from testbed.dataplane.spec import NodeSpec
from testbed.dataplane.underlay import Underlay
from testbed.existing import Narrator, cluster_of, describe, locked, states_of
from testbed.node import container, features, image, inventory, underlay
from testbed.node.parallel import each
from testbed.plan import plan, require
from testbed.topology.model import Cluster, Node
from testbed.verify import probe
from testbed.verify.observed import Observed
from testbed.verify.report import Report

if TYPE_CHECKING:
    import docker

__all__ = ["Outcome", "check", "up"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is there after ``up`` or ``check``."""

    report: Report
    status: Mapping[str, Any]
    """As ``testbed status -o json`` prints it, read after the probes."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """How long each phase of ``up`` took."""


def up(cluster: Cluster, client: docker.DockerClient, tell: Narrator) -> Outcome:
    """Make the testbed what ``cluster`` says, whatever is there now, and check it.

    Raises:
        TestbedError: the testbed is not there as asked; what was made stays for inspection.
    """
    seconds: dict[str, float] = {}
    with locked(cluster.name, tell):
        with _timed(seconds, "prepare"):
            reference = image.ensure(client, partial(tell, ""))
            able = features.detect(client, reference)
            require(cluster, able)
        with _timed(seconds, "network"):
            segment = _segment(client, cluster, tell)
            specs = plan(cluster, segment, able)
            present = inventory.containers(client, cluster.name)
            _retire(client, cluster, present, tell)
        with _timed(seconds, "nodes"):

            def boot(item: tuple[Node, NodeSpec]) -> dict[str, Any]:
                node, spec = item
                address = segment.address_of(node.index)
                setting = container.Setting(
                    reference, able, address, segment.identity, spec.attachment
                )
                return container.converge(
                    client, spec, setting, present.get(node.name), partial(tell, node.name)
                )

            booted = each(boot, zip(cluster.nodes, specs, strict=True))
            states = dict(zip((node.name for node in cluster.nodes), booted, strict=True))
        with _timed(seconds, "check"):
            tell("", "check", "probing all pod pairs")
            listings = inventory.containers(client, cluster.name)
            outcome = _check(client, cluster, listings, states)
    return replace(outcome, seconds=seconds)


def check(client: docker.DockerClient, name: str) -> Outcome:
    """Check a testbed that is there.

    Raises:
        UsageError: it has no node that ever got a spec.
    """
    listings = inventory.containers(client, name)
    cluster = cluster_of(client, name, listings)
    return _check(client, cluster, listings, states_of(client, listings))


def _check(
    client: docker.DockerClient,
    cluster: Cluster,
    listings: Mapping[str, inventory.Listing],
    states: Mapping[str, Mapping[str, Any]],
) -> Outcome:
    addresses = {
        node: inventory.address(listing)
        for node, listing in listings.items()
        if listing["State"] == "running"
    }
    observed = Observed.of(addresses, states)
    running = {
        node: listing["Names"][0].lstrip("/")
        for node, listing in listings.items()
        if listing["State"] == "running"
    }
    report, now = probe.run(client, cluster, running, observed)
    return Outcome(report, describe(cluster, listings, {**states, **now}))


def _segment(client: docker.DockerClient, cluster: Cluster, tell: Narrator) -> Underlay:
    """The node network as it is, or a new one where there is none or another subnet is asked."""
    found = underlay.find(client, cluster.name)
    if found is not None and cluster.underlay not in (None, found.subnet):
        tell("", "network", f"{found.subnet} becomes {cluster.underlay}: nodes are made anew")
        inventory.remove_all(client, cluster.name)
        found = None
    if found is None:
        avoid = (cluster.cluster_cidr, cluster.service_cidr)
        found = underlay.create(client, cluster.name, cluster.underlay, avoid)
        tell("", "network", f"{underlay.network_name(cluster.name)} {found.subnet}")
    return found


def _retire(
    client: docker.DockerClient,
    cluster: Cluster,
    present: Mapping[str, inventory.Listing],
    tell: Narrator,
) -> None:
    """Remove the nodes that the topology no longer has."""
    wanted = {node.name for node in cluster.nodes}
    gone = {node: listing for node, listing in present.items() if node not in wanted}
    for node in gone:
        tell(node, "remove", "no longer in the topology")
    inventory.remove_containers(client, list(gone.values()))


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[phase] = time.perf_counter() - start
