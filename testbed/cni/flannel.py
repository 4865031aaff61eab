"""Flannel: what flanneld leaves on a node, and the conflist of kube-flannel.yml.

Reproduces flannel's ``vxlan``, ``host-gw``, ``ipip`` (both tunnels with ``DirectRouting``) and
``wireguard`` backends, its iptables manager and ``/run/flannel/subnet.env``; `its documentation
<https://github.com/flannel-io/flannel/blob/master/Documentation/backends.md>`_ names the options.
flannel has no network policies.
"""

from __future__ import annotations

import json
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from testbed.dataplane import objects
from testbed.dataplane.features import Features
from testbed.dataplane.spec import File, KernelObject, NodeSpec, Ruleset, Tunnel
from testbed.dataplane.underlay import Underlay
from testbed.overlay import direct, ipip, vxlan, wireguard
from testbed.topology.cnis import Traits
from testbed.topology.model import Cluster, Node

__all__ = ["TRAITS", "plan", "requires"]

TRAITS = Traits(
    {
        "vxlan": {"vni": int, "port": int, "mtu": int, "direct_routing": bool},
        "host-gw": {},
        "ipip": {"direct_routing": bool},
        "wireguard": {"port": int, "mtu": int, "keepalive": int},
    },
    routed=frozenset({"vxlan", "ipip", "wireguard"}),
)
"""WireGuard's ``Mode`` is ``separate``: the modes differ in what becomes of IPv6."""

_VNI = 1
_PORT = 8472
"""Linux's own default, which flannel gets by leaving the attribute out (IANA's is 4789)."""
_WIREGUARD_PORT = 51820
_IPIP, _WIREGUARD = "flannel.ipip", "flannel-wg"
"""Names of the devices; that of VXLAN has its VNI."""
_OVERHEAD = {
    "vxlan": vxlan.OVERHEAD,
    "host-gw": 0,
    "ipip": ipip.OVERHEAD,
    "wireguard": wireguard.OVERHEAD,
}
_SPELLING = {
    "vxlan": {"vni": "VNI", "port": "Port", "mtu": "MTU", "direct_routing": "DirectRouting"},
    "ipip": {"direct_routing": "DirectRouting"},
    "wireguard": {"port": "ListenPort", "mtu": "MTU", "keepalive": "PersistentKeepaliveInterval"},
}
"""The options' names in flannel's own configuration."""
_IPV6_MTU = 1280
"""A device with a smaller MTU has no IPv6, and none of its settings."""
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
    driver = "ipip_ebpf" if cluster.ipip == "ebpf" else "ipip"
    tunnel = {"vxlan": {"vxlan"}, "ipip": {driver}, "wireguard": {"wireguard"}}
    return frozenset({"br_netfilter"} | tunnel.get(cluster.backend.type, set()))


def plan(cluster: Cluster, node: Node, underlay: Underlay, features: Features) -> NodeSpec:
    """What ``node`` holds when flanneld has converged. Pods are added by :mod:`testbed.plan`."""
    del features  # every choice of this CNI is the topology's
    backend = cluster.backend.type
    mtu = _mtu(cluster, underlay)
    files = [
        _json_file("/etc/cni/net.d/10-flannel.conflist", _CONFLIST, attaches=True),
        _json_file("/etc/kube-flannel/net-conf.json", _net_conf(cluster)),
        File("/run/flannel/subnet.env", _subnet_env(cluster, node, mtu), attaches=True),
    ]
    rulesets = [Ruleset("flannel", _rules(cluster, node))]
    if backend == "wireguard":
        key = wireguard.private_key(cluster.name, node.name)
        files.append(File("/run/flannel/wgkey", key, mode=0o400))
        rulesets.append(Ruleset(_WIREGUARD, _wireguard_settings(cluster, node, underlay), "wg"))
    by_program = backend == "ipip" and cluster.ipip == "ebpf"
    return NodeSpec(
        testbed=cluster.name,
        node=node.name,
        files=tuple(files),
        sysctls=_sysctls(cluster, mtu),
        objects=_objects(cluster, node, underlay, mtu),
        rulesets=tuple(rulesets),
        tunnels=(Tunnel(_IPIP, underlay.device),) if by_program else (),
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
    mtu = int(cluster.backend.options.get("mtu", underlay.mtu))
    return mtu - _OVERHEAD[cluster.backend.type]


def _objects(
    cluster: Cluster, node: Node, underlay: Underlay, mtu: int
) -> tuple[KernelObject, ...]:
    remotes = [each for each in cluster.nodes if each.name != node.name]
    match cluster.backend.type:
        case "vxlan":
            return _vxlan(cluster, node, underlay, mtu)
        case "ipip":
            return _ipip(cluster, node, underlay, mtu)
        case "wireguard":
            return wireguard.device(
                _WIREGUARD, own=node.pod_cidr, network=cluster.cluster_cidr, mtu=mtu
            )
    return direct.routes(((each.pod_cidr, _address(each, underlay)) for each in remotes), underlay)


def _vxlan(cluster: Cluster, node: Node, underlay: Underlay, mtu: int) -> tuple[KernelObject, ...]:
    """The VTEP, what it needs for each node that it is used for, and plain routes to the rest."""
    vteps = {
        each.name: vxlan.Vtep(
            _address(each, underlay), each.pod_cidr, vtep_mac(cluster.name, each.name)
        )
        for each in cluster.nodes
    }
    own = vteps.pop(node.name)
    plain = [vteps.pop(each.name) for each in _direct(cluster, node)]
    name = f"flannel.{_vni(cluster)}"
    port = int(cluster.backend.options.get("port", _PORT))
    device = vxlan.device(name, own, vni=_vni(cluster), port=port, mtu=mtu, underlay=underlay)
    routes = direct.routes(((each.pod_cidr, each.underlay_ip) for each in plain), underlay)
    return device + vxlan.peers(name, tuple(vteps.values())) + routes


def _ipip(cluster: Cluster, node: Node, underlay: Underlay, mtu: int) -> tuple[KernelObject, ...]:
    """The tunnel and a route to each remote node, which keeps ``onlink`` where it is direct."""
    plain = {each.name for each in _direct(cluster, node)}
    routes = (
        objects.route(
            each.pod_cidr,
            via=_address(each, underlay),
            device=underlay.device if each.name in plain else _IPIP,
            onlink=True,
        )
        for each in cluster.nodes
        if each.name != node.name
    )
    own = IPv4Interface((node.pod_cidr.network_address, 32))
    link = (
        objects.existing_link(_IPIP, mtu=mtu)
        if cluster.ipip == "ebpf"
        else _ipip_link(_address(node, underlay), mtu)
    )
    return (link, objects.address(_IPIP, own), *routes)


def _ipip_link(local: IPv4Address, mtu: int) -> KernelObject:
    """The kernel's own device: it takes every packet to ``local`` and has no other end."""
    ends = {"remote": "any", "local": str(local)}
    return KernelObject(
        "link",
        {"ifname": _IPIP},
        fixed={"linkinfo": {"info_kind": "ipip", "info_data": ends}},
        want={"mtu": mtu, "flags": ["UP"]},
        create=(
            f"link add {_IPIP} mtu {mtu} type ipip remote any local {local} ttl inherit nopmtudisc",
            f"link set {_IPIP} up",
        ),
        change=(f"link set {_IPIP} mtu {mtu} up",),
        delete=(f"link delete {_IPIP}",),
    )


def _wireguard_settings(cluster: Cluster, node: Node, underlay: Underlay) -> str:
    peers = (
        wireguard.Peer(
            _address(each, underlay),
            each.pod_cidr,
            wireguard.public_key(cluster.name, each.name),
        )
        for each in cluster.nodes
        if each.name != node.name
    )
    return wireguard.settings(
        wireguard.private_key(cluster.name, node.name),
        peers,
        port=int(cluster.backend.options.get("port", _WIREGUARD_PORT)),
        keepalive=int(cluster.backend.options.get("keepalive", 0)),
    )


def _direct(cluster: Cluster, node: Node) -> list[Node]:
    """The remote nodes that DirectRouting leaves the tunnel out for: they share the segment."""
    if not cluster.backend.options.get("direct_routing", False):
        return []
    return [
        each for each in cluster.nodes if each.name != node.name and each.network == node.network
    ]


def _address(node: Node, underlay: Underlay) -> IPv4Address:
    return underlay.address_of(node.network, node.index)


def _sysctls(cluster: Cluster, mtu: int) -> dict[str, str]:
    sysctls = {"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": "1"}
    if cluster.backend.type == "vxlan" and mtu >= _IPV6_MTU:
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
    spelling = _SPELLING.get(cluster.backend.type, {})
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
