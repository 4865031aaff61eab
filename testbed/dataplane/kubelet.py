"""What the kubelet itself has in iptables on every node, whatever kube-proxy's mode.

Reproduces ``pkg/kubelet/kubelet_network_linux.go`` since ``IPTablesOwnershipCleanup``. The kubelet
is on a node before kube-proxy, so its jumps are below those that kube-proxy puts on top.
"""

from __future__ import annotations

from collections.abc import Mapping

from testbed.dataplane.fragment import Table

__all__ = ["TABLES"]

_CANARY = "KUBE-KUBELET-CANARY"
"""Empty: when it is gone, somebody has flushed the table, and the kubelet writes its rules anew."""
_LOCALNET = (
    '! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" '
    "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
)
"""Against CVE-2020-8558, which ``route_localnet`` opens."""

TABLES: Mapping[str, Table] = {
    "mangle": Table({"KUBE-IPTABLES-HINT": (), _CANARY: ()}),
    "nat": Table({_CANARY: ()}),
    "filter": Table(
        {"KUBE-FIREWALL": (_LOCALNET,), _CANARY: ()},
        {"INPUT": ("-j KUBE-FIREWALL",), "OUTPUT": ("-j KUBE-FIREWALL",)},
    ),
}
"""Table → the kubelet's chains, and its jumps. The hint tells others which iptables is in use."""
