"""kube-proxy's nftables mode: the table ``ip kube-proxy``.

Reproduces ``pkg/proxy/nftables/proxier.go`` of 1.30 with default flags: node ports answer on all
local addresses but 127.0.0.0/8, so there is no set ``nodeport-ips``, and as the feature gate
MultiCIDRServiceAllocator is off, unallocated addresses of the Service CIDR are not dropped.

Every text is spelled as ``nft list table ip kube-proxy`` prints it. A unit is::

    {"nft": {
      "chains": {
        "filter-input": {"base": "type filter hook input priority -110; policy accept;",
                         "rules": ["ct state new jump nodeport-endpoints-check", …]},
        "reject-chain": {"base": "", "rules": ["reject"], "comment": "…"}},
      "sets": {
        "service-ips": {"kind": "map", "spec": 'type … : verdict; comment "…";'},
        "cluster-ips": {"kind": "set", "spec": 'type ipv4_addr; comment "…";'}},
      "elements": {
        "service-ips": {"10.96.0.41 . tcp . 80": "goto service-…"},
        "no-endpoint-services": {'10.96.0.42 . tcp . 80 comment "ns1/svc2:p80"': "drop"},
        "cluster-ips": {"10.96.0.41": ""}}}}

``comment`` of a chain is there only if it has one. An element is ``KEY : VALUE``, or ``KEY`` where
the value is empty; what follows the key's last part is the element's comment. Only the unit ``""``
has base chains and declares the sets that elements of all units share; affinity sets are their
Service's, and the kernel fills them.

A change is one transaction in this order, as the kernel keeps a chain or set that is referred to:
delete elements that are gone or have another value; flush chains that are gone or have other rules;
delete chains, then sets that are gone (or are declared otherwise: chains that name such a set are
flushed and filled again); add sets; add chains; add rules; add elements.
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import Any

from testbed.dataplane.spec import KernelObject, Unit
from testbed.dataplane.vantage import Vantage
from testbed.topology.portals import Portal, Target

__all__ = ["OBJECTS", "REQUIRES", "SYSCTLS", "dispatch", "service"]

REQUIRES = frozenset({"nft"})
SYSCTLS: Mapping[str, str] = {}
"""No ``route_localnet``: node ports do not answer on 127.0.0.1 in this mode."""
OBJECTS: tuple[KernelObject, ...] = ()

_LONGEST = 240
"""Of 256 characters of an nftables name, 16 are left for prefixes such as ``endpoint-``."""
_LONGEST_COMMENT = 128
_MASQUERADE = "jump mark-for-masquerade"
_PORTAL = "ip daddr . meta l4proto . th dport vmap"
_NODE_PORT = "ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap"
_BASE_CHAINS = {
    "filter-prerouting": ("filter hook prerouting priority dstnat - 10", ("firewall-check",)),
    "filter-input": (
        "filter hook input priority -110",
        ("nodeport-endpoints-check", "service-endpoints-check"),
    ),
    "filter-forward": (
        "filter hook forward priority -110",
        ("service-endpoints-check", "cluster-ips-check"),
    ),
    "filter-output": (
        "filter hook output priority -110",
        ("service-endpoints-check", "firewall-check"),
    ),
    "filter-output-post-dnat": ("filter hook output priority -90", ("cluster-ips-check",)),
    "nat-prerouting": ("nat hook prerouting priority dstnat", ("services",)),
    "nat-output": ("nat hook output priority -100", ("services",)),
    "nat-postrouting": ("nat hook postrouting priority srcnat", ("masquerading",)),
}
"""Chain → hook and the chains that it jumps to. Filters come before NAT, which spares them DNAT."""
_CHAINS = {
    "nodeport-endpoints-check": (f"{_NODE_PORT} @no-endpoint-nodeports",),
    "service-endpoints-check": (f"{_PORTAL} @no-endpoint-services",),
    "firewall-check": (f"{_PORTAL} @firewall-ips",),
    "services": (
        f"{_PORTAL} @service-ips",
        f"fib daddr type local {_NODE_PORT} @service-nodeports",
    ),
    "masquerading": (
        "meta mark & 0x00004000 == 0x00000000 return",
        "meta mark set meta mark ^ 0x00004000",
        "masquerade fully-random",
    ),
    "cluster-ips-check": (
        'ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"',
    ),
    "mark-for-masquerade": ("meta mark set meta mark | 0x00004000",),
    "reject-chain": ("reject",),
}
_COMMENTS = {"reject-chain": "helper for @no-endpoint-services / @no-endpoint-nodeports"}
_BY_PORTAL = "ipv4_addr . inet_proto . inet_service : verdict"
_BY_NODE_PORT = "inet_proto . inet_service : verdict"
_MAPS = {
    "no-endpoint-services": (
        _BY_PORTAL,
        "vmap to drop or reject packets to services with no endpoints",
    ),
    "no-endpoint-nodeports": (
        _BY_NODE_PORT,
        "vmap to drop or reject packets to service nodeports with no endpoints",
    ),
    "firewall-ips": (_BY_PORTAL, "destinations that are subject to LoadBalancerSourceRanges"),
    "service-ips": (_BY_PORTAL, "ClusterIP, ExternalIP and LoadBalancer IP traffic"),
    "service-nodeports": (_BY_NODE_PORT, "NodePort traffic"),
}


def dispatch(portals: Sequence[Portal], vantage: Vantage) -> Unit:
    """Hooks, the chains they jump to, and the maps that Services fill; the same on every node."""
    del portals, vantage
    chains: dict[str, Any] = {}
    for name, (hook, jumps) in _BASE_CHAINS.items():
        when = "ct state new " if hook.startswith("filter") else ""
        rules = [f"{when}jump {chain}" for chain in jumps]
        chains[name] = {"base": f"type {hook}; policy accept;", "rules": rules}
    for name, texts in _CHAINS.items():
        chains[name] = {"base": "", "rules": list(texts)}
        if name in _COMMENTS:
            chains[name]["comment"] = _COMMENTS[name]
    clusters = {"kind": "set", "spec": 'type ipv4_addr; comment "Active ClusterIPs";'}
    sets = {"cluster-ips": clusters} | {
        name: {"kind": "map", "spec": f'type {kind}; comment "{comment}";'}
        for name, (kind, comment) in _MAPS.items()
    }
    return {"nft": {"chains": chains, "sets": sets, "elements": {}}}


def service(portals: Sequence[Portal], vantage: Vantage) -> Unit:
    """The chains, affinity sets and map elements of one Service."""
    rules = _Rules()
    for portal in portals:
        _Port(portal, vantage, rules).write()
    return {
        "nft": {
            "chains": {name: {"base": "", "rules": each} for name, each in rules.chains.items()},
            "sets": rules.sets,
            "elements": rules.elements,
        }
    }


class _Rules:
    """What has been written of one Service."""

    def __init__(self) -> None:
        self.chains: dict[str, list[str]] = {}
        self.sets: dict[str, dict[str, str]] = {}
        self.elements: dict[str, dict[str, str]] = {}

    def element(self, name: str, key: str, value: str = "") -> None:
        self.elements.setdefault(name, {})[key] = value


class _Port:
    """Writes the rules of one port of a Service as one node has them."""

    def __init__(self, portal: Portal, vantage: Vantage, rules: _Rules) -> None:
        self.portal, self.vantage, self.rules = portal, vantage, rules
        text = f"{portal.service}/{portal.protocol}/{portal.port_name}"
        name = _hashed(text)
        self.cluster, self.local = f"service-{name}", f"local-{name}"
        self.external, self.firewall = f"external-{name}", f"firewall-{name}"
        self.usable, self.here = portal.usable, portal.local(vantage.node)
        self.endpoints = {target: _hashed(_endpoint(text, target)) for target in self.usable}
        for target in self.here:
            if target not in self.endpoints:
                self.endpoints[target] = _hashed(_endpoint(text, target))

    def write(self) -> None:
        portal = self.portal
        self.rules.element("cluster-ips", str(portal.cluster_ip))
        self._dispatch("service-ips", "no-endpoint-services", self._keys())
        if portal.node_port:
            keys = {f"{portal.protocol} . {portal.node_port}": True}
            self._dispatch("service-nodeports", "no-endpoint-nodeports", keys)
        if portal.load_balancer_ip and portal.source_ranges:
            self._restrict(portal.load_balancer_ip)
        if self.usable:
            self._balance()

    def _keys(self) -> dict[str, bool]:
        """Address, protocol and port → whether that is for clients outside the cluster."""
        portal = self.portal
        outside = [*portal.external_ips]
        if portal.load_balancer_ip:
            outside.append(portal.load_balancer_ip)
        addresses = {portal.cluster_ip: False} | dict.fromkeys(outside, True)
        return {self._key(address): external for address, external in addresses.items()}

    def _key(self, address: IPv4Address) -> str:
        return f"{address} . {self.portal.protocol} . {self.portal.port}"

    def _dispatch(self, served: str, unserved: str, keys: Mapping[str, bool]) -> None:
        """Where packets go: to a chain, or to what is done without endpoints, or both.

        Both is for policy Local on a node without endpoints: pods are served by the chain, and
        what it has not translated is dropped. The node's own packets to such an address meet the
        check before the chain, so they are dropped as well, but for node ports.
        """
        portal = self.portal
        for key, external in keys.items():
            local = portal.external_local if external else portal.internal_local
            reached = bool(self.here if local else self.usable)
            inside = self.local if local else self.cluster
            if reached or (external and self.usable):
                self.rules.element(served, key, f"goto {self.external if external else inside}")
            if not reached:
                verdict = "drop" if self.usable else "goto reject-chain"
                self.rules.element(unserved, f"{key} {_comment(portal)}", verdict)

    def _restrict(self, address: IPv4Address) -> None:
        """Source ranges of a load balancer; its own address where the node may use it."""
        portal = self.portal
        sources = list(portal.source_ranges)
        if any(self.vantage.address in each for each in sources):
            sources.append(IPv4Network(address))
        others = f"ip saddr != {_anonymous(collapse_addresses(sources))} drop"
        self.rules.chains[self.firewall] = [others]
        key = f"{self._key(address)} {_comment(portal)}"
        self.rules.element("firewall-ips", key, f"goto {self.firewall}")

    def _balance(self) -> None:
        portal, chains = self.portal, self.rules.chains
        pods = self.vantage.cluster_cidr
        to_cluster = portal.external or not portal.internal_local
        to_local = portal.internal_local or (portal.external and portal.external_local)
        masquerade = (
            f"ip daddr {portal.cluster_ip} {portal.protocol} dport {portal.port} "
            f"ip saddr != {pods} {_MASQUERADE}"
        )
        reached: dict[Target, str] = {}
        if to_cluster:
            inside = [] if portal.internal_local else [masquerade]
            chains[self.cluster] = inside + self._choose(self.usable)
            reached.update(dict.fromkeys(self.usable, ""))
        if to_local and self.here:
            inside = [masquerade] if portal.internal_local else []
            chains[self.local] = inside + self._choose(self.here)
            reached.update(dict.fromkeys(self.here, ""))
        if portal.external:
            chains[self.external] = self._enter(pods)
        for target in reached:
            self._translate(target, self.endpoints[target])

    def _enter(self, pods: IPv4Network) -> list[str]:
        """What is done with packets from outside; policy Local spares clients' addresses."""
        if not self.portal.external_local:
            return [_MASQUERADE, f"goto {self.cluster}"]
        rules = [
            f'ip saddr {pods} goto {self.cluster} comment "short-circuit pod traffic"',
            f'fib saddr type local {_MASQUERADE} comment "masquerade local traffic"',
            f'fib saddr type local goto {self.cluster} comment "short-circuit local traffic"',
        ]
        return [*rules, f"goto {self.local}"] if self.here else rules

    def _choose(self, targets: Sequence[Target]) -> list[str]:
        """Affinity first, then any endpoint with equal probability."""
        names = [self.endpoints[target] for target in targets]
        rules = []
        if self.portal.affinity_seconds is not None:
            rules = [f"ip saddr @affinity-{name} goto endpoint-{name}" for name in names]
        verdicts = [f"{number} : goto endpoint-{name}" for number, name in enumerate(names)]
        return [*rules, f"numgen random mod {len(names)} vmap {{ {', '.join(verdicts)} }}"]

    def _translate(self, target: Target, name: str) -> None:
        rules = [f"ip saddr {target.address} {_MASQUERADE}"]
        if self.portal.affinity_seconds is not None:
            lasts = _duration(self.portal.affinity_seconds)
            spec = f"type ipv4_addr; size 65535; flags dynamic,timeout; timeout {lasts};"
            self.rules.sets[f"affinity-{name}"] = {"kind": "set", "spec": spec}
            rules.append(f"update @affinity-{name} {{ ip saddr }}")
        rules.append(f"meta l4proto {self.portal.protocol} dnat to {target}")
        self.rules.chains[f"endpoint-{name}"] = rules


def _endpoint(text: str, target: Target) -> str:
    return f"{text}__{target.address}/{target.port}"


@lru_cache(maxsize=1 << 17)
def _hashed(text: str) -> str:
    """Eight characters of base32 are the first five bytes of the digest."""
    name = f"{b32encode(sha256(text.encode()).digest()[:5]).decode()}-{text}"
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."


def _anonymous(networks: Iterable[IPv4Network]) -> str:
    """A set without a name; nft prints one of a single element without braces."""
    texts = [str(each).removesuffix("/32") for each in networks]
    return texts[0] if len(texts) == 1 else f"{{ {', '.join(texts)} }}"


def _duration(seconds: int) -> str:
    """``3h`` for 10800."""
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def _comment(portal: Portal) -> str:
    """The Service's port, as far as nft takes it; legal names can be longer."""
    return f'comment "{portal.name[:_LONGEST_COMMENT]}"'
