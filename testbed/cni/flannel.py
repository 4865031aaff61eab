"""Flannel: what flanneld leaves on a node, and the conflist of kube-flannel.yml.

Reproduces flannel's ``vxlan`` backend (with ``DirectRouting``) and ``host-gw``, its iptables
manager and ``/run/flannel/subnet.env``; `the project's documentation
<https://github.com/flannel-io/flannel/blob/master/Documentation/backends.md>`_ names the options.
flannel has no network policies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from testbed.dataplane.features import Features
from testbed.dataplane.spec import File, KernelObject, NodeSpec, Ruleset
from testbed.dataplane.underlay import Underlay
from testbed.overlay import direct, vxlan
from testbed.topology.model import Cluster, Node

__all__ = ["BACKENDS", "plan", "requires"]

BACKENDS: Mapping[str, Mapping[str, type]] = {
    "vxlan": {"vni": int, "port": int, "mtu": int, "direct_routing": bool},
    "host-gw": {},
}
"""Backend types and their options; the first is the default."""

_VNI = 1
_PORT = 8472
"""Linux's own default, which flannel gets by leaving the attribute out (IANA's is 4789)."""
_CONFLIST = {
    "name": "cbr0",
    "cniVersion": "0.3.1",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ],
}


def requires(cluster: Cluster) -> frozenset[str]:
    """Kernel features without which this topology cannot run."""
    return frozenset({"br_netfilter"} | ({"vxlan"} if cluster.backend.type == "vxlan" else set()))


def plan(cluster: Cluster, node: Node, underlay: Underlay, features: Features) -> NodeSpec:
    """What ``node`` holds when flanneld has converged. Pods are added by :mod:`testbed.plan`."""
    del features  # every choice of this CNI is the topology's
    mtu = _mtu(cluster, underlay)
    return NodeSpec(
        testbed=cluster.name,
        node=node.name,
        files=(
            _json_file("/etc/cni/net.d/10-flannel.conflist", _CONFLIST, attaches=True),
            _json_file("/etc/kube-flannel/net-conf.json", _net_conf(cluster)),
            File("/run/flannel/subnet.env", _subnet_env(cluster, node, mtu), attaches=True),
        ),
        sysctls=_sysctls(cluster),
        objects=_objects(cluster, node, underlay, mtu),
        rulesets=(Ruleset("flannel", _rules(cluster, node)),),
    )


def vtep_mac(testbed: str, node: str) -> str:
    """A locally administered unicast address, the same at every start of the node.

    flanneld draws it at random once and finds it again in the node's annotation; here the name
    stands for the annotation.
    """
    octets = bytearray(sha256(f"{testbed}/{node}/vtep".encode()).digest()[:6])
    octets[0] = (octets[0] & 0xFE) | 0x02
    return ":".join(f"{octet:02x}" for octet in octets)


def _vni(cluster: Cluster) -> int:
    return int(cluster.backend.options.get("vni", _VNI))


def _mtu(cluster: Cluster, underlay: Underlay) -> int:
    """The pods' MTU in bytes; the ``mtu`` option replaces the uplink's *before* the overhead."""
    if cluster.backend.type == "host-gw":
        return underlay.mtu
    return int(cluster.backend.options.get("mtu", underlay.mtu)) - vxlan.OVERHEAD


def _objects(
    cluster: Cluster, node: Node, underlay: Underlay, mtu: int
) -> tuple[KernelObject, ...]:
    vteps = {
        each.name: vxlan.Vtep(
            underlay.address_of(each.index), each.pod_cidr, vtep_mac(cluster.name, each.name)
        )
        for each in cluster.nodes
    }
    own = vteps.pop(node.name)
    plain = direct.routes(
        ((remote.pod_cidr, remote.underlay_ip) for remote in vteps.values()), underlay
    )
    if cluster.backend.type == "host-gw":
        return plain
    name = f"flannel.{_vni(cluster)}"
    port = int(cluster.backend.options.get("port", _PORT))
    device = vxlan.device(name, own, vni=_vni(cluster), port=port, mtu=mtu, underlay=underlay)
    # All nodes share one segment, so with DirectRouting every remote is a direct one.
    if cluster.backend.options.get("direct_routing", False):
        return device + plain
    return device + vxlan.peers(name, tuple(vteps.values()))


def _sysctls(cluster: Cluster) -> dict[str, str]:
    sysctls = {"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": "1"}
    if cluster.backend.type == "vxlan":
        sysctls[f"net.ipv6.conf.flannel/{_vni(cluster)}.accept_ra"] = "0"
    return sysctls


def _subnet_env(cluster: Cluster, node: Node, mtu: int) -> str:
    gateway = node.pod_cidr.network_address + 1
    return (
        f"FLANNEL_NETWORK={cluster.cluster_cidr}\n"
        f"FLANNEL_SUBNET={gateway}/{node.pod_cidr.prefixlen}\n"
        f"FLANNEL_MTU={mtu}\n"
        "FLANNEL_IPMASQ=true\n"
    )


def _net_conf(cluster: Cluster) -> dict[str, Any]:
    backend: dict[str, Any] = {"Type": cluster.backend.type}
    spelling = {"vni": "VNI", "port": "Port", "mtu": "MTU", "direct_routing": "DirectRouting"}
    backend |= {spelling[key]: value for key, value in cluster.backend.options.items()}
    return {"Network": str(cluster.cluster_cidr), "EnableNFTables": False, "Backend": backend}


def _rules(cluster: Cluster, node: Node) -> str:
    """FLANNEL-POSTRTG and FLANNEL-FWD in ``iptables-save``'s own spelling."""
    network, own = cluster.cluster_cidr, node.pod_cidr
    masq = '-m comment --comment "flanneld masq" -j'
    forward = '-m comment --comment "flanneld forward" -j'
    return f"""\
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD {forward} FLANNEL-FWD
-A FLANNEL-FWD -s {network} {forward} ACCEPT
-A FLANNEL-FWD -d {network} {forward} ACCEPT
COMMIT
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING {masq} FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {masq} RETURN
-A FLANNEL-POSTRTG -s {own} -d {network} {masq} RETURN
-A FLANNEL-POSTRTG -s {network} -d {own} {masq} RETURN
-A FLANNEL-POSTRTG ! -s {network} -d {own} {masq} RETURN
-A FLANNEL-POSTRTG -s {network} ! -d 224.0.0.0/4 {masq} MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {network} -d {network} {masq} MASQUERADE --random-fully
COMMIT
"""


def _json_file(path: str, content: object, *, attaches: bool = False) -> File:
    return File(path, json.dumps(content, indent=2) + "\n", attaches=attaches)
