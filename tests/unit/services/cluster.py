"""A small cluster with Services, for tests."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from testbed.dataplane.underlay import Underlay
from testbed.topology.model import Backend, Cluster, Container, ContainerPort, Node, Pod
from testbed.topology.portals import Seen
from testbed.topology.service import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Service,
    ServicePort,
)

UNDERLAY = Underlay.single(IPv4Network("172.18.0.0/16"))
WEB = Service(
    "default",
    "web",
    (ServicePort(80, name="http", target_port="http", node_port=30080),),
    type="NodePort",
    cluster_ip=IPv4Address("10.96.0.11"),
    selector={"app": "web"},
)
DNS = Service(
    "kube-system",
    "dns",
    (ServicePort(53, "UDP", "dns", 53),),
    cluster_ip=IPv4Address("10.96.0.10"),
)


def pod(name: str, node: str, **more: Any) -> Pod:
    """A pod of the web."""
    ports = (ContainerPort(8080, "TCP", "http"),)
    return replace(
        Pod("default", name, node, (Container("c", "netexec", ("x",), ports=ports),)),
        **{"labels": {"app": "web"}, **more},
    )


def cluster(**more: Any) -> Cluster:
    """Two nodes with a pod each, behind a Service."""
    nodes = tuple(
        Node(f"node{index + 1}", index, (IPv4Network(f"10.244.{index}.0/24"),))
        for index in range(2)
    )
    made = Cluster(
        name="t",
        cni="flannel",
        backend=Backend("vxlan"),
        cluster_cidr=IPv4Network("10.244.0.0/16"),
        node_cidr_mask=24,
        service_cidr=IPv4Network("10.96.0.0/16"),
        nodes=nodes,
        pods=(pod("a", "node1"), pod("b", "node2")),
        services=(WEB,),
    )
    return replace(made, **more)


def running(*names: str) -> dict[str, Seen]:
    """Pods that are ready."""
    addresses = {"a": "10.244.0.2", "b": "10.244.1.2"}
    return {f"default/{name}": Seen(IPv4Address(addresses[name]), True) for name in names}


def written(service: str, *addresses: str, **more: Any) -> EndpointSlice:
    """A slice of the DNS."""
    endpoints = tuple(Endpoint(IPv4Address(address), **more) for address in addresses)
    return EndpointSlice(
        "kube-system", f"{service}-1", service, (EndpointPort(53, "UDP", "dns"),), endpoints
    )
