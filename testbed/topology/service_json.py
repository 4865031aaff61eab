"""Services and EndpointSlices as JSON data and back, without loss, one by one.

A node keeps those that it holds rules for by themselves, apart from the cluster's.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from socket import inet_aton
from typing import Any

from testbed.topology.service import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Service,
    ServicePort,
)

__all__ = ["service_from_json", "service_to_json", "slice_from_json", "slice_to_json"]


def service_to_json(service: Service) -> dict[str, Any]:
    """A Service as dicts, lists, strings, numbers and booleans."""
    return {
        "namespace": service.namespace,
        "name": service.name,
        "ports": [
            {
                "port": port.port,
                "protocol": port.protocol,
                "name": port.name,
                "target_port": port.target_port,
                "node_port": port.node_port,
            }
            for port in service.ports
        ],
        "type": service.type,
        "cluster_ip": _text(service.cluster_ip),
        "selector": dict(service.selector),
        "external_ips": [str(address) for address in service.external_ips],
        "load_balancer_ip": _text(service.load_balancer_ip),
        "load_balancer_source_ranges": [str(each) for each in service.load_balancer_source_ranges],
        "session_affinity_seconds": service.session_affinity_seconds,
        "external_traffic_policy": service.external_traffic_policy,
        "internal_traffic_policy": service.internal_traffic_policy,
        "publish_not_ready_addresses": service.publish_not_ready_addresses,
        "health_check_node_port": service.health_check_node_port,
    }


def service_from_json(row: Mapping[str, Any]) -> Service:
    """The Service that :func:`service_to_json` wrote.

    Raises:
        KeyError, ValueError: it did not write this.
    """
    return Service(
        namespace=row["namespace"],
        name=row["name"],
        ports=tuple(
            ServicePort(
                port=port["port"],
                protocol=port["protocol"],
                name=port["name"],
                target_port=port["target_port"],
                node_port=port["node_port"],
            )
            for port in row["ports"]
        ),
        type=row["type"],
        cluster_ip=_address(row["cluster_ip"]),
        selector=dict(row["selector"]),
        external_ips=tuple(IPv4Address(text) for text in row["external_ips"]),
        load_balancer_ip=_address(row["load_balancer_ip"]),
        load_balancer_source_ranges=tuple(
            IPv4Network(text) for text in row["load_balancer_source_ranges"]
        ),
        session_affinity_seconds=row["session_affinity_seconds"],
        external_traffic_policy=row["external_traffic_policy"],
        internal_traffic_policy=row["internal_traffic_policy"],
        publish_not_ready_addresses=row["publish_not_ready_addresses"],
        health_check_node_port=row["health_check_node_port"],
    )


def slice_to_json(piece: EndpointSlice) -> dict[str, Any]:
    """An EndpointSlice as dicts, lists, strings, numbers and booleans.

    An endpoint is a list, because there can be ten thousand.
    """
    return {
        "namespace": piece.namespace,
        "name": piece.name,
        "service": piece.service,
        "ports": [
            {"port": port.port, "protocol": port.protocol, "name": port.name}
            for port in piece.ports
        ],
        "endpoints": [
            [str(each.address), each.node, each.ready, each.serving, each.terminating]
            for each in piece.endpoints
        ],
    }


def slice_from_json(row: Mapping[str, Any]) -> EndpointSlice:
    """The EndpointSlice that :func:`slice_to_json` wrote.

    Raises:
        KeyError, ValueError: it did not write this.
    """
    return EndpointSlice(
        namespace=row["namespace"],
        name=row["name"],
        service=row["service"],
        ports=tuple(
            EndpointPort(port["port"], port["protocol"], port["name"]) for port in row["ports"]
        ),
        endpoints=tuple(Endpoint(_parsed(each[0]), *each[1:]) for each in row["endpoints"]),
    )


def _text(address: IPv4Address | None) -> str | None:
    return None if address is None else str(address)


def _address(text: str | None) -> IPv4Address | None:
    return None if text is None else IPv4Address(text)


def _parsed(text: str) -> IPv4Address:
    """An address that we wrote: a cluster has ten thousand, and ipaddress reads one in 8 µs."""
    return IPv4Address(int.from_bytes(inet_aton(text)))
