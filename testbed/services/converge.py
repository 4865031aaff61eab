"""Bringing what every node holds for Services to what the cluster says now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from testbed.dataplane.underlay import Underlay
from testbed.node import services as delivery
from testbed.node.inventory import Listing
from testbed.node.parallel import each
from testbed.services import documents, state
from testbed.services.documents import Held
from testbed.services.kept import kept_by
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
    verify: bool,
) -> None:
    """Tell every node that runs what changed; with ``verify``, everything.

    A node that holds something else than the first one, because it did not run when that changed,
    is told everything, too.

    Raises:
        ApplyError: a native tool on a node refused what it was told.
    """
    now = documents.held(cluster.proxy, state.inputs(cluster, pods))
    before: Held | None = None
    if not verify:
        generation, kept = kept_by(client, cluster, listings)
        if generation:
            before = Held(generation, kept, state.joined(kept))

    def deliver(node: Node) -> None:
        container = listings[node.name]["Names"][0].lstrip("/")
        document = documents.document(cluster, node, underlay, now, before)
        answer = delivery.deliver(client, container, document)
        if "stale" in answer:
            document = documents.document(cluster, node, underlay, now, None)
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
