"""How the world outside learns where Services of type LoadBalancer are. Pure.

What a MetalLB speaker (by ARP) or Calico's confd (by BGP) would do on a node, as files and daemons,
and the health checks by which load balancers ask kube-proxy. :mod:`.layer2` announces by ARP,
:mod:`.routes` by BGP, :mod:`.health` answers.
"""

from __future__ import annotations

from testbed.announce.planner import plan

__all__ = ["plan"]
