"""kube-proxy's ipvs mode: every Service port is a virtual server of the kernel.

Reproduces ``pkg/proxy/ipvs`` of Kubernetes 1.30. ``kube-ipvs0`` holds the addresses, so a packet to
a Service is delivered locally, and IPVS takes it on its way through INPUT. iptables only marks what
is to be masqueraded and filters, with one rule for all Services per set of addresses and ports: so
all sets are in :func:`dispatch`, and :func:`service` has virtual servers and addresses alone.

Sets and rules that concern no Service are left out, as there; the sets themselves are always made.
``conn_reuse_mode`` is left as it is, which is right since Linux 5.9.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType

from testbed.dataplane.fragment import fragment
from testbed.dataplane.ipvs_rules import tables
from testbed.dataplane.spec import KernelObject, Unit
from testbed.dataplane.vantage import Vantage
from testbed.topology.portals import Portal, Target
from testbed.topology.selection import select

__all__ = ["DEVICE", "OBJECTS", "REQUIRES", "SYSCTLS", "dispatch", "service"]

DEVICE = "kube-ipvs0"
REQUIRES = frozenset({"br_netfilter", "dummy", "ip_vs", "ipset", "iptables_nft"})
SYSCTLS: Mapping[str, str] = MappingProxyType(
    {
        "net.ipv4.conf.all.arp_announce": "2",
        "net.ipv4.conf.all.arp_ignore": "1",
        "net.ipv4.ip_forward": "1",
        "net.ipv4.vs.conntrack": "1",
        "net.ipv4.vs.expire_nodest_conn": "1",
        "net.ipv4.vs.expire_quiescent_template": "1",
    }
)
"""The first two are kube-proxy's ``strictARP``, which is off by default and which MetalLB asks for.

Without it every node answers ARP for load balancer addresses, since every kube-ipvs0 holds them.
"""
OBJECTS = (
    KernelObject(
        kind="link",
        key={"ifname": DEVICE},
        fixed={"linkinfo": {"info_kind": "dummy"}},
        want={"operstate": "DOWN"},
        create=(f"link add {DEVICE} type dummy",),
        change=(f"link set {DEVICE} down",),
        delete=(f"link delete {DEVICE}",),
    ),
)
"""A link that is never up: its addresses are local all the same, and nothing is sent by it."""

_OPTIONS = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}
_EVERY = IPv4Address(0)
_HASH = "family inet hashsize 1024 maxelem 65536"
_KINDS = {
    "KUBE-CLUSTER-IP": f"hash:ip,port {_HASH}",
    "KUBE-EXTERNAL-IP": f"hash:ip,port {_HASH}",
    "KUBE-EXTERNAL-IP-LOCAL": f"hash:ip,port {_HASH}",
    "KUBE-HEALTH-CHECK-NODE-PORT": "bitmap:port range 0-65535",
    "KUBE-IPVS-IPS": f"hash:ip {_HASH}",
    "KUBE-LOAD-BALANCER": f"hash:ip,port {_HASH}",
    "KUBE-LOAD-BALANCER-FW": f"hash:ip,port {_HASH}",
    "KUBE-LOAD-BALANCER-LOCAL": f"hash:ip,port {_HASH}",
    "KUBE-LOAD-BALANCER-SOURCE-CIDR": f"hash:ip,port,net {_HASH}",
    "KUBE-LOAD-BALANCER-SOURCE-IP": f"hash:ip,port,ip {_HASH}",
    "KUBE-LOOP-BACK": f"hash:ip,port,ip {_HASH}",
    "KUBE-NODE-PORT-LOCAL-SCTP-HASH": f"hash:ip,port {_HASH}",
    "KUBE-NODE-PORT-LOCAL-TCP": "bitmap:port range 0-65535",
    "KUBE-NODE-PORT-LOCAL-UDP": "bitmap:port range 0-65535",
    "KUBE-NODE-PORT-SCTP-HASH": f"hash:ip,port {_HASH}",
    "KUBE-NODE-PORT-TCP": "bitmap:port range 0-65535",
    "KUBE-NODE-PORT-UDP": "bitmap:port range 0-65535",
}


@dataclass(frozen=True, slots=True)
class _Sets:
    """The sets' members while they are collected."""

    members: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in _KINDS})
    forbidden: set[tuple[IPv4Address, str, int]] = field(default_factory=set)
    """Load balancer portals whose source ranges leave the node itself out."""

    def add(self, name: str, *entries: str) -> None:
        self.members[name].update(entries)

    def text(self) -> str:
        """As ``ipset save`` prints it, members in numerical order."""
        lines = []
        for name, kind in _KINDS.items():
            lines.append(f"create {name} {kind}")
            lines += [f"add {name} {each}" for each in sorted(self.members[name], key=_numerical)]
        return "\n".join(lines) + "\n"


def dispatch(portals: Sequence[Portal], vantage: Vantage) -> Unit:
    """All sets with their members, and the rules that match them."""
    sets = _Sets()
    for portal in portals:
        _collect(sets, portal, vantage)
    occupied = frozenset(name for name, members in sets.members.items() if members)
    own = tables(occupied, vantage.cluster_cidr, sorted(sets.forbidden))
    return {"ipset": sets.text(), "iptables": fragment(own), "ipvs": {}, "addresses": []}


def service(portals: Sequence[Portal], vantage: Vantage) -> Unit:
    """One Service's virtual servers, and its addresses.

    A node port is served at 0.0.0.0, which stands for every address of the node outside of
    kube-ipvs0 and loopback: those of the underlay, of bridges and of tunnels. The agent, which
    knows them, makes one virtual server for each.
    """
    found: dict[str, dict[str, object]] = {}
    addresses: set[IPv4Address] = set()
    for portal in portals:
        affinity = portal.affinity_seconds
        flags = "-s rr" if affinity is None else f"-s rr -p {affinity}"
        for address, port, local in _fronts(portal):
            key = f"{_OPTIONS[portal.protocol]} {address}:{port}"
            servers = {str(each): "-m -w 1" for each in _servers(portal, vantage, local)}
            found[key] = {"flags": flags, "servers": servers}
        addresses |= _addresses(portal, vantage)
    return {"ipvs": found, "addresses": [str(address) for address in sorted(addresses)]}


def _fronts(portal: Portal) -> Iterable[tuple[IPv4Address, int, bool]]:
    """Every address and port that it answers at, and whether policy Local applies there."""
    yield portal.cluster_ip, portal.port, portal.internal_local
    for address in _outer(portal):
        yield address, portal.port, portal.external_local
    if portal.node_port is not None:
        yield _EVERY, portal.node_port, portal.external_local


def _outer(portal: Portal) -> tuple[IPv4Address, ...]:
    balanced = portal.load_balancer_ip
    return (*portal.external_ips, *([] if balanced is None else [balanced]))


def _servers(portal: Portal, vantage: Vantage, local: bool) -> tuple[Target, ...]:
    """The endpoints that a front sends to.

    Under policy Local those of the whole cluster where the node has none: the node's own pods then
    reach the Service at any of its addresses, and an outside client gets an answer that it drops,
    from the pod's address. A Service that nothing outside can reach has none then.
    """
    found = select(portal, vantage.node)
    return (found.local or found.cluster) if local else found.cluster


def _addresses(portal: Portal, vantage: Vantage) -> set[IPv4Address]:
    """What kube-ipvs0 holds for it; an address of the node stays where it is."""
    return {portal.cluster_ip, *_outer(portal)} - {vantage.address}


def _collect(sets: _Sets, portal: Portal, vantage: Vantage) -> None:
    front = f"{portal.protocol}:{portal.port}"
    for target in portal.targets:
        if target.node == vantage.node:
            entry = f"{target.address},{portal.protocol}:{target.port},{target.address}"
            sets.add("KUBE-LOOP-BACK", entry)
    sets.add("KUBE-CLUSTER-IP", f"{portal.cluster_ip},{front}")
    sets.add("KUBE-IPVS-IPS", *map(str, _addresses(portal, vantage)))
    kept = "KUBE-EXTERNAL-IP-LOCAL" if portal.external_local else "KUBE-EXTERNAL-IP"
    sets.add(kept, *(f"{address},{front}" for address in portal.external_ips))
    if portal.load_balancer_ip is not None:
        _balanced(sets, portal, portal.load_balancer_ip, vantage)
    if portal.node_port is not None:
        _node_port(sets, portal, portal.node_port, vantage)
    if portal.health_check_node_port is not None:
        sets.add("KUBE-HEALTH-CHECK-NODE-PORT", str(portal.health_check_node_port))


def _balanced(sets: _Sets, portal: Portal, address: IPv4Address, vantage: Vantage) -> None:
    front = f"{address},{portal.protocol}:{portal.port}"
    sets.add("KUBE-LOAD-BALANCER", front)
    if portal.external_local:
        sets.add("KUBE-LOAD-BALANCER-LOCAL", front)
    if not portal.source_ranges:
        return
    sets.add("KUBE-LOAD-BALANCER-FW", front)
    for source in portal.source_ranges:
        for each in _hashable(source):
            sets.add("KUBE-LOAD-BALANCER-SOURCE-CIDR", f"{front},{each}")
    if any(vantage.address in source for source in portal.source_ranges):
        sets.add("KUBE-LOAD-BALANCER-SOURCE-IP", f"{front},{address}")
    else:
        sets.forbidden.add((address, portal.protocol, portal.port))


def _node_port(sets: _Sets, portal: Portal, port: int, vantage: Vantage) -> None:
    entry, hashed = str(port), ""
    if portal.protocol == "sctp":
        entry, hashed = f"{vantage.address},sctp:{port}", "-HASH"
    kind = portal.protocol.upper() + hashed
    sets.add(f"KUBE-NODE-PORT-{kind}", entry)
    if portal.external_local:
        sets.add(f"KUBE-NODE-PORT-LOCAL-{kind}", entry)


def _hashable(source: IPv4Network) -> tuple[str, ...]:
    """As a ``hash:ip,port,net`` spells it: it knows no /0, and a /32 has no length."""
    if source.prefixlen == 0:
        return tuple(map(str, source.subnets()))
    return (str(source.network_address if source.prefixlen == 32 else source),)


def _numerical(entry: str) -> tuple[tuple[int, ...], str]:
    """``10.96.0.10,tcp:80`` by the numbers of its address; a port alone by itself."""
    return tuple(map(int, entry.partition(",")[0].split("."))), entry
