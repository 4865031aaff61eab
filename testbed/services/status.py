"""Services as ``testbed status -o json`` shows them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from testbed.topology.model import Cluster
from testbed.topology.portals import Seen
from testbed.topology.serialize import service_from_json, slice_from_json
from testbed.topology.service import EndpointSlice, Service

__all__ = ["entries"]


def entries(
    cluster: Cluster, kept: Mapping[str, Any], pods: Mapping[str, Seen]
) -> list[dict[str, Any]]:
    """One entry for each Service, by namespace and name."""
    names = {str(known.address): key for key, known in pods.items()}
    hosts = {pod.key for pod in cluster.pods if pod.host_network}
    found = []
    for entry in kept.values():
        if entry["service"]:
            pieces = [slice_from_json(row) for row in (*entry["written"], *entry["slices"])]
            rows = list(_endpoints(pieces, names, hosts))
            found.append(_entry(service_from_json(entry["service"]), rows))
    return found


def _entry(service: Service, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    address = service.load_balancer_ip
    return {
        "namespace": service.namespace,
        "name": service.name,
        "type": service.type,
        "cluster_ip": str(service.cluster_ip) if service.cluster_ip else "None",
        "external_ips": [str(each) for each in service.external_ips],
        "load_balancer_ip": str(address) if address else "",
        "ports": [
            {
                "name": port.name,
                "protocol": port.protocol,
                "port": port.port,
                "target_port": port.target_port,
                "node_port": port.node_port,
            }
            for port in service.ports
        ],
        "endpoints": endpoints,
        "selector": dict(service.selector),
        "external_traffic_policy": service.external_traffic_policy,
        "internal_traffic_policy": service.internal_traffic_policy,
        "session_affinity_seconds": service.session_affinity_seconds,
    }


def _endpoints(
    pieces: Iterable[EndpointSlice], names: Mapping[str, str], hosts: set[str]
) -> Iterator[dict[str, Any]]:
    """Pods are found by their addresses; that of a hostNetwork pod is its node's."""
    for piece in pieces:
        for endpoint in piece.endpoints:
            pod = names.get(str(endpoint.address), "")
            for port in piece.ports:
                yield {
                    "address": str(endpoint.address),
                    "port": port.port,
                    "port_name": port.name,
                    "protocol": port.protocol,
                    "node": endpoint.node,
                    "pod": "" if pod in hosts else pod,
                    "ready": endpoint.ready,
                    "serving": endpoint.serving,
                    "terminating": endpoint.terminating,
                }
