"""Calico: what Felix, confd and calico-node leave on a node, and the manifest's conflist.

Pools ``ipip`` and ``vxlan`` with mode Always or CrossSubnet, and ``none`` (both Never). BIRD
distributes the routes of ``ipip`` and ``none`` pools; those of ``vxlan`` pools are Felix's, and so
are those of ``ipip`` with ``route_owner: felix``, as in Calico from 3.33 on. `Its documentation
<https://docs.tigera.io/calico/latest/networking/configuring/>`_ describes the modes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha1
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from testbed.bgp import bird, mesh
from testbed.dataplane import objects
from testbed.dataplane.features import Features
from testbed.dataplane.spec import File, KernelObject, NodeSpec, Ruleset, Tunnel
from testbed.dataplane.underlay import Underlay
from testbed.errors import PlanError
from testbed.overlay import ipip, vxlan
from testbed.policy import felix
from testbed.topology.cnis import OptionType, Traits
from testbed.topology.model import Cluster, Node

__all__ = ["TRAITS", "plan", "requires"]

_COMMON: dict[str, OptionType] = {
    "block_size": int,
    "strict_affinity": bool,
    "nat_outgoing": bool,
    "mtu": int,
}
_MODE: dict[str, OptionType] = {"mode": ("Always", "CrossSubnet")}
_BGP: dict[str, OptionType] = {"max_restart_time": int}
TRAITS = Traits(
    {
        "ipip": {**_MODE, "route_owner": ("bird", "felix"), **_BGP, **_COMMON},
        "vxlan": {**_MODE, **_COMMON},
        "none": {**_BGP, **_COMMON},
    },
    blocks=True,
    tunnels=frozenset({"ipip", "vxlan"}),
    routed=frozenset({"ipip", "vxlan", "none"}),
    bgp=frozenset({"ipip", "none"}),
)

_TUNNEL = {
    "ipip": felix.Encapsulation("ipip", "tunl0"),
    "vxlan": felix.Encapsulation("vxlan", "vxlan.calico"),
}
_OVERHEAD = {"ipip": ipip.OVERHEAD, "vxlan": vxlan.OVERHEAD, "none": 0}
_VNI = 4096
_PROTOCOL = 80
"""Felix's ``DefaultRouteProto``."""
_POOL = "default-ipv4-ippool"


def requires(cluster: Cluster) -> frozenset[str]:
    """Kernel features without which this topology cannot run."""
    driver = "ipip_ebpf" if cluster.ipip == "ebpf" else "ipip"
    tunnel = {"ipip": {driver}, "vxlan": {"vxlan"}}.get(cluster.backend.type, set())
    return frozenset({"ipset", "iptables_nft"} | tunnel)


def plan(cluster: Cluster, node: Node, underlay: Underlay, features: Features) -> NodeSpec:
    """What ``node`` holds when calico-node has converged. Pods are added by :mod:`testbed.plan`.

    Raises:
        PlanError: plain packets would have to cross a router that does not know the pods.
    """
    del features  # the IPIP driver was chosen before
    _check_routers(cluster)
    encapsulation = _TUNNEL.get(cluster.backend.type)
    newer = cluster.backend.options.get("route_owner") == "felix"
    pools_set = "cali40network-ip-pools" if newer else "cali40all-ipam-pools"
    addresses = [_address(each, underlay) for each in cluster.nodes]
    nat_outgoing = bool(cluster.backend.options.get("nat_outgoing", True))
    sets = felix.ipsets(
        encapsulation, addresses, cluster.cluster_cidr, pools_set, nat_outgoing=nat_outgoing
    )
    chains = felix.chains(
        encapsulation, _endpoints(cluster, node), pools_set, nat_outgoing=nat_outgoing
    )
    return NodeSpec(
        testbed=cluster.name,
        node=node.name,
        files=_files(cluster, node, underlay),
        sysctls={
            "net.ipv4.ip_forward": "1",
            "net.netfilter.nf_conntrack_acct": "1",
        },
        tunnels=_tunnels(cluster, underlay),
        objects=_device(cluster, node, underlay) + _routes(cluster, node, underlay),
        processes=(bird.process(),) if _speaks_bgp(cluster) else (),
        rulesets=(
            Ruleset("felix-sets", sets, tool="ipset"),
            Ruleset("felix", chains),
        ),
    )


def interface(namespace: str, pod: str) -> str:
    """The name of the node's end of a pod's veth."""
    digest = sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()
    return f"cali{digest[:11]}"


def vtep_mac(node: str) -> str:
    """``66:`` and the first five bytes of the name's SHA-1."""
    octets = b"\x66" + sha1(node.encode(), usedforsecurity=False).digest()[:5]
    return ":".join(f"{octet:02x}" for octet in octets)


def _check_routers(cluster: Cluster) -> None:
    networks = {node.network for node in cluster.nodes}
    silent = [router.name for router in cluster.routers if router.as_number is None]
    if cluster.backend.type == "none" and len(networks) > 1 and silent:
        raise PlanError(
            f"router {silent[0]} has no as_number, so it would not learn the pods' blocks, and "
            "without encapsulation their packets cross it as they are. Write `as_number: 64513` "
            "under its x-testbed, or use backend ipip or vxlan."
        )


def _speaks_bgp(cluster: Cluster) -> bool:
    """Calico's manifests for VXLAN run without BIRD."""
    return cluster.backend.type != "vxlan"


def _by_felix(cluster: Cluster) -> bool:
    """Whether Felix, not BIRD, writes the routes to other nodes' blocks."""
    owner = cluster.backend.options.get("route_owner", "bird")
    return cluster.backend.type == "vxlan" or owner == "felix"


def _encapsulated(cluster: Cluster, one: Node, other: Node) -> bool:
    within = one.network == other.network
    cross_subnet = cluster.backend.options.get("mode") == "CrossSubnet"
    return cluster.backend.type in _TUNNEL and not (within and cross_subnet)


def _mtu(cluster: Cluster, underlay: Underlay) -> int:
    """The pods' and the tunnel's MTU in bytes."""
    default = underlay.mtu - _OVERHEAD[cluster.backend.type]
    return int(cluster.backend.options.get("mtu", default))


def _address(node: Node, underlay: Underlay) -> IPv4Address:
    return underlay.address_of(node.network, node.index)


def _tunnel_address(node: Node) -> IPv4Address:
    """The first of the node's first block, which IPAM gave to the node itself."""
    return node.pod_cidr.network_address


def _tunnels(cluster: Cluster, underlay: Underlay) -> tuple[Tunnel, ...]:
    by_program = cluster.backend.type == "ipip" and cluster.ipip == "ebpf"
    return (Tunnel("tunl0", underlay.device),) if by_program else ()


def _device(cluster: Cluster, node: Node, underlay: Underlay) -> tuple[KernelObject, ...]:
    tunnel = _TUNNEL.get(cluster.backend.type)
    if tunnel is None:
        return ()
    mtu = _mtu(cluster, underlay)
    if tunnel.kind == "ipip":
        own = IPv4Interface((_tunnel_address(node), 32))
        link = objects.existing_link(tunnel.device, mtu=mtu)
        return link, objects.address(tunnel.device, own)
    vteps = {
        each.name: vxlan.Vtep(_address(each, underlay), each.pod_cidr, vtep_mac(each.name))
        for each in cluster.nodes
    }
    device = vxlan.device(
        tunnel.device,
        vteps.pop(node.name),
        vni=_VNI,
        port=tunnel.port,
        mtu=mtu,
        underlay=underlay,
    )
    return device + _remote_vteps(tunnel.device, vteps.values())


def _remote_vteps(device: str, vteps: Iterable[vxlan.Vtep]) -> tuple[KernelObject, ...]:
    """One neighbour and one FDB entry for each, whether a route leads there or not."""
    remotes = tuple(vteps)
    neighbours = (
        objects.neighbour(device, each.pod_cidr.network_address, each.mac) for each in remotes
    )
    forwarding = (objects.fdb(device, each.mac, each.underlay_ip) for each in remotes)
    return (*neighbours, *forwarding)


def _routes(cluster: Cluster, node: Node, underlay: Underlay) -> tuple[KernelObject, ...]:
    """Felix's: a blackhole per own block, and a route to each block and borrowed address."""
    if not _by_felix(cluster):
        return ()
    own = (
        objects.blackhole(block, protocol=_PROTOCOL)
        for block in node.pod_cidrs
        if block.prefixlen < 32  # a pod's own route has the same destination
    )
    others = (
        _route(cluster, node, each, destination, underlay)
        for each in cluster.nodes
        if each.name != node.name
        for destination in (*each.pod_cidrs, *map(IPv4Network, each.borrowed))
    )
    return (*own, *others)


def _route(
    cluster: Cluster, node: Node, remote: Node, destination: IPv4Network, underlay: Underlay
) -> KernelObject:
    tunnel = _TUNNEL[cluster.backend.type]
    encapsulated = _encapsulated(cluster, node, remote)
    if encapsulated and tunnel.kind == "vxlan":
        vtep = _tunnel_address(remote)
        if destination == IPv4Network(vtep):
            return objects.route(destination, device=tunnel.device)
        return objects.route(destination, via=vtep, device=tunnel.device, onlink=True)
    return objects.route(
        destination,
        via=_address(remote, underlay),
        device=tunnel.device if encapsulated else underlay.device,
        onlink=True,
        protocol=_PROTOCOL,
    )


def _endpoints(cluster: Cluster, node: Node) -> tuple[felix.Endpoint, ...]:
    return tuple(
        felix.Endpoint(interface(pod.namespace, pod.name), pod.namespace)
        for pod in cluster.pods_on(node.name)
        if not pod.host_network
    )


def _files(cluster: Cluster, node: Node, underlay: Underlay) -> tuple[File, ...]:
    mtu = _mtu(cluster, underlay)
    files = (
        _json_file("/etc/cni/net.d/10-calico.conflist", _conflist(node, mtu), attaches=True),
        File("/etc/cni/net.d/calico-kubeconfig", _KUBECONFIG, mode=0o600),
        File("/var/lib/calico/nodename", node.name),
        File("/var/lib/calico/mtu", str(mtu), attaches=True),
        _json_file(f"/etc/calico/{_POOL}.json", _pool(cluster), attaches=True),
        _json_file("/etc/calico/ipam.json", _ipam(cluster, node)),
    )
    if not _speaks_bgp(cluster):
        return files
    tunnel = _TUNNEL["ipip"].device if cluster.backend.type == "ipip" else ""
    speaker = mesh.speaker(
        cluster, node, underlay, tunnel=tunnel, programs_routes=not _by_felix(cluster)
    )
    return files + bird.files(speaker)


_KUBECONFIG = "# Kubeconfig file for Calico CNI plugin. There is no API server here.\n"


def _conflist(node: Node, mtu: int) -> dict[str, Any]:
    """The manifest's, with the values that install-cni fills in."""
    calico = {
        "type": "calico",
        "log_level": "info",
        "log_file_path": "/var/log/calico/cni/cni.log",
        "datastore_type": "kubernetes",
        "nodename": node.name,
        "mtu": mtu,
        "ipam": {"type": "calico-ipam"},
        "policy": {"type": "k8s"},
        "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
    }
    return {
        "name": "k8s-pod-network",
        "cniVersion": "0.3.1",
        "plugins": [
            calico,
            {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
            {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        ],
    }


def _pool(cluster: Cluster) -> dict[str, Any]:
    """The IPPool resource; nothing reads it but people, and nodes are made anew when it changes."""
    options = cluster.backend.options
    modes = {"ipip": "Never", "vxlan": "Never"}
    if cluster.backend.type in modes:
        modes[cluster.backend.type] = str(options.get("mode", "Always"))
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": _POOL},
        "spec": {
            "blockSize": int(options.get("block_size", 26)),
            "cidr": str(cluster.cluster_cidr),
            "ipipMode": modes["ipip"],
            "natOutgoing": bool(options.get("nat_outgoing", True)),
            "nodeSelector": "all()",
            "vxlanMode": modes["vxlan"],
        },
    }


def _ipam(cluster: Cluster, node: Node) -> dict[str, Any]:
    """What Calico's datastore knows of the node's blocks: the ``calico-ipam`` plugin reads it."""
    lent = sorted(
        address
        for other in cluster.nodes
        for address in other.borrowed
        if any(address in block for block in node.pod_cidrs)
    )
    kind = cluster.backend.type
    handle = f"{kind}-tunnel-addr-{node.name}"
    return {
        "node": node.name,
        "strict_affinity": bool(cluster.backend.options.get("strict_affinity", False)),
        "blocks": [str(block) for block in node.pod_cidrs],
        "lent": [str(address) for address in lent],
        "borrowed": [str(address) for address in node.borrowed],
        "reserved": {handle: str(_tunnel_address(node))} if kind in _TUNNEL else {},
    }


def _json_file(path: str, content: object, *, attaches: bool = False) -> File:
    return File(path, json.dumps(content, indent=2) + "\n", attaches=attaches)
