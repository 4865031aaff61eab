"""Everything that one node announces and answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from testbed.announce import health, layer2, routes
from testbed.dataplane.spec import File, Process
from testbed.dataplane.underlay import Underlay
from testbed.topology.model import Cluster, Node
from testbed.topology.portals import Portal

__all__ = ["plan"]


def plan(
    cluster: Cluster, node: Node, underlay: Underlay, portals: Mapping[str, tuple[Portal, ...]]
) -> tuple[tuple[File, ...], tuple[Process, ...]]:
    """Files and daemons of ``node``; none where no Service is of type LoadBalancer.

    ``portals`` are those of every Service by its key.

    Raises:
        PlanError: the pool has more addresses in use than virtual routers can have.
    """
    balanced = {
        key: each for key, each in sorted(portals.items()) if each and each[0].load_balancer_ip
    }
    if not balanced:
        return (), ()
    announcer = routes if cluster.load_balancer.announce == "bgp" else layer2
    files, processes = announcer.plan(cluster, node, underlay, balanced)
    if cluster.proxy != "none":
        answering = health.plan(node, balanced)
        files, processes = files + answering[0], processes + answering[1]
    return files, processes
