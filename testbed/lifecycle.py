"""The story of a testbed on one page: prepare, network, nodes, services, check.

The command line and the tests both tell this story; neither adds to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from testbed.dataplane.features import Features
from testbed.dataplane.spec import NodeSpec
from testbed.dataplane.underlay import Segment, Underlay
from testbed.existing import Narrator, cluster_of, describe, locked, states_of
from testbed.node import container, features, image, inventory, underlay
from testbed.node.parallel import each
from testbed.node.services import Kept
from testbed.plan import plan, require
from testbed.services.converge import converge
from testbed.services.kept import kept_as_told
from testbed.services.state import held, seen
from testbed.topology.load_balancer import addressed
from testbed.topology.model import Cluster
from testbed.verify import probe
from testbed.verify.observed import Observed
from testbed.verify.report import Finding, Report

if TYPE_CHECKING:
    import docker

__all__ = ["Outcome", "check", "judge_routers", "up"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is there after ``up`` or ``check``."""

    cluster: Cluster
    """With every choice made: the IPIP driver, load balancers' addresses."""
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
            cluster = require(cluster, able)
        with _timed(seconds, "network"):
            networks = _networks(client, cluster, tell)
            cluster = addressed(cluster, networks.subnets)
            specs = plan(cluster, networks, able)
            present = inventory.containers(client, cluster.name)
            _retire(client, cluster, present, tell)
        with _timed(seconds, "nodes"):

            def boot(spec: NodeSpec) -> dict[str, Any]:
                setting = _setting(cluster, networks, reference, able, spec)
                return container.converge(
                    client, spec, setting, present.get(spec.node), partial(tell, spec.node)
                )

            # In a BGP mesh the higher address dials, a second after it began: it begins first.
            order = specs[::-1]
            states = dict(zip((spec.node for spec in order), each(boot, order), strict=True))
        with _timed(seconds, "services"):
            listings = inventory.containers(client, cluster.name)
            kept = Kept()
            if cluster.services or cluster.slices or present:
                pods = seen(cluster, states)
                kept = converge(client, cluster, networks, listings, pods, tell)
        with _timed(seconds, "check"):
            tell("", "check", "probing all pod pairs")
            outcome = _check(client, cluster, networks.segments, listings, states, kept)
    return replace(outcome, seconds=seconds)


def check(client: docker.DockerClient, name: str) -> Outcome:
    """Check a testbed that is there.

    Raises:
        UsageError: it has no node that ever got a spec.
    """
    listings = inventory.containers(client, name)
    states = states_of(client, listings)
    kept = kept_as_told(client, listings, states)
    cluster = held(cluster_of(client, name, listings), kept.inputs)
    segments = underlay.find(client, name)
    return _check(client, cluster, segments, listings, states, kept)


def _check(
    client: docker.DockerClient,
    cluster: Cluster,
    segments: Mapping[str, Segment],
    listings: Mapping[str, inventory.Listing],
    states: Mapping[str, Mapping[str, Any]],
    kept: Kept,
) -> Outcome:
    """Probe from the nodes; a router only has to run. ``kept`` is what nodes hold of Services."""
    running = {
        node.name: listings[node.name]
        for node in cluster.nodes
        if node.name in listings and listings[node.name]["State"] == "running"
    }
    addresses = {node: inventory.address(listing) for node, listing in running.items()}
    observed = Observed.of(addresses, states)
    containers = {node: listing["Names"][0].lstrip("/") for node, listing in running.items()}
    report, now = probe.run(client, cluster, containers, observed)
    status = describe(cluster, segments, listings, {**states, **now}, kept.inputs)
    findings = (
        *judge_routers(status["routers"]),
        *judge_routers(status["clients"], "client"),
        *report.findings,
    )
    return Outcome(cluster, replace(report, findings=findings), status)


def judge_routers(routers: Iterable[Mapping[str, Any]], role: str = "router") -> Iterator[Finding]:
    """Every router (or client) of a status runs, and its agent says that it is ready."""
    for router in routers:
        ok = router["state"] == "ready"
        detail = "" if ok else f"the {role} is {router['state']}"
        yield Finding("node", "", router["name"], ok, detail)


def _networks(client: docker.DockerClient, cluster: Cluster, tell: Narrator) -> Underlay:
    """The node networks: those that are there, and new ones where some are missing.

    Nodes cannot change their addresses, so a network that the topology no longer has, or of which
    it asks another subnet, makes everything anew.
    """
    found = underlay.find(client, cluster.name, tidy=True)
    wanted = {network.name: network.subnet for network in cluster.networks}
    if any(
        name not in wanted or wanted[name] not in (None, segment.subnet)
        for name, segment in found.items()
    ):
        tell("", "network", "other networks or subnets: nodes are made anew")
        inventory.remove_all(client, cluster.name)
        found = {}
    avoid = [cluster.cluster_cidr, cluster.service_cidr]
    avoid += [subnet for subnet in wanted.values() if subnet]
    names = underlay.network_names(cluster.name, cluster.networks)
    for network in cluster.networks:
        if network.name not in found:
            called = names[network.name]
            found[network.name] = underlay.create(client, cluster.name, network, called, avoid)
            tell("", "network", called)
    return Underlay({name: found[name] for name in wanted})


def _setting(
    cluster: Cluster, networks: Underlay, image: str, able: Features, spec: NodeSpec
) -> container.Setting:
    """Where the container of ``spec`` is attached, and what else it cannot change."""
    for router in cluster.routers:
        if router.name == spec.node:
            segments = [networks.segments[name] for name in router.networks]
            ways = [(each.identity, each.router_address(router.index)) for each in segments]
            return container.Setting(image, able, tuple(ways), spec.attachment, "router")
    for client in cluster.clients:
        if client.name == spec.node:
            there = networks.segments[client.network].identity
            address = networks.client_address(cluster, client)
            return container.Setting(image, able, ((there, address),), spec.attachment, "client")
    node = cluster.node(spec.node)
    way = networks.segments[node.network].identity, networks.address_of(node.network, node.index)
    return container.Setting(image, able, (way,), spec.attachment)


def _retire(
    client: docker.DockerClient,
    cluster: Cluster,
    present: Mapping[str, inventory.Listing],
    tell: Narrator,
) -> None:
    """Remove the nodes, routers and clients that the topology no longer has."""
    gone = {name: each for name, each in present.items() if name not in cluster.machines}
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
