"""A cluster as JSON data and back, without loss: testbed stores it inside every node.

Keys are those of the model, always all of them and in the model's order; addresses are strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from testbed.topology.model import (
    Backend,
    Client,
    Cluster,
    Container,
    ContainerPort,
    LoadBalancer,
    Network,
    Node,
    Pod,
    Router,
)
from testbed.topology.service_json import (
    service_from_json,
    service_to_json,
    slice_from_json,
    slice_to_json,
)

__all__ = [
    "from_json",
    "service_from_json",
    "service_to_json",
    "slice_from_json",
    "slice_to_json",
    "to_json",
]


def to_json(cluster: Cluster) -> dict[str, Any]:
    """The cluster as dicts, lists, strings, numbers and booleans."""
    return {
        "name": cluster.name,
        "cni": cluster.cni,
        "backend": {"type": cluster.backend.type, "options": dict(cluster.backend.options)},
        "cluster_cidr": str(cluster.cluster_cidr),
        "node_cidr_mask": cluster.node_cidr_mask,
        "service_cidr": str(cluster.service_cidr),
        "nodes": [_node(node) for node in cluster.nodes],
        "pods": [_pod(pod) for pod in cluster.pods],
        "networks": [
            {"name": each.name, "subnet": str(each.subnet) if each.subnet else None}
            for each in cluster.networks
        ],
        "routers": [
            {
                "name": each.name,
                "index": each.index,
                "networks": list(each.networks),
                "as_number": each.as_number,
            }
            for each in cluster.routers
        ],
        "ipip": cluster.ipip,
        "proxy": cluster.proxy,
        "clients": [
            {
                "name": each.name,
                "index": each.index,
                "network": each.network,
                "as_number": each.as_number,
            }
            for each in cluster.clients
        ],
        "load_balancer": {
            "pool": [[str(first), str(last)] for first, last in cluster.load_balancer.pool],
            "announce": cluster.load_balancer.announce,
        },
        "services": [service_to_json(service) for service in cluster.services],
        "slices": [slice_to_json(piece) for piece in cluster.slices],
    }


def from_json(data: Mapping[str, Any]) -> Cluster:
    """The cluster that :func:`to_json` wrote.

    Raises:
        KeyError, ValueError: it did not write this.
    """
    return Cluster(
        name=data["name"],
        cni=data["cni"],
        backend=Backend(data["backend"]["type"], dict(data["backend"]["options"])),
        cluster_cidr=IPv4Network(data["cluster_cidr"]),
        node_cidr_mask=data["node_cidr_mask"],
        service_cidr=IPv4Network(data["service_cidr"]),
        nodes=tuple(_node_from(row) for row in data["nodes"]),
        pods=tuple(_pod_from(row) for row in data["pods"]),
        networks=tuple(
            Network(row["name"], IPv4Network(row["subnet"]) if row["subnet"] else None)
            for row in data["networks"]
        ),
        routers=tuple(
            Router(row["name"], row["index"], tuple(row["networks"]), row["as_number"])
            for row in data["routers"]
        ),
        ipip=data["ipip"],
        proxy=data["proxy"],
        clients=tuple(
            Client(row["name"], row["index"], row["network"], row["as_number"])
            for row in data["clients"]
        ),
        load_balancer=LoadBalancer(
            tuple(
                (IPv4Address(first), IPv4Address(last))
                for first, last in data["load_balancer"]["pool"]
            ),
            data["load_balancer"]["announce"],
        ),
        services=tuple(service_from_json(row) for row in data["services"]),
        slices=tuple(slice_from_json(row) for row in data["slices"]),
    )


def _node(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "index": node.index,
        "pod_cidrs": [str(cidr) for cidr in node.pod_cidrs],
        "labels": dict(node.labels),
        "network": node.network,
        "borrowed": [str(address) for address in node.borrowed],
    }


def _pod(pod: Pod) -> dict[str, Any]:
    return {
        "namespace": pod.namespace,
        "name": pod.name,
        "node": pod.node,
        "containers": [_container(container) for container in pod.containers],
        "labels": dict(pod.labels),
        "annotations": dict(pod.annotations),
        "hostname": pod.hostname,
        "host_network": pod.host_network,
        "share_process_namespace": pod.share_process_namespace,
        "restart_policy": pod.restart_policy,
        "owner": pod.owner,
        "gated": pod.gated,
    }


def _container(container: Container) -> dict[str, Any]:
    return {
        "name": container.name,
        "image": container.image,
        "argv": list(container.argv),
        "env": dict(container.env),
        "working_dir": container.working_dir,
        "ports": [_port(port) for port in container.ports],
    }


def _port(port: ContainerPort) -> dict[str, Any]:
    return {
        "container_port": port.container_port,
        "protocol": port.protocol,
        "name": port.name,
        "host_port": port.host_port,
        "host_ip": str(port.host_ip) if port.host_ip else None,
    }


def _node_from(row: Mapping[str, Any]) -> Node:
    return Node(
        name=row["name"],
        index=row["index"],
        pod_cidrs=tuple(IPv4Network(cidr) for cidr in row["pod_cidrs"]),
        labels=dict(row["labels"]),
        network=row["network"],
        borrowed=tuple(IPv4Address(address) for address in row["borrowed"]),
    )


def _pod_from(row: Mapping[str, Any]) -> Pod:
    return Pod(
        namespace=row["namespace"],
        name=row["name"],
        node=row["node"],
        containers=tuple(_container_from(container) for container in row["containers"]),
        labels=dict(row["labels"]),
        annotations=dict(row["annotations"]),
        hostname=row["hostname"],
        host_network=row["host_network"],
        share_process_namespace=row["share_process_namespace"],
        restart_policy=row["restart_policy"],
        owner=row["owner"],
        gated=row["gated"],
    )


def _container_from(row: Mapping[str, Any]) -> Container:
    return Container(
        name=row["name"],
        image=row["image"],
        argv=tuple(row["argv"]),
        env=dict(row["env"]),
        working_dir=row["working_dir"],
        ports=tuple(_port_from(port) for port in row["ports"]),
    )


def _port_from(row: Mapping[str, Any]) -> ContainerPort:
    return ContainerPort(
        container_port=row["container_port"],
        protocol=row["protocol"],
        name=row["name"],
        host_port=row["host_port"],
        host_ip=IPv4Address(row["host_ip"]) if row["host_ip"] else None,
    )
