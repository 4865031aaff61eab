"""What testbeds are there: their names, their topology, their status, and their removal.

Needs neither planner nor probe, so that ``status`` and ``down`` answer fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from testbed.errors import UsageError
from testbed.node import container, inventory, lock
from testbed.node.parallel import each
from testbed.topology.model import Cluster
from testbed.topology.serialize import from_json

if TYPE_CHECKING:
    import docker

__all__ = [
    "Narrator",
    "choose",
    "cluster_of",
    "describe",
    "down",
    "locked",
    "names",
    "states_of",
    "status",
]

_WHEN_NOT = {"paused": "paused"}
"""The engine's word for a container that does not run → a node's state; otherwise ``stopped``."""

Narrator = Callable[[str, str, str], None]
"""Told a node's name (empty: the testbed as a whole), a step, and what happened."""


def down(client: docker.DockerClient, name: str, tell: Narrator) -> int:
    """Remove everything of testbed ``name``; return how many node containers there were."""
    with locked(name, tell):
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


def status(client: docker.DockerClient, name: str) -> dict[str, Any]:
    """The testbed as ``testbed status -o json`` prints it."""
    listings = inventory.containers(client, name)
    cluster = cluster_of(client, name, listings)
    return describe(cluster, listings, states_of(client, listings))


def describe(
    cluster: Cluster,
    listings: Mapping[str, inventory.Listing],
    states: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Join the topology, the engine's listing and the agents' states to a status."""
    nodes = [
        _node_status(node.name, str(node.pod_cidr), listings.get(node.name), states)
        for node in cluster.nodes
    ]
    running = {node for node, listing in listings.items() if listing["State"] == "running"}
    pods = [_pod_status(pod.key, pod.node, states, running) for pod in cluster.pods]
    healthy = all(each["state"] == "ready" for each in nodes) and all(
        each["state"] in ("Running", "Succeeded") for each in pods
    )
    return {
        "name": cluster.name,
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
        "state": states[node].get("phase", "booting")
        if running
        else _WHEN_NOT.get(listing["State"], "stopped"),
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


def states_of(
    client: docker.DockerClient, listings: Mapping[str, inventory.Listing]
) -> dict[str, dict[str, Any]]:
    """Node name → its agent's state; empty where the node never booted."""
    read = partial(container.read_state, client)
    return dict(zip(listings, each(read, listings.values()), strict=True))


@contextmanager
def locked(name: str, tell: Narrator) -> Iterator[None]:
    """Be the only command that changes testbed ``name``; tell who is waited for."""

    def waiting(pid: int) -> None:
        tell("", "wait", f"another testbed command (process {pid or 'unknown'}) works on {name}")

    with lock.held(name, waiting):
        yield
