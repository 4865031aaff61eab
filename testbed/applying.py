"""Changing a testbed that runs: what ``testbed apply`` and ``testbed delete`` do.

In the order in which a cluster's controllers would: endpoints of pods that go are withdrawn first,
then pods go and come, then Services follow the pods that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from testbed import collection
from testbed.dataplane.underlay import Underlay
from testbed.errors import NodeError
from testbed.existing import Narrator, cluster_of, locked, states_of
from testbed.node import container, features, image, inventory, underlay
from testbed.node.parallel import each
from testbed.node.progress import silent
from testbed.node.services import Kept
from testbed.plan import cni, plan, require
from testbed.services.converge import converge
from testbed.services.kept import kept_as_told
from testbed.services.state import held, seen
from testbed.topology import changes
from testbed.topology.load_balancer import addressed
from testbed.topology.model import Cluster

if TYPE_CHECKING:
    import docker

    from testbed.node.inventory import Listing
    from testbed.topology.load import Objects

__all__ = ["Change", "apply", "delete"]


@dataclass(frozen=True, slots=True)
class Change:
    """What a change came to: the names of what is new, other or gone, sorted."""

    cluster: Cluster
    """As it is now."""
    created: tuple[str, ...]
    configured: tuple[str, ...]
    deleted: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether everything was as wanted already."""
        return not (self.created or self.configured or self.deleted)


def apply(client: docker.DockerClient, name: str, documents: Objects, tell: Narrator) -> Change:
    """Create or change in testbed ``name`` what Kubernetes objects describe.

    Raises:
        TopologyError: what is asked for is wrong; nothing was touched.
        NodeError: a node does not run, or refused what it was told.
    """

    def alter(cluster: Cluster) -> Cluster:
        return changes.applied(cluster, documents, traits=cni(cluster.cni).TRAITS)

    return _change(client, name, alter, tell)


def delete(
    client: docker.DockerClient,
    name: str,
    documents: Objects,
    tell: Narrator,
    *,
    missing_ok: bool = False,
) -> Change:
    """Remove from testbed ``name`` what Kubernetes objects describe.

    Raises:
        TopologyError: something is not there, unless ``missing_ok``; nothing was touched.
        NodeError: a node does not run, or refused what it was told.
    """

    def alter(cluster: Cluster) -> Cluster:
        return changes.deleted(cluster, documents, missing_ok=missing_ok)

    return _change(client, name, alter, tell)


def _change(
    client: docker.DockerClient, name: str, alter: Callable[[Cluster], Cluster], tell: Narrator
) -> Change:
    with locked(name, tell), collection.paused():  # a tenth of the time, with 10,000 endpoints
        listings = inventory.containers(client, name)
        cluster, kept, states = _read(client, name, listings)
        before = held(cluster, kept.inputs)
        networks = _networks(client, name, before)
        wanted = alter(before)
        now = addressed(wanted, networks.subnets)
        _require_current(name, listings)
        if now.pods != before.pods:
            _require_running(now, listings)
        if now.pods != before.pods:
            stay = {pod.key for pod in now.pods if pod in before.pods}
            if len(stay) < len(before.pods):
                pods = {key: pod for key, pod in seen(before, states).items() if key in stay}
                kept = converge(client, before, networks, listings, pods, tell, before=kept)
            states = _sync(client, now, networks, listings, tell)
        pods = seen(now, states)
        # Where nothing is to change, nodes compare what they should hold with their kernels.
        known = None if now == before else kept
        converge(client, now, networks, listings, pods, tell, before=known)
    return _difference(before, now)


def _read(
    client: docker.DockerClient, name: str, listings: Mapping[str, Listing]
) -> tuple[Cluster, Kept, dict[str, dict[str, Any]]]:
    """The topology, the Services and the agents' states."""
    reading: list[Callable[[], Any]] = [
        lambda: cluster_of(client, name, listings),
        lambda: states_of(client, listings),
    ]
    cluster, states = each(lambda read: read(), reading)
    return cluster, kept_as_told(client, listings, states), states


def _networks(client: docker.DockerClient, name: str, cluster: Cluster) -> Underlay:
    found = underlay.find(client, name)
    missing = [each.name for each in cluster.networks if each.name not in found]
    if missing:
        raise NodeError(
            f"testbed {name!r} has no network {', '.join(missing)} any more. `testbed up` with its "
            "topology makes it anew."
        )
    return Underlay({each.name: found[each.name] for each in cluster.networks})


def _require_current(name: str, listings: Mapping[str, Listing]) -> None:
    """An agent of another version may read a document otherwise than it is meant."""
    reference = image.reference()
    for machine, listing in listings.items():
        if listing["Image"] != reference:
            raise NodeError(
                f"{machine} of testbed {name!r} runs image {listing['Image']}, and this version of "
                f"testbed needs {reference}. `testbed up` with the same topology makes it anew."
            )


def _require_running(cluster: Cluster, listings: Mapping[str, Listing]) -> None:
    """Every machine is told of other pods; of other Services alone, those that run."""
    for machine in cluster.machines:
        if listings.get(machine, {}).get("State") != "running":
            raise NodeError(
                f"{machine} of testbed {cluster.name!r} does not run, and pods can only be changed "
                "when all nodes do. `testbed up` with the same topology brings it back."
            )


def _sync(
    client: docker.DockerClient,
    cluster: Cluster,
    networks: Underlay,
    listings: Mapping[str, Listing],
    tell: Narrator,
) -> dict[str, dict[str, Any]]:
    """Have every node hold its new spec; return the agents' states."""
    able = features.detect(client, image.ensure(client, silent))
    specs = plan(require(cluster, able), networks, able)

    def deliver(spec: Any) -> dict[str, Any]:
        def progress(step: str, message: str) -> None:
            tell(spec.node, step, message)

        return container.sync(client, spec, listings[spec.node], progress)

    return dict(zip((spec.node for spec in specs), each(deliver, specs), strict=True))


def _difference(before: Cluster, now: Cluster) -> Change:
    old, new = _named(before), _named(now)
    return Change(
        cluster=now,
        created=tuple(sorted(new.keys() - old.keys())),
        configured=tuple(sorted(key for key in old.keys() & new.keys() if old[key] != new[key])),
        deleted=tuple(sorted(old.keys() - new.keys())),
    )


def _named(cluster: Cluster) -> dict[str, object]:
    """As kubectl names them: ``service/web``, with the namespace where it is not ``default``."""
    found: dict[str, object] = {}
    for pod in cluster.pods:
        found[f"pod/{pod.key.removeprefix('default/')}"] = replace(pod, node="")
    for service in cluster.services:
        found[f"service/{service.key.removeprefix('default/')}"] = service
    for piece in cluster.slices:
        found[f"endpointslice/{piece.key.removeprefix('default/')}"] = piece
    return found
