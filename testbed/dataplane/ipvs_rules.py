"""The iptables rules of kube-proxy's ipvs mode, as ``iptables-save`` prints them.

Rules match sets, so Services do not change them but for which sets have members: kube-proxy writes
most rules only then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network

from testbed.dataplane.fragment import Table

__all__ = ["tables"]

_MARK = "0x4000/0x4000"
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_COMMENTS = {
    "KUBE-CLUSTER-IP": "Kubernetes service cluster ip + port for masquerade purpose",
    "KUBE-EXTERNAL-IP": "Kubernetes service external ip + port for masquerade and filter purpose",
    "KUBE-EXTERNAL-IP-LOCAL": (
        "Kubernetes service external ip + port with externalTrafficPolicy=local"
    ),
    "KUBE-HEALTH-CHECK-NODE-PORT": "Kubernetes health check node port",
    "KUBE-LOAD-BALANCER": "Kubernetes service lb portal",
    "KUBE-LOAD-BALANCER-FW": (
        "Kubernetes service load balancer ip + port for load balancer with sourceRange"
    ),
    "KUBE-LOAD-BALANCER-LOCAL": (
        "Kubernetes service load balancer ip + port with externalTrafficPolicy=local"
    ),
    "KUBE-LOAD-BALANCER-SOURCE-CIDR": (
        "Kubernetes service load balancer ip + port + source cidr for packet filter purpose"
    ),
    "KUBE-LOAD-BALANCER-SOURCE-IP": (
        "Kubernetes service load balancer ip + port + source IP for packet filter purpose"
    ),
    "KUBE-LOOP-BACK": "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose",
    "KUBE-NODE-PORT-LOCAL-SCTP-HASH": (
        "Kubernetes nodeport SCTP port with externalTrafficPolicy=local "
        r"with type \'hash ip:port\'"
    ),
    "KUBE-NODE-PORT-LOCAL-TCP": "Kubernetes nodeport TCP port with externalTrafficPolicy=local",
    "KUBE-NODE-PORT-LOCAL-UDP": "Kubernetes nodeport UDP port with externalTrafficPolicy=local",
    "KUBE-NODE-PORT-SCTP-HASH": (
        r"Kubernetes nodeport SCTP port for masquerade purpose with type \'hash ip:port\'"
    ),
    "KUBE-NODE-PORT-TCP": "Kubernetes nodeport TCP port for masquerade purpose",
    "KUBE-NODE-PORT-UDP": "Kubernetes nodeport UDP port for masquerade purpose",
}
_NAT_JUMPS = {
    "PREROUTING": ('-m comment --comment "kubernetes service portals" -j KUBE-SERVICES',),
    "OUTPUT": ('-m comment --comment "kubernetes service portals" -j KUBE-SERVICES',),
    "POSTROUTING": ('-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',),
}
_FIREWALL = '-m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL'
_FILTER_JUMPS = {
    "INPUT": (
        '-m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER',
        _FIREWALL,
        '-m comment --comment "kubernetes health check rules" -j KUBE-NODE-PORT',
    ),
    "FORWARD": (
        _FIREWALL,
        '-m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
    ),
    "OUTPUT": ('-m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-OUT-FILTER',),
}
"""kube-proxy prepends every jump: these are in the order in which packets meet them."""
_FORWARD = (
    f'-m comment --comment "kubernetes forwarding rules" -m mark --mark {_MARK} -j ACCEPT',
    '-m comment --comment "kubernetes forwarding conntrack rule" '
    "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
)


def tables(
    occupied: frozenset[str],
    cluster_cidr: IPv4Network,
    forbidden: Sequence[tuple[IPv4Address, str, int]],
) -> dict[str, Table]:
    """kube-proxy's chains and jumps.

    ``occupied`` are the sets that have members; ``forbidden`` the load balancer addresses,
    protocols and ports that the node itself may not use.
    """
    nat = {
        "KUBE-LOAD-BALANCER": _load_balancer(occupied),
        "KUBE-MARK-MASQ": ("-j MARK --set-xmark 0x4000/0x4000",),
        "KUBE-NODE-PORT": _node_ports(occupied),
        "KUBE-POSTROUTING": _postrouting(occupied),
        "KUBE-SERVICES": _services(occupied, cluster_cidr),
    }
    filters = {
        "KUBE-FORWARD": _FORWARD,
        "KUBE-IPVS-FILTER": _access(),
        "KUBE-IPVS-OUT-FILTER": map(_refused, forbidden),
        "KUBE-NODE-PORT": (_matched("KUBE-HEALTH-CHECK-NODE-PORT", "dst", "ACCEPT"),),
        "KUBE-PROXY-FIREWALL": _firewall(occupied),
        "KUBE-SOURCE-RANGES-FIREWALL": _ranges(occupied),
    }
    return {"nat": Table(nat, _NAT_JUMPS), "filter": Table(filters, _FILTER_JUMPS)}


def _matched(name: str, directions: str, target: str, match: str = "") -> str:
    """A rule with its set's comment; ``match`` is what ``iptables-save`` prints before it."""
    words = f'-m comment --comment "{_COMMENTS[name]}" -m set --match-set {name} {directions}'
    return f"{match}{words} -j {target}"


def _load_balancer(occupied: frozenset[str]) -> Iterator[str]:
    if "KUBE-LOAD-BALANCER-LOCAL" in occupied:
        yield _matched("KUBE-LOAD-BALANCER-LOCAL", "dst,dst", "RETURN")
    yield "-j KUBE-MARK-MASQ"


def _postrouting(occupied: frozenset[str]) -> Iterator[str]:
    if "KUBE-LOOP-BACK" in occupied:
        yield _matched("KUBE-LOOP-BACK", "dst,dst,src", "MASQUERADE")
    yield f"-m mark ! --mark {_MARK} -j RETURN"
    yield "-j MARK --set-xmark 0x4000/0x0"
    yield (
        '-m comment --comment "kubernetes service traffic requiring SNAT" '
        "-j MASQUERADE --random-fully"
    )


def _node_ports(occupied: frozenset[str]) -> Iterator[str]:
    for protocol, kind, directions in (
        ("tcp", "TCP", "dst"),
        ("udp", "UDP", "dst"),
        ("sctp", "SCTP-HASH", "dst,dst"),
    ):
        for name, target in (
            (f"KUBE-NODE-PORT-LOCAL-{kind}", "RETURN"),
            (f"KUBE-NODE-PORT-{kind}", "KUBE-MARK-MASQ"),
        ):
            if name in occupied:
                yield _matched(name, directions, target, f"-p {protocol} ")


def _services(occupied: frozenset[str], cluster_cidr: IPv4Network) -> Iterator[str]:
    yield "-s 127.0.0.0/8 -j RETURN"
    if "KUBE-LOAD-BALANCER" in occupied:
        yield _matched("KUBE-LOAD-BALANCER", "dst,dst", "KUBE-LOAD-BALANCER")
    if "KUBE-CLUSTER-IP" in occupied:
        outside = f"! -s {cluster_cidr} "
        yield _matched("KUBE-CLUSTER-IP", "dst,dst", "KUBE-MARK-MASQ", outside)
    if "KUBE-EXTERNAL-IP" in occupied:
        yield _matched("KUBE-EXTERNAL-IP", "dst,dst", "KUBE-MARK-MASQ")
    for name in ("KUBE-EXTERNAL-IP", "KUBE-EXTERNAL-IP-LOCAL"):
        if name in occupied:
            arrived = "-m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL"
            yield _matched(name, f"dst,dst {arrived}", "ACCEPT")
            yield _matched(name, "dst,dst -m addrtype --dst-type LOCAL", "ACCEPT")
    yield "-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT"
    for name in ("KUBE-CLUSTER-IP", "KUBE-LOAD-BALANCER"):
        if name in occupied:
            yield f"-m set --match-set {name} dst,dst -j ACCEPT"


def _firewall(occupied: frozenset[str]) -> Iterator[str]:
    if "KUBE-LOAD-BALANCER-FW" in occupied:
        yield _matched("KUBE-LOAD-BALANCER-FW", "dst,dst", "KUBE-SOURCE-RANGES-FIREWALL")


def _ranges(occupied: frozenset[str]) -> Iterator[str]:
    for name in ("KUBE-LOAD-BALANCER-SOURCE-CIDR", "KUBE-LOAD-BALANCER-SOURCE-IP"):
        if name in occupied:
            yield _matched(name, "dst,dst,src", "RETURN")
    yield "-j DROP"


def _refused(portal: tuple[IPv4Address, str, int]) -> str:
    """What a node sends to an address of its own, it sends from that address."""
    address, protocol, port = portal
    return (
        f"-s {address}/32 -m ipvs --vproto {_NUMBERS[protocol]} --vaddr {address} --vport {port} "
        "-j DROP"
    )


def _access() -> Iterator[str]:
    """Ports of the node's own that listen on every address are not served at Services'."""
    for name, directions in (
        ("KUBE-LOAD-BALANCER", "dst,dst"),
        ("KUBE-CLUSTER-IP", "dst,dst"),
        ("KUBE-EXTERNAL-IP", "dst,dst"),
        ("KUBE-EXTERNAL-IP-LOCAL", "dst,dst"),
        ("KUBE-HEALTH-CHECK-NODE-PORT", "dst"),
    ):
        yield f"-m set --match-set {name} {directions} -j RETURN"
    yield (
        "-m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst "
        "-j REJECT --reject-with icmp-port-unreachable"
    )
