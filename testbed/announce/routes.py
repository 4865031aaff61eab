"""Load balancer addresses by BGP: BIRD on the nodes announces each as a route. Pure.

As Calico does with ``serviceLoadBalancerIPs``: the addresses are static routes of BIRD, which the
filter of its kernel protocol keeps out of the kernel (:mod:`testbed.bgp.bird` has both filters), so
that kube-proxy's rules still see packets to them. Calico announces the whole range of Services with
policy Cluster from every node; here each address is a route of its own, and one without endpoints
is not announced.
"""

from __future__ import annotations

from collections.abc import Mapping

from testbed.bgp import bird
from testbed.dataplane.spec import File, Process
from testbed.dataplane.underlay import Underlay
from testbed.topology.model import Cluster, Node
from testbed.topology.portals import Portal, answers

__all__ = ["plan"]


def plan(
    cluster: Cluster, node: Node, underlay: Underlay, portals: Mapping[str, tuple[Portal, ...]]
) -> tuple[tuple[File, ...], tuple[Process, ...]]:
    """The file that BIRD's own includes; BIRD itself runs already."""
    del cluster, underlay  # the next hop is whoever tells
    lines = [
        f"   route {each[0].load_balancer_ip}/32 blackhole;  # {key}\n"
        for key, each in portals.items()
        if answers(each, node.name)
    ]
    if not lines:
        return (), ()
    return (File(bird.SERVICES, bird.services(lines)),), ()
