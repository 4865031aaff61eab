"""Bringing what every node holds for Services to what the cluster says now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from testbed.dataplane.underlay import Underlay
from testbed.node import services as delivery
from testbed.node.inventory import Listing
from testbed.node.parallel import each
from testbed.node.services import Kept
from testbed.services import documents, state
from testbed.services.announced import await_announcers, holders
from testbed.topology.model import Cluster, Node
from testbed.topology.portals import Seen

if TYPE_CHECKING:
    import docker

__all__ = ["converge"]


def converge(
    client: docker.DockerClient,
    cluster: Cluster,
    underlay: Underlay,
    listings: Mapping[str, Listing],
    pods: Mapping[str, Seen],
    tell: Callable[[str, str, str], None],
    *,
    before: Kept | None = None,
) -> Kept:
    """Tell every node that runs what changed since ``before``, or everything; return what is kept.

    A node that holds something else than ``before``, because it did not run when that changed, is
    told everything, too. Told everything, a node compares with what its kernel holds.

    Raises:
        ApplyError: a native tool on a node refused what it was told.
        NodeError: a load balancer's address did not get to its node.
    """
    now, portals = state.kept(cluster, pods)
    known = before if before and before.generation else None
    change = documents.update(now, portals, known)

    def deliver(node: Node) -> None:
        container = listings[node.name]["Names"][0].lstrip("/")
        document = documents.document(cluster, node, underlay, change)
        answer = delivery.deliver(client, container, document)
        if "stale" in answer:
            whole = documents.update(now, portals)
            document = documents.document(cluster, node, underlay, whole)
            answer = delivery.deliver(client, container, document)
        changes = answer["changes"]
        told = f"{len(changes)} changes" if changes else "nothing to change"
        tell(node.name, "services", told)

    running = [
        node
        for node in cluster.nodes
        if node.name in listings and listings[node.name]["State"] == "running"
    ]
    each(deliver, running)
    if cluster.load_balancer.announce == "layer2":
        containers = {node.name: listings[node.name]["Names"][0].lstrip("/") for node in running}
        changed = {key: portals[key] for key in change.keys if key in portals}
        wanted = holders(cluster, underlay, changed, containers)
        await_announcers(client, wanted, containers)
    return now
