"""What testbeds are there: their names, their topology, their status, and their removal.

Needs neither planner nor probe, so that ``status`` and ``down`` answer fast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from testbed.errors import UsageError
from testbed.node import container, details, inventory, lock, underlay
from testbed.node.parallel import each
from testbed.services.kept import kept_as_told, with_services
from testbed.services.state import seen
from testbed.services.status import entries
from testbed.topology.model import Cluster, Router
from testbed.topology.serialize import from_json

if TYPE_CHECKING:
    import docker

    from testbed.dataplane.underlay import Segment

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
    "whole_cluster_of",
]

_WHEN_NOT = {"paused": "paused"}
"""The engine's word for a container that does not run → a node's state; otherwise ``stopped``."""

Narrator = Callable[[str, str, str], None]
"""Told a node's name (empty: the testbed as a whole), a step, and what happened."""


def down(client: docker.DockerClient, name: str, tell: Narrator) -> Counter[str]:
    """Remove everything of testbed ``name``; return how many of each role there were."""
    with locked(name, tell):
        removed = inventory.remove_all(client, name)
    for listing in removed:
        tell("", "remove", f"container {_container(listing)}")
    return Counter(inventory.role(listing) for listing in removed)


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


def whole_cluster_of(client: docker.DockerClient, name: str) -> Cluster:
    """The topology of testbed ``name`` with the Services that it holds now.

    Raises:
        UsageError: no node ever got one.
    """
    listings = inventory.containers(client, name)
    return with_services(client, cluster_of(client, name, listings), listings)


def status(client: docker.DockerClient, name: str, *, verbose: bool = False) -> dict[str, Any]:
    """The testbed as ``testbed status -o json`` prints it; ``verbose`` as with ``-v``."""
    listings = inventory.containers(client, name)
    cluster = cluster_of(client, name, listings)
    states = states_of(client, listings)
    kept = kept_as_told(client, listings, states).inputs
    value = describe(cluster, underlay.find(client, name), listings, states, kept)
    if verbose:
        value |= details.read(client, cluster, listings, states)
    return value


def describe(
    cluster: Cluster,
    segments: Mapping[str, Segment],
    listings: Mapping[str, inventory.Listing],
    states: Mapping[str, Mapping[str, Any]],
    kept: Mapping[str, Any],
) -> dict[str, Any]:
    """Join the topology, the engine's networks and listing and the agents' states to a status.

    ``kept`` is what nodes hold of Services.
    """
    nodes = [
        {
            "name": node.name,
            "container": _container(listings.get(node.name)),
            "ip": inventory.address(listings.get(node.name, {})),
            "pod_cidr": ",".join(map(str, node.pod_cidrs)),
            "state": _state(node.name, listings, states),
        }
        for node in cluster.nodes
    ]
    routers = [_router_status(router, segments, listings, states) for router in cluster.routers]
    clients = [
        {
            "name": client.name,
            "container": _container(listings.get(client.name)),
            "ip": inventory.address(listings.get(client.name, {})),
            "state": _state(client.name, listings, states),
        }
        for client in cluster.clients
    ]
    running = {node for node, listing in listings.items() if listing["State"] == "running"}
    pods = [_pod_status(pod.key, pod.node, states, running) for pod in cluster.pods]
    healthy = all(each["state"] == "ready" for each in (*nodes, *routers, *clients)) and all(
        each["state"] in ("Running", "Succeeded") for each in pods
    )
    return {
        "name": cluster.name,
        "cni": cluster.cni,
        "backend": cluster.backend.type,
        "ipip": cluster.ipip if cluster.backend.type == "ipip" else "",
        "proxy": cluster.proxy,
        "state": "ready" if healthy else "degraded",
        "networks": [
            {"name": name, "subnet": str(segments[name].subnet) if name in segments else ""}
            for name in (network.name for network in cluster.networks)
        ],
        "nodes": nodes,
        "routers": routers,
        "clients": clients,
        "pods": pods,
        "services": entries(cluster, kept, seen(cluster, states)),
    }


def _router_status(
    router: Router,
    segments: Mapping[str, Segment],
    listings: Mapping[str, inventory.Listing],
    states: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Its addresses are in the order of its networks in the topology."""
    addresses = inventory.addresses(listings.get(router.name, {}))
    identities = [segments[name].identity for name in router.networks if name in segments]
    return {
        "name": router.name,
        "container": _container(listings.get(router.name)),
        "ips": [addresses[identity] for identity in identities if identity in addresses],
        "state": _state(router.name, listings, states),
    }


def _container(listing: inventory.Listing | None) -> str:
    return listing["Names"][0].lstrip("/") if listing else ""


def _state(
    node: str, listings: Mapping[str, inventory.Listing], states: Mapping[str, Mapping[str, Any]]
) -> str:
    """What the agent says of its node; what the engine says where it does not run."""
    if node not in listings:
        return "missing"
    state = listings[node]["State"]
    if state != "running":
        return _WHEN_NOT.get(state, "stopped")
    return str(states[node].get("phase", "booting"))


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
