"""Composition: a cluster and what the engine can do, to one :class:`NodeSpec` per node. Pure.

A planner is found by its file's name: ``cni: flannel`` is :mod:`testbed.cni.flannel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from ipaddress import IPv4Network
from pkgutil import iter_modules
from typing import Protocol, cast
from uuid import NAMESPACE_DNS, UUID, uuid5

import testbed.cni
import testbed.proxy
from testbed.bgp import router
from testbed.dataplane import kubelet, nft, objects
from testbed.dataplane.features import Features
from testbed.dataplane.fragment import fragment
from testbed.dataplane.native import native_files
from testbed.dataplane.spec import (
    ContainerSpec,
    KernelObject,
    NodeSpec,
    PodSpec,
    PortMapping,
    Ruleset,
    Unit,
)
from testbed.dataplane.underlay import Segment, Underlay
from testbed.dataplane.vantage import Vantage
from testbed.errors import MissingCapabilityError, PlanError
from testbed.overlay import ipip
from testbed.topology.cnis import Traits
from testbed.topology.model import Client, Cluster, Node, Pod
from testbed.topology.portals import Portal
from testbed.topology.quantity import bits_per_second
from testbed.topology.serialize import to_json

__all__ = [
    "CniPlanner",
    "ProxyPlanner",
    "assumed_underlay",
    "cni",
    "cnis",
    "plan",
    "proxies",
    "proxy",
    "require",
    "vantage",
]

_RULES = {"ipset": "ipset", "iptables": "iptables-restore", "nft": "nft"}
"""Key of a unit → tool of the ruleset, in the order in which they are applied."""
_CONNTRACK = {
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait": "3600",
    "net.netfilter.nf_conntrack_tcp_timeout_established": "86400",
}
"""Seconds, set by kube-proxy in every mode. ``nf_conntrack_max`` is the whole machine's."""
_MAX_BURST = 2**32 - 1
"""Bits: what containerd passes with a rate, since Kubernetes' annotations know no burst."""


class CniPlanner(Protocol):
    """What a module of :mod:`testbed.cni` offers."""

    TRAITS: Traits
    """What a topology may say of it."""

    def requires(self, cluster: Cluster) -> frozenset[str]:
        """Kernel features (fields of :class:`Features`) without which it cannot run."""

    def plan(
        self, cluster: Cluster, node: Node, underlay: Underlay, features: Features
    ) -> NodeSpec:
        """What ``node`` holds, without its pods."""


class ProxyPlanner(Protocol):
    """What a module of :mod:`testbed.proxy` offers."""

    REQUIRES: frozenset[str]
    """Kernel features (fields of :class:`Features`) without which the mode cannot run."""
    SYSCTLS: Mapping[str, str]
    """What kube-proxy sets on a node."""
    OBJECTS: tuple[KernelObject, ...]
    """What it makes besides rules."""

    def dispatch(self, portals: Sequence[Portal], vantage: Vantage) -> Unit:
        """What all Services share; ``portals`` are those of all of them, in order of their keys."""

    def service(self, portals: Sequence[Portal], vantage: Vantage) -> Unit:
        """What one Service has for itself; ``portals`` are its own."""


def cni(name: str) -> CniPlanner:
    """The planner in ``testbed/cni/<name>.py``."""
    return cast(CniPlanner, import_module(f"testbed.cni.{name}"))


def cnis() -> dict[str, Traits]:
    """Every CNI, for the loader to validate a topology against."""
    names = sorted(module.name for module in iter_modules(testbed.cni.__path__))
    return {name: cni(name).TRAITS for name in names}


def proxy(mode: str) -> ProxyPlanner:
    """The planner in ``testbed/proxy/<mode>.py``."""
    return cast(ProxyPlanner, import_module(f"testbed.proxy.{mode}"))


def proxies() -> tuple[str, ...]:
    """kube-proxy's modes, and ``none``."""
    return (*sorted(module.name for module in iter_modules(testbed.proxy.__path__)), "none")


def vantage(cluster: Cluster, node: Node, underlay: Underlay, *, large: bool = False) -> Vantage:
    """The node as its kube-proxy sees it."""
    address = underlay.address_of(node.network, node.index)
    return Vantage(node.name, address, cluster.cluster_cidr, cluster.service_cidr, large)


def plan(cluster: Cluster, underlay: Underlay, features: Features) -> tuple[NodeSpec, ...]:
    """One spec per node, in the topology's order, then one per router and one per client.

    Raises:
        MissingCapabilityError: the kernel lacks something the CNI needs.
        PlanError: the underlay is too small, or lies inside the pods' or services' addresses.
    """
    cluster = require(cluster, features)
    planner = cni(cluster.cni)
    _check_underlay(cluster, underlay)
    nodes = (
        _on_node(planner.plan(cluster, node, underlay, features), cluster, node, underlay)
        for node in cluster.nodes
    )
    routers = (router.plan(cluster, each, underlay) for each in cluster.routers)
    clients = (_client(cluster, each, underlay) for each in cluster.clients)
    state = to_json(replace(cluster, services=(), slices=()))  # those change by themselves
    return tuple(_complete(spec, state) for spec in (*nodes, *routers, *clients))


def _on_node(spec: NodeSpec, cluster: Cluster, node: Node, underlay: Underlay) -> NodeSpec:
    """Add what every node has, whatever its CNI: the way to other networks, kube-proxy, pods."""
    spec = _with_proxy(spec, cluster, node, underlay)
    return replace(
        spec,
        objects=_routed_networks(cluster, node, underlay) + spec.objects,
        pods=tuple(_pod(cluster, pod) for pod in cluster.pods_on(node.name)),
    )


def _with_proxy(spec: NodeSpec, cluster: Cluster, node: Node, underlay: Underlay) -> NodeSpec:
    """Add what kube-proxy holds without any Service: the rest follows once pods have addresses.

    The kubelet's rules come first, then these, as kube-proxy starts before the CNI's daemon does:
    what Felix inserts at the top of a chain is above them, and what flanneld appends is below.
    """
    own = Ruleset("kubelet", fragment(kubelet.TABLES))
    if cluster.proxy == "none":
        return replace(spec, rulesets=(own, *spec.rulesets))
    planner = proxy(cluster.proxy)
    unit = planner.dispatch((), vantage(cluster, node, underlay))
    rules = (
        Ruleset("kube-proxy", nft.table([unit[key]]) if key == "nft" else unit[key], tool)
        for key, tool in _RULES.items()
        if key in unit
    )
    return replace(
        spec,
        sysctls={**_CONNTRACK, **planner.SYSCTLS, **spec.sysctls},
        objects=planner.OBJECTS + spec.objects,
        rulesets=(own, *rules, *spec.rulesets),
    )


def _client(cluster: Cluster, client: Client, underlay: Underlay) -> NodeSpec:
    spec = router.plan_client(cluster, client, underlay)
    return replace(spec, objects=_routed_networks(cluster, client, underlay))


def _complete(spec: NodeSpec, state: Mapping[str, object]) -> NodeSpec:
    files = spec.files + native_files(spec.objects, spec.rulesets)
    return replace(spec, files=files, cluster=state)


def _routed_networks(
    cluster: Cluster, node: Node | Client, underlay: Underlay
) -> tuple[KernelObject, ...]:
    """Routes to the other networks by the first router that is on the node's and on theirs."""
    own = underlay.segments[node.network]
    ways = {
        network: own.router_address(each.index)
        for each in reversed(cluster.routers)
        if node.network in each.networks
        for network in each.networks
        if network != node.network
    }
    return tuple(
        objects.route(segment.subnet, via=ways[name], device=underlay.device)
        for name, segment in underlay.segments.items()
        if name in ways
    )


def assumed_underlay(cluster: Cluster) -> Underlay:
    """The networks for a plan that is made without an engine: given subnets, or 172.18.0.0/16 on.

    An engine of its own that has no other networks would choose the same.
    """
    given = [network.subnet for network in cluster.networks if network.subnet]
    free = (
        subnet
        for subnet in (
            *(IPv4Network(f"172.{second}.0.0/16") for second in range(18, 32)),
            *IPv4Network("192.168.0.0/16").subnets(new_prefix=20),
        )
        if not any(subnet.overlaps(taken) for taken in given)
    )
    return Underlay({each.name: Segment(each.subnet or next(free)) for each in cluster.networks})


def require(cluster: Cluster, features: Features) -> Cluster:
    """Check that the kernel has what the CNI needs, before anything is created.

    Returns the cluster with its IPIP driver chosen: no planner sees ``auto``.

    Raises:
        MissingCapabilityError: what is missing, and what to do.
    """
    cluster = replace(cluster, ipip=ipip.driver(cluster.ipip, features))
    needs = {
        f"{cluster.cni} with backend {cluster.backend.type}": (
            cni(cluster.cni).requires(cluster),
            "another backend",
        ),
    }
    if cluster.proxy != "none":
        name = f"kube-proxy in mode {cluster.proxy}"
        needs[name] = proxy(cluster.proxy).REQUIRES, "another mode with --proxy"
    for who, (features_needed, instead) in needs.items():
        missing = sorted(features_needed - features.available)
        if missing:
            raise MissingCapabilityError(
                f"{who} needs what kernel {features.kernel_release} of the Docker host does not "
                f"have: {', '.join(missing)}.\n"
                f"Load the modules on the host (`modprobe NAME`) or choose {instead}; "
                "`testbed doctor` shows what works."
            )
    return cluster


def _check_underlay(cluster: Cluster, underlay: Underlay) -> None:
    for name, segment in underlay.segments.items():
        for what, network in (
            ("cluster_cidr", cluster.cluster_cidr),
            ("service_cidr", cluster.service_cidr),
        ):
            if network.overlaps(segment.subnet):
                raise PlanError(
                    f"{what} {network} overlaps the node network {segment.subnet} of testbed "
                    f"{cluster.name!r}: a route to one would hide the other. Change {what}, or set "
                    f"networks.{name}.ipam in the topology."
                )
    try:
        for node in cluster.nodes:
            underlay.address_of(node.network, node.index)
    except ValueError as error:
        raise PlanError(str(error)) from error


def _pod(cluster: Cluster, pod: Pod) -> PodSpec:
    return PodSpec(
        namespace=pod.namespace,
        name=pod.name,
        uid=str(_uid(cluster.name, pod.key)),
        hostname=pod.hostname,
        containers=tuple(
            ContainerSpec(each.name, each.image, each.argv, dict(each.env), each.working_dir)
            for each in pod.containers
        ),
        labels=dict(pod.labels),
        annotations=dict(pod.annotations),
        host_network=pod.host_network,
        share_process_namespace=pod.share_process_namespace,
        restart_policy=pod.restart_policy,
        port_mappings=_port_mappings(pod),
        bandwidth=_bandwidth(pod.annotations),
    )


def _uid(testbed_name: str, key: str) -> UUID:
    return uuid5(NAMESPACE_DNS, f"{key}.{testbed_name}.testbed")


def _port_mappings(pod: Pod) -> tuple[PortMapping, ...]:
    if pod.host_network:
        return ()
    return tuple(
        PortMapping(
            port.host_port,
            port.container_port,
            port.protocol.lower(),
            str(port.host_ip) if port.host_ip else "",
        )
        for container in pod.containers
        for port in container.ports
        if port.host_port is not None
    )


def _bandwidth(annotations: Mapping[str, str]) -> dict[str, int]:
    """The ``bandwidth`` capability, as containerd derives it from the pod's annotations."""
    limits: dict[str, int] = {}
    for direction in ("ingress", "egress"):
        quantity = annotations.get(f"kubernetes.io/{direction}-bandwidth")
        if quantity is not None:
            limits[f"{direction}Rate"] = bits_per_second(quantity)
            limits[f"{direction}Burst"] = _MAX_BURST
    return limits
