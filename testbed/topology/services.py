"""A ``kind: Service`` manifest.

Honoured: every field of a Service's spec that kube-proxy reads. A manifest that ``kubectl get -o
yaml`` printed loads as it is: ``status`` and the metadata of an API server's own bookkeeping are
ignored. What the API server refuses is refused here at its line, and so is what needs something
that is not here: ExternalName (a cluster DNS), SCTP, IPv6, load balancer classes, zones.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

from testbed.topology import names
from testbed.topology.addresses import read_addresses, read_ranges, special
from testbed.topology.declared import ServiceDeclaration
from testbed.topology.metadata import read_annotations, read_identity, read_parts
from testbed.topology.section import Section, either
from testbed.topology.service import Service, ServicePort
from testbed.topology.source import quote

__all__ = ["NODE_PORTS", "read_protocol", "read_service"]

NODE_PORTS = range(30000, 32768)
"""kube-apiserver's default ``--service-node-port-range``."""

_TYPES = ("ClusterIP", "NodePort", "LoadBalancer")
_POLICIES = ("Cluster", "Local")
_HONOURED = (
    *("allocateLoadBalancerNodePorts", "clusterIP", "clusterIPs", "externalIPs"),
    *("externalTrafficPolicy", "healthCheckNodePort", "internalTrafficPolicy", "ipFamilies"),
    *("ipFamilyPolicy", "loadBalancerIP", "loadBalancerSourceRanges", "ports"),
    *("publishNotReadyAddresses", "selector", "sessionAffinity", "sessionAffinityConfig", "type"),
)
_REFUSED = {
    "externalName": "it is an alias in a cluster DNS, and there is none",
    "loadBalancerClass": "there is one load balancer; see x-testbed.load_balancer",
    "topologyKeys": "Kubernetes removed it in 1.22; see internalTrafficPolicy",
    "trafficDistribution": "nodes have no zones; see internalTrafficPolicy",
}
_OF_LOAD_BALANCERS = (
    *("loadBalancerIP", "loadBalancerSourceRanges", "allocateLoadBalancerNodePorts"),
)
_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
_AFFINITY_SECONDS = 10800
_DAY = 86400


def read_service(document: Section) -> ServiceDeclaration | None:
    """Read a Service; None when it has no usable name or spec to go on with."""
    document.only(("apiVersion", "kind", "metadata", "spec"), ignored={"status"})
    parts = read_parts(document, "a Service has metadata (its name) and spec (ports)")
    if parts is None:
        return None
    metadata, spec = parts
    name, namespace = read_identity(metadata, "Service", names.dns_1035_label, "web")
    _check_metadata(metadata)
    if _data(spec, "type") == "ExternalName":
        spec.problem(
            "type",
            "ExternalName is an alias in a cluster DNS, and there is none; write a Service without "
            "selector, and its endpoints as an EndpointSlice",
        )
        return None
    spec.only(_HONOURED, _REFUSED)
    kind = spec.choice("type", _TYPES, "ClusterIP")
    cluster_ip, headless = _cluster_ip(spec, kind)
    _check_families(spec)
    _check_type(spec, kind)
    sections = spec.sections("ports")
    external_ips = read_addresses(spec, "externalIPs")
    if headless and external_ips:
        spec.problem("externalIPs", "kube-proxy passes over a headless Service; remove one of them")
    external_policy = _external_policy(spec, kind, external_ips)
    allocates = spec.flag("allocateLoadBalancerNodePorts")
    service = Service(
        namespace=namespace,
        name=name or "",
        ports=_ports(spec, sections, kind, headless),
        type=kind,
        cluster_ip=cluster_ip,
        selector=names.labels(spec, "selector"),
        external_ips=external_ips,
        load_balancer_ip=_load_balancer_ip(spec),
        load_balancer_source_ranges=read_ranges(spec, "loadBalancerSourceRanges"),
        session_affinity_seconds=_affinity(spec),
        external_traffic_policy=external_policy,
        internal_traffic_policy=spec.choice("internalTrafficPolicy", _POLICIES, "Cluster"),
        publish_not_ready_addresses=spec.flag("publishNotReadyAddresses") or False,
        health_check_node_port=_health_port(spec, kind, external_policy),
    )
    declared = ServiceDeclaration(
        place=metadata.place_of("name"),
        service=service,
        headless=headless,
        allocates_node_ports=kind == "NodePort"
        or (kind == "LoadBalancer" and allocates is not False),
        ip_place=spec.place_of("clusterIP"),
        port_places=tuple(section.place_of("nodePort") for section in sections),
        health_place=spec.place_of("healthCheckNodePort"),
    )
    return declared if name else None


def read_protocol(section: Section) -> str:
    """The protocol of a Service's or an EndpointSlice's port."""
    if _data(section, "protocol") == "SCTP":
        section.problem(
            "protocol",
            "SCTP is not supported: many kernels are built without it, and no application of the "
            "node image speaks it; write TCP or UDP",
        )
        return "TCP"
    return section.choice("protocol", ("TCP", "UDP"), "TCP")


def _data(section: Section, key: str) -> object:
    """A value to look at; whoever reads it reports a wrong type."""
    value = section.get(key)
    return None if value is None else value.data


def _check_metadata(metadata: Section) -> None:
    labels = names.labels(metadata, "labels")
    if _PROXY_NAME in labels:
        metadata.problem("labels", f"{_PROXY_NAME} hides the Service from kube-proxy; remove it")
    if _SOURCE_RANGES in read_annotations(metadata):
        metadata.problem("annotations", f"write {_SOURCE_RANGES} as spec.loadBalancerSourceRanges")


def _cluster_ip(spec: Section, kind: str) -> tuple[IPv4Address | None, bool]:
    """The address that is asked for, if any, and whether the Service is headless."""
    given = [value.data for _, value in spec.items("clusterIPs")]
    first = _data(spec, "clusterIP")
    if given and given != [first]:
        spec.problem("clusterIPs", "must be a list of clusterIP alone; write only clusterIP")
    if first != "None":
        return spec.address("clusterIP"), False
    if kind != "ClusterIP":
        spec.problem("clusterIP", f"a Service of type {kind} cannot be headless; remove None")
    return None, True


def _check_families(spec: Section) -> None:
    for where, value in spec.items("ipFamilies"):
        if value.data != "IPv4":
            spec.problems.add(value.place, f"{where}: this release is IPv4 only; write [IPv4]")
    policy = spec.text("ipFamilyPolicy")
    if policy not in (None, "SingleStack"):
        spec.problem(
            "ipFamilyPolicy",
            f"{quote(policy or '')} is not supported: this release is IPv4 only; write SingleStack",
        )


def _check_type(spec: Section, kind: str) -> None:
    for key in _OF_LOAD_BALANCERS:
        value = spec.get(key)
        if value is not None and value.data not in ("", ()) and kind != "LoadBalancer":
            spec.problem(key, f"only for type LoadBalancer, not {kind}; remove it")


def _external_policy(spec: Section, kind: str, external_ips: tuple[IPv4Address, ...]) -> str:
    if spec.get("externalTrafficPolicy") is not None and kind == "ClusterIP" and not external_ips:
        spec.problem(
            "externalTrafficPolicy",
            "nothing outside reaches this Service; remove it, or use type NodePort or "
            "LoadBalancer, or externalIPs",
        )
    return spec.choice("externalTrafficPolicy", _POLICIES, "Cluster")


def _load_balancer_ip(spec: Section) -> IPv4Address | None:
    address = spec.address("loadBalancerIP")
    if address is not None and (error := special(address)):
        spec.problem("loadBalancerIP", error)
    return address


def _affinity(spec: Section) -> int | None:
    affinity = spec.choice("sessionAffinity", ("None", "ClientIP"), "None")
    config = spec.section("sessionAffinityConfig")
    if affinity == "None":
        if config is not None:
            spec.problem(
                "sessionAffinityConfig", "only with `sessionAffinity: ClientIP`; remove it"
            )
        return None
    client = None
    if config is not None:
        config.only(("clientIP",))
        client = config.section("clientIP")
    if client is None:
        return _AFFINITY_SECONDS
    client.only(("timeoutSeconds",))
    return client.integer("timeoutSeconds", 1, _DAY) or _AFFINITY_SECONDS


def _health_port(spec: Section, kind: str, policy: str) -> int | None:
    port = _node_port(spec, "healthCheckNodePort")
    if port and (kind, policy) != ("LoadBalancer", "Local"):
        spec.problem(
            "healthCheckNodePort",
            "only for type LoadBalancer with `externalTrafficPolicy: Local`; remove it",
        )
        return None
    return port


def _node_port(section: Section, key: str) -> int | None:
    """A port of every node; 0 is the same as none, as in the API."""
    port = section.integer(key, 0, 65535)
    if port and port not in NODE_PORTS:
        section.problem(
            key, f"{port} is out of range; use {NODE_PORTS[0]} to {NODE_PORTS[-1]}, or remove it"
        )
        return None
    return port or None


def _ports(
    spec: Section, sections: Sequence[Section], kind: str, headless: bool
) -> tuple[ServicePort, ...]:
    value = spec.get("ports")
    if (value is None or value.data == ()) and not headless:
        spec.problem("ports", "missing; a Service has at least one port, as in `- port: 80`")
    found = tuple(_port(section, kind, len(sections)) for section in sections)
    seen: dict[str, Section] = {}
    for port, section in zip(found, sections, strict=True):
        claims = {
            f"port {port.port}/{port.protocol}": ("port", port.port),
            f"port name {quote(port.name)}": ("name", port.name),
            f"nodePort {port.node_port}/{port.protocol}": ("nodePort", port.node_port),
        }
        for claim, (key, given) in claims.items():
            first = seen.setdefault(claim, section) if given else section
            if first is not section:
                line = first.place_of(key).line
                section.problem(key, f"{claim} is already on line {line}; change one")
    return found


def _port(section: Section, kind: str, count: int) -> ServicePort:
    section.only(("name", "port", "targetPort", "nodePort", "protocol"), ignored={"appProtocol"})
    if section.get("port") is None:
        section.problem("port", "missing; the port at the Service's own address, as in `port: 80`")
    port = section.integer("port", 1, 65535) or 0
    if count > 1 and section.get("name") is None:
        section.problem("name", "missing; the ports of a Service with several have names")
    node_port = _node_port(section, "nodePort")
    if node_port and kind == "ClusterIP":
        section.problem(
            "nodePort", f"only for types {either(_TYPES[1:])}; remove it or change the type"
        )
    return ServicePort(
        port=port,
        protocol=read_protocol(section),
        name=section.valid("name", names.dns_label) or "",
        target_port=_target(section) or port,
        node_port=node_port,
    )


def _target(section: Section) -> int | str | None:
    value = section.get("targetPort")
    if value is None or value.data in (0, ""):
        return None
    if isinstance(value.data, str):
        return section.valid("targetPort", names.port_name)
    return section.integer("targetPort", 1, 65535)
