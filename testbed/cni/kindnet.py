"""kindnet: what kindnetd leaves on a node of a kind cluster, and its conflist.

Reproduces `kindnetd <https://github.com/kubernetes-sigs/kind/tree/main/images/kindnetd>`_ and the
sysctls of kind's node image: pods on upstream's ``ptp`` plugin, one plain route per remote node and
a masquerade chain. kindnetd enforces network policies by a queue to user space, which is left out.
"""

from __future__ import annotations

import json

from testbed.dataplane.features import Features
from testbed.dataplane.spec import File, NodeSpec, Ruleset
from testbed.dataplane.underlay import Underlay
from testbed.overlay import direct
from testbed.topology.cnis import Traits
from testbed.topology.model import Cluster, Node

__all__ = ["TRAITS", "plan", "requires"]

TRAITS = Traits({"ptp": {}})
"""kindnetd knows no other way; its nodes share one segment."""

_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    # All pod veths of a node have the same /32 address, which a stricter node would not answer for.
    "net.ipv4.conf.all.arp_ignore": "0",
    # In kind, pods reach Docker's resolver on 127.0.0.11 by DNAT.
    "net.ipv4.conf.all.route_localnet": "1",
    "net.ipv4.conf.default.rp_filter": "1",
    "net.ipv4.conf.all.rp_filter": "1",
}


def requires(cluster: Cluster) -> frozenset[str]:
    """Nothing beyond what every pod needs."""
    del cluster
    return frozenset()


def plan(cluster: Cluster, node: Node, underlay: Underlay, features: Features) -> NodeSpec:
    """What ``node`` holds when kindnetd has converged. Pods are added by :mod:`testbed.plan`."""
    del features  # nothing here depends on the kernel
    remotes = (
        (each.pod_cidr, underlay.address_of(each.network, each.index))
        for each in cluster.nodes
        if each.name != node.name
    )
    conflist = File(
        "/etc/cni/net.d/10-kindnet.conflist", _conflist(node, underlay.mtu), attaches=True
    )
    return NodeSpec(
        testbed=cluster.name,
        node=node.name,
        files=(conflist,),
        sysctls=_SYSCTLS,
        objects=direct.routes(remotes, underlay),
        rulesets=(Ruleset("kindnet", _rules(cluster)),),
    )


def _conflist(node: Node, mtu: int) -> str:
    """What kindnetd writes from its template; the MTU is that of ``eth0``."""
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni-ipam-state",
        "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": str(node.pod_cidr)}]],
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "ipam": ipam, "mtu": mtu},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    content = {"cniVersion": "0.3.1", "name": "kindnet", "plugins": plugins}
    return json.dumps(content, indent=2) + "\n"


def _rules(cluster: Cluster) -> str:
    """KIND-MASQ-AGENT in ``iptables-save``'s own spelling."""
    comment = '-m comment --comment "kind-masq-agent:'
    return f"""\
*nat
:KIND-MASQ-AGENT - [0:0]
-A POSTROUTING -m addrtype ! --dst-type LOCAL {comment} ensure nat POSTROUTING directs all \
non-LOCAL destination traffic to our custom KIND-MASQ-AGENT chain" -j KIND-MASQ-AGENT
-A KIND-MASQ-AGENT -d {cluster.cluster_cidr} {comment} local traffic is not subject to \
MASQUERADE" -j RETURN
-A KIND-MASQ-AGENT {comment} outbound traffic is subject to MASQUERADE (must be last in \
chain)" -j MASQUERADE
COMMIT
"""
