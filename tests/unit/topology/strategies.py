"""Random valid topologies, made by the loader itself from random Compose data."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any
from zlib import crc32

from hypothesis import strategies as st

from testbed.topology.cnis import Cnis, Traits
from testbed.topology.load import from_dict
from testbed.topology.model import Cluster

CNIS: Cnis = {
    "flannel": Traits(
        {
            "vxlan": {"vni": int, "port": int, "mtu": int, "direct_routing": bool},
            "host-gw": {},
            "ipip": {"direct_routing": bool},
        },
        routed=frozenset({"vxlan", "ipip"}),
    ),
    "calico": Traits(
        {
            "ipip": {
                "mode": ("Always", "CrossSubnet"),
                "block_size": int,
                "strict_affinity": bool,
                "mtu": int,
            },
            "none": {"block_size": int, "strict_affinity": bool},
        },
        blocks=True,
        tunnels=frozenset({"ipip"}),
        routed=frozenset({"ipip", "none"}),
    ),
}
"""Stand-ins: what these tests say holds for any CNI of such traits."""

_ADDRESSES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"cluster_cidr": "10.0.0.0/12", "service_cidr": "10.96.0.0/12"},
        {"cluster_cidr": "192.168.0.0/20", "node_cidr_mask": 25},
        {"cluster_cidr": "172.16.4.0/22", "node_cidr_mask": 27, "service_cidr": "10.0.0.0/29"},
        {"cluster_cidr": "10.244.128.0/17", "node_cidr_mask": 26},
    ]
)
_BACKENDS = st.one_of(
    st.sampled_from(["vxlan", "host-gw"]),
    st.fixed_dictionaries(
        {"type": st.just("vxlan")},
        optional={
            "vni": st.integers(1, 16_777_215),
            "port": st.integers(1, 65535),
            "mtu": st.integers(1280, 9000),
            "direct_routing": st.booleans(),
        },
    ),
)
_BLOCKS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("ipip")},
        optional={
            "mode": st.sampled_from(["Always", "CrossSubnet"]),
            "block_size": st.integers(25, 30),
            "strict_affinity": st.booleans(),
            "mtu": st.integers(1280, 9000),
        },
    ),
    st.fixed_dictionaries({"type": st.just("none")}, optional={"block_size": st.just(32)}),
)
_POOLS = st.sampled_from(["192.168.0.0/16", "10.244.64.0/18", "172.16.4.0/22"])
_NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
_AS_NUMBERS = st.sampled_from([{}, {"as_number": 64513}, {"as_number": 2**32 - 1}])
_LABELS = st.dictionaries(_NAMES, _NAMES, max_size=2)
_IMAGES = st.sampled_from(["netexec", "busybox:1.36", "docker.io/library/nginx", "redis", "iperf3"])
_BANDWIDTH = st.dictionaries(
    st.sampled_from(["kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"]),
    st.sampled_from(["10M", "1Gi", "500k", "1.5M"]),
)
_POLICIES = st.sampled_from(["Cluster", "Local"])
_PROTOCOLS = st.sampled_from(["TCP", "UDP", "SCTP"])


@st.composite
def topologies(draw: st.DrawFn) -> dict[str, Any]:
    """A valid Compose file with its pods inline, as plain data."""
    nodes = draw(st.lists(_NAMES, min_size=1, max_size=5, unique=True))
    names = draw(st.lists(_NAMES, max_size=6, unique=True))
    # Distinct host ports, so that every pod fits on every node.
    host_ports = iter(draw(st.permutations(range(20_000, 20_040))))
    settings: dict[str, Any] = {
        "name": draw(_NAMES),
        "cni": "flannel",
        "default_pods": draw(st.integers(0, 3)),
        "manifests": [
            *[draw(_pods(name, nodes, host_ports)) for name in names],
            *[draw(_services(name)) for name in draw(st.lists(_NAMES, max_size=3, unique=True))],
            *[draw(_slices(name, nodes)) for name in draw(st.lists(_NAMES, max_size=1))],
            *[draw(_deployments(name)) for name in draw(st.lists(_NAMES, max_size=1))],
        ],
        **draw(_ADDRESSES),
    }
    if draw(st.booleans()):
        settings["backend"] = draw(_BACKENDS)
    services = {
        name: {"image": "testbed-node", "x-testbed": {"labels": draw(_LABELS)}} for name in nodes
    }
    data: dict[str, Any] = {"services": services, "x-testbed": settings}
    if draw(st.booleans()):
        data["networks"] = {"default": {"ipam": {"config": [{"subnet": "172.30.0.0/24"}]}}}
    return data


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """A valid cluster; its addresses stay clear of 100.64.0.0/10."""
    return from_dict(draw(topologies()), cnis=CNIS)


@st.composite
def wide_topologies(draw: st.DrawFn) -> dict[str, Any]:
    """The same with several networks, a router on all of them, Calico or VXLAN."""
    data = draw(topologies())
    names = draw(st.lists(_NAMES, min_size=2, max_size=4, unique=True))
    data["networks"] = {
        name: draw(st.sampled_from([None, {"ipam": {"config": [{"subnet": subnet}]}}]))
        for name, subnet in ((name, f"172.30.{index}.0/24") for index, name in enumerate(names))
    }
    on = list(data["networks"])
    for service in data["services"].values():
        network = draw(st.sampled_from(on))
        service["networks"] = draw(st.sampled_from([[network], {network: None}]))
    for name in draw(st.lists(_NAMES, min_size=1, max_size=2, unique=True)):
        role = {"role": "router", **draw(_AS_NUMBERS)}
        data["services"][f"{name}-top-of-rack"] = {
            "image": "testbed-node",
            "networks": draw(st.permutations(on)),
            "x-testbed": role,
        }
    settings = data["x-testbed"]
    settings.pop("backend", None)
    if draw(st.booleans()):
        settings.pop("node_cidr_mask", None)
        settings |= {"cni": "calico", "backend": draw(_BLOCKS), "cluster_cidr": draw(_POOLS)}
        if settings["backend"]["type"] == "ipip":
            settings["ipip"] = draw(st.sampled_from(["auto", "kernel", "ebpf"]))
    return data


@st.composite
def wide_clusters(draw: st.DrawFn) -> Cluster:
    """A valid cluster with all that the model knows."""
    return from_dict(draw(wide_topologies()), cnis=CNIS)


@st.composite
def _pods(draw: st.DrawFn, name: str, nodes: list[str], host_ports: Any) -> dict[str, Any]:
    host_network = draw(st.booleans())
    ports = draw(
        st.lists(st.tuples(st.integers(1, 65535), _PROTOCOLS), max_size=3, unique_by=lambda p: p[0])
    )
    containers: list[dict[str, Any]] = [
        {
            "name": f"c{number}",
            "image": draw(_IMAGES),
            "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        }
        for number in range(draw(st.integers(1, 2)))
    ]
    for number, protocol in ports:
        port: dict[str, Any] = {"containerPort": number, "protocol": protocol}
        if host_network:
            port["containerPort"] = next(host_ports)
        elif draw(st.booleans()):
            port["hostPort"] = next(host_ports)
        draw(st.sampled_from(containers)).setdefault("ports", []).append(port)
    spec: dict[str, Any] = {"hostNetwork": host_network, "containers": containers}
    if draw(st.booleans()):
        spec["nodeName"] = draw(st.sampled_from(nodes))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": draw(st.sampled_from(["default", "kube-system"])),
            "labels": draw(_LABELS),
            "annotations": {} if host_network else draw(_BANDWIDTH),
        },
        "spec": spec,
    }


@st.composite
def _services(draw: st.DrawFn, name: str) -> dict[str, Any]:
    ports = draw(
        st.lists(
            st.fixed_dictionaries(
                {"name": _NAMES, "port": st.integers(1, 65535)},
                optional={
                    "protocol": st.sampled_from(["TCP", "UDP"]),
                    "targetPort": st.one_of(
                        st.integers(1, 65535), st.sampled_from(["http", "dns"])
                    ),
                },
            ),
            min_size=1,
            max_size=3,
            unique_by=(lambda port: port["name"], lambda port: port["port"]),
        )
    )
    kind = draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]))
    spec: dict[str, Any] = {
        "type": kind,
        "ports": ports,
        "selector": draw(_LABELS),
        "internalTrafficPolicy": draw(_POLICIES),
        "publishNotReadyAddresses": draw(st.booleans()),
    }
    if kind != "ClusterIP":
        spec["externalTrafficPolicy"] = draw(_POLICIES)
        digest = crc32(name.encode())  # an address is one Service's
        spec["externalIPs"] = [str(IPv4Address("11.0.0.1") + digest % 2**24)]
    elif draw(st.booleans()):
        spec["clusterIP"] = "None"
    if kind == "LoadBalancer":
        spec["loadBalancerSourceRanges"] = draw(st.sampled_from([[], ["0.0.0.0/0", "10.0.0.0/8"]]))
        spec["allocateLoadBalancerNodePorts"] = draw(st.booleans())
    if draw(st.booleans()):
        spec["sessionAffinity"] = "ClientIP"
        spec["sessionAffinityConfig"] = {
            "clientIP": {"timeoutSeconds": draw(st.integers(1, 86400))}
        }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


@st.composite
def _slices(draw: st.DrawFn, name: str, nodes: list[str]) -> dict[str, Any]:
    endpoints = st.fixed_dictionaries(
        {"addresses": st.just(["192.0.2.2"])},
        optional={
            "nodeName": st.sampled_from(nodes),
            "conditions": st.fixed_dictionaries({"ready": st.booleans()}),
        },
    )
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": draw(_NAMES)}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": draw(st.integers(1, 65535))}],
        "endpoints": draw(st.lists(endpoints, max_size=2)),
    }


@st.composite
def _deployments(draw: st.DrawFn, name: str) -> dict[str, Any]:
    labels = {"app": name}
    container = {"name": "c", "image": draw(_IMAGES)}
    spec = {
        "replicas": draw(st.integers(0, 3)),
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
