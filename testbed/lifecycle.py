"""The story of a testbed: up, down, status and check, each on one page.

The command line and the pytest plugin both tell this story; neither adds to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from testbed.dataplane.spec import NodeSpec
from testbed.dataplane.underlay import Underlay
from testbed.errors import UsageError
from testbed.node import container, features, image, inventory, lock, underlay
from testbed.node.parallel import each
from testbed.plan import plan
from testbed.topology.model import Cluster, Node
from testbed.topology.serialize import from_json
from testbed.verify import probe
from testbed.verify.observed import Observed
from testbed.verify.report import Report

if TYPE_CHECKING:
    import docker

__all__ = ["Narrator", "Outcome", "check", "choose", "cluster_of", "down", "names", "status", "up"]

Narrator = Callable[[str, str, str], None]
"""Told a node's name (empty: the testbed as a whole), a step, and what happened."""


@dataclass(slots=True)
class Outcome:
    """What ``up`` did, and how long each phase took, in seconds."""

    report: Report
    seconds: dict[str, float] = field(default_factory=dict)


def up(cluster: Cluster, client: docker.DockerClient, tell: Narrator) -> Outcome:
    """Make the testbed what ``cluster`` says, whatever is there now, and check it.

    Raises:
        TestbedError: the testbed is not there as asked; what was made stays for inspection.
    """
    seconds: dict[str, float] = {}
    with _locked(cluster.name, tell):
        with _timed(seconds, "prepare"):
            reference = image.ensure(client, partial(tell, ""))
            able = features.detect(client, reference)
        with _timed(seconds, "network"):
            segment = _segment(client, cluster, tell)
            specs = plan(cluster, segment, able)
            present = inventory.containers(client, cluster.name)
            _retire(client, cluster, present, tell)
        with _timed(seconds, "nodes"):

            def boot(item: tuple[Node, NodeSpec]) -> None:
                node, spec = item
                address = segment.address_of(node.index)
                setting = container.Setting(reference, able.privileged, address)
                container.converge(
                    client, spec, setting, present.get(node.name), partial(tell, node.name)
                )

            each(boot, zip(cluster.nodes, specs, strict=True))
        with _timed(seconds, "check"):
            tell("", "check", "probing all pod pairs")
            report = _check(client, cluster, inventory.containers(client, cluster.name))
    return Outcome(report, seconds)


def down(client: docker.DockerClient, name: str, tell: Narrator) -> int:
    """Remove everything of testbed ``name``; return how many node containers there were."""
    with _locked(name, tell):
        removed = inventory.remove_all(client, name)
    for each_name in removed:
        tell("", "remove", f"container {each_name}")
    return len(removed)


def names(client: docker.DockerClient) -> Mapping[str, list[inventory.Listing]]:
    """Every testbed that the engine holds."""
    return inventory.names(client)


def choose(client: docker.DockerClient, name: str | None) -> str:
    """The testbed that a command means: ``name``, else the only one there is.

    Raises:
        UsageError: there is none of that name, none at all, or more than one.
    """
    found = list(inventory.names(client))
    if name is not None:
        if name in found:
            return name
        raise UsageError(
            f"there is no testbed {name!r}; there is "
            f"{', '.join(found) or 'none'}. `testbed up` makes one."
        )
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError("no testbed is there. `testbed up flannel` makes one.")
    raise UsageError(
        f"{len(found)} testbeds are there ({', '.join(found)}); say which one with --name "
        "or TESTBED_NAME."
    )


def check(client: docker.DockerClient, name: str) -> Report:
    """Check a testbed that is there.

    Raises:
        UsageError: it has no node that ever got a spec.
    """
    listings = inventory.containers(client, name)
    return _check(client, cluster_of(client, name, listings), listings)


def status(client: docker.DockerClient, name: str) -> dict[str, Any]:
    """The testbed as ``testbed status -o json`` prints it."""
    listings = inventory.containers(client, name)
    cluster = cluster_of(client, name, listings)
    states = _states(client, listings)
    nodes = [
        _node_status(node.name, str(node.pod_cidr), listings.get(node.name), states)
        for node in cluster.nodes
    ]
    running = {node["name"] for node in nodes if node["state"] != "stopped"}
    pods = [_pod_status(pod.key, pod.node, states, running) for pod in cluster.pods]
    healthy = all(each["state"] == "ready" for each in nodes) and all(
        each["state"] in ("Running", "Succeeded") for each in pods
    )
    return {
        "name": name,
        "cni": cluster.cni,
        "backend": cluster.backend.type,
        "state": "ready" if healthy else "degraded",
        "nodes": nodes,
        "pods": pods,
        "services": [],
    }


def _node_status(
    node: str,
    pod_cidr: str,
    listing: inventory.Listing | None,
    states: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    if listing is None:
        return {"name": node, "container": "", "ip": "", "pod_cidr": pod_cidr, "state": "missing"}
    running = listing["State"] == "running"
    return {
        "name": node,
        "container": listing["Names"][0].lstrip("/"),
        "ip": inventory.address(listing),
        "pod_cidr": pod_cidr,
        "state": states[node].get("phase", "booting") if running else "stopped",
    }


def _pod_status(
    key: str, node: str, states: Mapping[str, Mapping[str, Any]], running: set[str]
) -> dict[str, Any]:
    namespace, _, name = key.partition("/")
    entry: Mapping[str, Any] = next(
        (
            pod
            for pod in states.get(node, {}).get("pods", [])
            if (pod["namespace"], pod["name"]) == (namespace, name)
        ),
        {},
    )
    state = entry.get("state", "Pending") if node in running else "Unknown"
    return {
        "namespace": namespace,
        "name": name,
        "node": node,
        "ip": entry.get("ip") or "",
        "state": state,
        "restarts": sum(each["restarts"] for each in entry.get("containers", [])),
    }


def _check(
    client: docker.DockerClient, cluster: Cluster, listings: Mapping[str, inventory.Listing]
) -> Report:
    addresses = {node: inventory.address(listing) for node, listing in listings.items()}
    observed = Observed.of(addresses, _states(client, listings))
    running = {node: listings[node]["Id"] for node in observed.node_ips}
    return probe.run(client, cluster, running, observed)


def _states(
    client: docker.DockerClient, listings: Mapping[str, inventory.Listing]
) -> dict[str, dict[str, Any]]:
    read = partial(container.read_state, client)
    return dict(zip(listings, each(read, listings.values()), strict=True))


def cluster_of(
    client: docker.DockerClient,
    name: str,
    listings: Mapping[str, inventory.Listing] | None = None,
) -> Cluster:
    """The topology that the nodes of testbed ``name`` carry.

    Raises:
        UsageError: no node ever got one.
    """
    found = inventory.containers(client, name) if listings is None else listings
    for listing in found.values():
        try:
            return from_json(inventory.read_cluster(client, listing))
        except FileNotFoundError:
            continue
    raise UsageError(
        f"testbed {name!r} has no node that holds a topology: its `up` did not get that far. "
        f"`testbed up` again, or `testbed down {name}`."
    )


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
def _locked(name: str, tell: Narrator) -> Iterator[None]:
    def waiting(pid: int) -> None:
        tell("", "wait", f"another testbed command (process {pid or 'unknown'}) works on {name}")

    with lock.held(name, waiting):
        yield


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[phase] = time.perf_counter() - start
