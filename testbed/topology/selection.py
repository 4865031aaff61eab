"""Which endpoints of a portal the traffic that enters on one node gets.

Reproduces ``CategorizeEndpoints`` of ``pkg/proxy/topology.go`` without zones, which is the same in
all of kube-proxy's modes.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.topology.portals import Portal, Target

__all__ = ["Selection", "select"]


@dataclass(frozen=True, slots=True)
class Selection:
    """A portal on one node."""

    portal: Portal
    reachable: bool
    """Whether it has endpoints that can be used, on any node."""
    cluster: tuple[Target, ...]
    """Those of policy Cluster; empty where that is never in effect."""
    local: tuple[Target, ...]
    """Those of policy Local, likewise."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """All that are used: a terminating local one may be beside those of the cluster."""
        if not self.local:
            return self.cluster
        return tuple(dict.fromkeys((*self.cluster, *self.local)))

    @property
    def internal(self) -> bool:
        """Whether the cluster IP leads to endpoints from here."""
        return bool(self.local) if self.portal.internal_local else self.reachable

    @property
    def outside(self) -> bool:
        """Whether external addresses lead clients outside the cluster to endpoints."""
        return bool(self.local) if self.portal.external_local else self.reachable

    @property
    def restricted(self) -> bool:
        """Whether ``loadBalancerSourceRanges`` is in effect."""
        portal = self.portal
        return self.reachable and bool(portal.load_balancer_ip and portal.source_ranges)


def select(portal: Portal, node: str) -> Selection:
    """The endpoints for traffic that enters on ``node``.

    Pods and the node itself are not subject to the external policy, so that whatever can be
    reached from outside needs the cluster's endpoints, too.
    """
    usable, external = portal.usable, portal.external
    return Selection(
        portal,
        reachable=bool(usable),
        cluster=usable if external or not portal.internal_local else (),
        local=portal.local(node)
        if portal.internal_local or (external and portal.external_local)
        else (),
    )
