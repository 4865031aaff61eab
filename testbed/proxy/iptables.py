"""kube-proxy's iptables mode.

Reproduces the rules of ``pkg/proxy/iptables/proxier.go`` (1.30) as ``iptables-save`` prints them,
with ``detectLocalMode: ClusterCIDR``, mark bit 14 and node ports on all addresses.
`Virtual IPs and Service Proxies <https://kubernetes.io/docs/reference/networking/virtual-ips/>`_
describes what the chains do.
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import chain

from testbed.dataplane.fragment import Table, fragment
from testbed.dataplane.spec import KernelObject, Unit
from testbed.dataplane.vantage import Vantage
from testbed.topology.portals import Portal, Target
from testbed.topology.selection import Selection, select

__all__ = ["OBJECTS", "REQUIRES", "SYSCTLS", "dispatch", "service"]

REQUIRES = frozenset({"iptables_nft"})
SYSCTLS: Mapping[str, str] = {
    "net.ipv4.conf.all.route_localnet": "1",
}
"""``nf_conntrack_max`` is the whole machine's: a node cannot write it."""
OBJECTS: tuple[KernelObject, ...] = ()

_MARKED = "-m mark --mark 0x4000/0x4000"
_NEW = "-m conntrack --ctstate NEW"
_PORTALS = '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
_EXTERNAL = (
    f'{_NEW} -m comment --comment "kubernetes externally-visible service portals" '
    "-j KUBE-EXTERNAL-SERVICES"
)
_FIREWALL = (
    f'{_NEW} -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL'
)
_CANARY = "KUBE-PROXY-CANARY"
_REJECT = "REJECT --reject-with icmp-port-unreachable"
_NODE_PORTS = (
    '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this '
    'chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS'
)
_POSTROUTING = (
    "-m mark ! --mark 0x4000/0x4000 -j RETURN",
    "-j MARK --set-xmark 0x4000/0x0",
    '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
)
_FORWARD = (
    "-m conntrack --ctstate INVALID -j DROP",
    f'-m comment --comment "kubernetes forwarding rules" {_MARKED} -j ACCEPT',
    '-m comment --comment "kubernetes forwarding conntrack rule" '
    "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
)
_FILTER_JUMPS = {
    "INPUT": (
        _FIREWALL,
        '-m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS',
        _EXTERNAL,
    ),
    "FORWARD": (
        _FIREWALL,
        '-m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
        f"{_NEW} {_PORTALS}",
        _EXTERNAL,
    ),
    "OUTPUT": (_FIREWALL, f"{_NEW} {_PORTALS}"),
}
_NAT_JUMPS = {
    "PREROUTING": (_PORTALS,),
    "OUTPUT": (_PORTALS,),
    "POSTROUTING": ('-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',),
}
"""kube-proxy prepends every jump: these are in the order in which packets meet them."""


def dispatch(portals: Sequence[Portal], vantage: Vantage) -> Unit:
    """What all Services share: jumps, and the chains that choose one by address and port."""
    routes = [_Route.of(portal, vantage) for portal in portals]
    tables = {
        "mangle": Table({_CANARY: ()}),
        "nat": Table(
            {
                "KUBE-MARK-MASQ": ("-j MARK --set-xmark 0x4000/0x4000",),
                "KUBE-NODEPORTS": chain.from_iterable(map(_nat_node_port, routes)),
                "KUBE-POSTROUTING": _POSTROUTING,
                _CANARY: (),
                "KUBE-SERVICES": (*chain.from_iterable(map(_nat_services, routes)), _NODE_PORTS),
            },
            _NAT_JUMPS,
        ),
        "filter": Table(
            {
                "KUBE-EXTERNAL-SERVICES": chain.from_iterable(map(_unreachable, routes)),
                "KUBE-FORWARD": _FORWARD,
                "KUBE-NODEPORTS": chain.from_iterable(map(_health_check, routes)),
                _CANARY: (),
                "KUBE-PROXY-FIREWALL": chain.from_iterable(map(_not_accepted, routes)),
                "KUBE-SERVICES": chain.from_iterable(map(_unreachable_cluster_ip, routes)),
            },
            _FILTER_JUMPS,
        ),
    }
    return {"iptables": fragment(tables)}


def service(portals: Sequence[Portal], vantage: Vantage) -> Unit:
    """The chains of one Service: none for ports without endpoints."""
    chains: dict[str, list[str]] = {}
    for portal in portals:
        route = _Route.of(portal, vantage)
        found = route.selection
        if portal.external and found.reachable:
            chains[route.chain("EXT")] = list(_external(route))
        if found.restricted:
            chains[route.chain("FW")] = list(_firewall(route))
        if found.cluster:
            chains[route.chain("SVC")] = _balanced(route, found.cluster, "SVC")
        if found.local:
            chains[route.chain("SVL")] = _balanced(route, found.local, "SVL")
        chains.update(_endpoints(route))
    return {"iptables": fragment({"nat": Table(chains)})}


@dataclass(frozen=True, slots=True)
class _Route:
    """A portal on one node, with what its rules are made of."""

    portal: Portal
    vantage: Vantage
    selection: Selection
    name: str
    identity: str
    """The hash in the names of its chains."""

    @classmethod
    def of(cls, portal: Portal, vantage: Vantage) -> _Route:
        name = portal.name
        selection = select(portal, vantage.node)
        return cls(portal, vantage, selection, name, _identity(name + portal.protocol))

    def chain(self, kind: str) -> str:
        """``KUBE-SVC-…`` for ``SVC``."""
        return f"KUBE-{kind}-{self.identity}"

    @property
    def refusal(self) -> tuple[str, str]:
        """The words and the target for packets that get no endpoint."""
        if not self.selection.reachable:
            return f"{self.name} has no endpoints", _REJECT
        return f"{self.name} has no local endpoints", "DROP"

    def to(self, address: object, comment: str, *, source: str = "") -> str:
        """Match the portal's port at ``address``."""
        portal = self.portal
        return (
            f'{source}-d {address}/32 -p {portal.protocol} -m comment --comment "{comment}" '
            f"-m {portal.protocol} --dport {portal.port}"
        )


@lru_cache(maxsize=1 << 17)
def _identity(text: str) -> str:
    """The hash of a chain's name; the nodes of a testbed share most of them."""
    return b32encode(sha256(text.encode()).digest()[:10]).decode()


@lru_cache(maxsize=1 << 12)
def _probability(count: int) -> str:
    """1/``count``: kube-proxy writes ten decimals, and the kernel keeps them in units of 2⁻³¹."""
    return f"{round(float(f'{1 / count:.10f}') * (1 << 31)) / (1 << 31):.11f}"


def _nat_services(route: _Route) -> Iterator[str]:
    portal, name = route.portal, route.name
    if route.selection.internal:
        to = route.chain("SVL" if portal.internal_local else "SVC")
        yield f"{route.to(portal.cluster_ip, f'{name} cluster IP')} -j {to}"
    if route.selection.reachable:
        for address in portal.external_ips:
            yield f"{route.to(address, f'{name} external IP')} -j {route.chain('EXT')}"
        if portal.load_balancer_ip:
            to = route.chain("FW" if route.selection.restricted else "EXT")
            yield f"{route.to(portal.load_balancer_ip, f'{name} loadbalancer IP')} -j {to}"


def _nat_node_port(route: _Route) -> Iterator[str]:
    portal = route.portal
    if portal.node_port and route.selection.reachable:
        yield (
            f'-p {portal.protocol} -m comment --comment "{route.name}" '
            f"-m {portal.protocol} --dport {portal.node_port} -j {route.chain('EXT')}"
        )


def _unreachable_cluster_ip(route: _Route) -> Iterator[str]:
    if not route.selection.internal:
        comment, target = route.refusal
        yield f"{route.to(route.portal.cluster_ip, comment)} -j {target}"


def _unreachable(route: _Route) -> Iterator[str]:
    """External addresses without an endpoint; what came from pods has been sent on before."""
    portal = route.portal
    if route.selection.outside:
        return
    comment, target = route.refusal
    for address in portal.external_ips:
        yield f"{route.to(address, comment)} -j {target}"
    if portal.load_balancer_ip:
        yield f"{route.to(portal.load_balancer_ip, comment)} -j {target}"
    if portal.node_port:
        yield (
            f'-p {portal.protocol} -m comment --comment "{comment}" -m addrtype --dst-type LOCAL '
            f"-m {portal.protocol} --dport {portal.node_port} -j {target}"
        )


def _health_check(route: _Route) -> Iterator[str]:
    """On every node, also without local endpoints: the answer says so."""
    port = route.portal.health_check_node_port
    if port:
        comment = f"{route.name} health check node port"
        yield f'-p tcp -m comment --comment "{comment}" -m tcp --dport {port} -j ACCEPT'


def _not_accepted(route: _Route) -> Iterator[str]:
    if route.selection.restricted:
        comment = f"{route.name} traffic not accepted by {route.chain('FW')}"
        yield f"{route.to(route.portal.load_balancer_ip, comment)} -j DROP"


def _external(route: _Route) -> Iterator[str]:
    """KUBE-EXT: where every external address leads."""
    name, cluster = route.name, route.chain("SVC")
    if not route.portal.external_local:
        comment = f"masquerade traffic for {name} external destinations"
        yield f'-m comment --comment "{comment}" -j KUBE-MARK-MASQ'
        yield f"-j {cluster}"
        return
    there, own = f"for {name} external destinations", "-m addrtype --src-type LOCAL"
    pods = f'-s {route.vantage.cluster_cidr} -m comment --comment "pod traffic {there}"'
    yield f"{pods} -j {cluster}"
    yield f'-m comment --comment "masquerade LOCAL traffic {there}" {own} -j KUBE-MARK-MASQ'
    yield f'-m comment --comment "route LOCAL traffic {there}" {own} -j {cluster}'
    if route.selection.local:
        yield f"-j {route.chain('SVL')}"


def _firewall(route: _Route) -> Iterator[str]:
    """KUBE-FW: what returns from here is dropped in the filter table."""
    portal, name = route.portal, route.name
    way = f'-m comment --comment "{name} loadbalancer IP" -j {route.chain("EXT")}'
    for network in portal.source_ranges:
        yield f"-s {network} {way}" if network.prefixlen else way
    if any(route.vantage.address in network for network in portal.source_ranges):
        # to an address that is the node's own, the node talks from that address
        yield f"-s {portal.load_balancer_ip}/32 {way}"
    comment = f"other traffic to {name} will be dropped by KUBE-PROXY-FIREWALL"
    yield f'-m comment --comment "{comment}"'


def _balanced(route: _Route, targets: Sequence[Target], kind: str) -> list[str]:
    """KUBE-SVC or KUBE-SVL: each endpoint as likely as any other, or the one that a client had."""
    portal, name = route.portal, route.name
    rules = []
    if route.selection.internal and (kind == "SVL") == portal.internal_local:
        source = f"! -s {route.vantage.cluster_cidr} "
        match = route.to(portal.cluster_ip, f"{name} cluster IP", source=source)
        rules.append(f"{match} -j KUBE-MARK-MASQ")
    ways = [(_comment(route, f"{name} -> {each}"), _endpoint(route, each)) for each in targets]
    if portal.affinity_seconds is not None:
        rules += [
            f"{comment}-m recent --rcheck --seconds {portal.affinity_seconds} --reap --name {to} "
            f"--mask 255.255.255.255 --rsource -j {to}"
            for comment, to in ways
        ]
    left = len(ways)
    for comment, to in ways[:-1]:
        chance = f"-m statistic --mode random --probability {_probability(left)}"
        rules.append(f"{comment}{chance} -j {to}")
        left -= 1
    comment, to = ways[-1]
    return [*rules, f"{comment}-j {to}"]


def _endpoints(route: _Route) -> Iterator[tuple[str, list[str]]]:
    """KUBE-SEP: the only place where an address is translated."""
    protocol = route.portal.protocol
    comment = _comment(route, route.name)
    for target in route.selection.targets:
        name, recent = _endpoint(route, target), ""
        if route.portal.affinity_seconds is not None:
            recent = f"-m recent --set --name {name} --mask 255.255.255.255 --rsource "
        yield (
            name,
            [
                f"-s {target.address}/32 {comment}-j KUBE-MARK-MASQ",
                f"-p {protocol} {comment}{recent}-m {protocol} -j DNAT --to-destination {target}",
            ],
        )


def _endpoint(route: _Route, target: Target) -> str:
    return f"KUBE-SEP-{_identity(f'{route.name}{route.portal.protocol}{target}')}"


def _comment(route: _Route, text: str) -> str:
    """Large clusters save the room for comments that are there once for each endpoint."""
    return "" if route.vantage.large else f'-m comment --comment "{text}" '
