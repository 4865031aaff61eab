"""A ``kind: EndpointSlice`` manifest: the endpoints of a Service without selector.

Honoured: addressType IPv4, the label ``kubernetes.io/service-name``, ports, and of an endpoint its
first address (kube-proxy too takes the first only), nodeName and conditions. Ignored: what only a
cluster DNS or people read (hostname, targetRef, zone, deprecatedTopology, appProtocol).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address

from testbed.topology import names
from testbed.topology.addresses import read_addresses
from testbed.topology.declared import SliceDeclaration
from testbed.topology.metadata import read_annotations, read_identity
from testbed.topology.scheduling import listed
from testbed.topology.section import Section
from testbed.topology.service import Endpoint, EndpointPort, EndpointSlice
from testbed.topology.services import read_protocol
from testbed.topology.source import Problems, quote

__all__ = ["SERVICE_NAME", "check_nodes", "read_slice"]

SERVICE_NAME = "kubernetes.io/service-name"
"""The label that says whose endpoints a slice has."""

_UNKNOWN = IPv4Address("0.0.0.0")  # noqa: S104 - stands for an address whose problem is reported
_MOST_ADDRESSES = 100
_MOST_ENDPOINTS = 1000


def read_slice(document: Section) -> SliceDeclaration | None:
    """Read an EndpointSlice; None when it has no usable name or Service to go on with."""
    document.only(("apiVersion", "kind", "metadata", "addressType", "endpoints", "ports"))
    metadata = document.section("metadata")
    if document.get("metadata") is None:
        document.problem("metadata", f"missing; an EndpointSlice has a name and {SERVICE_NAME}")
    _check_type(document)
    endpoints = document.sections("endpoints")
    if len(endpoints) > _MOST_ENDPOINTS:
        document.problem(
            "endpoints", f"{len(endpoints)} are too many; a slice has at most {_MOST_ENDPOINTS}"
        )
    found = tuple(_endpoint(section) for section in endpoints)
    ports = _ports(document)
    if metadata is None:
        return None
    name, namespace = read_identity(metadata, "EndpointSlice", names.dns_subdomain, "web-1")
    read_annotations(metadata)
    service = names.labels(metadata, "labels").get(SERVICE_NAME)
    if not service:
        metadata.problem("labels", f"{SERVICE_NAME} is missing; it names the slice's Service")
    if not (name and service):
        return None
    return SliceDeclaration(
        place=metadata.place_of("name"),
        slice=EndpointSlice(namespace, name, service, ports, found),
        endpoint_places=tuple(section.place_of("nodeName") for section in endpoints),
    )


def check_nodes(
    declared: Iterable[SliceDeclaration], nodes: Sequence[str], problems: Problems
) -> None:
    """Report endpoints on nodes that do not exist: they would be local nowhere, unnoticed."""
    for each in declared:
        for endpoint, place in zip(each.slice.endpoints, each.endpoint_places, strict=True):
            if endpoint.node and nodes and endpoint.node not in nodes:
                problems.add(
                    place,
                    f"nodeName: EndpointSlice {each.slice.key} has an endpoint on node "
                    f"{quote(endpoint.node)}, but there is no such node; the nodes are "
                    f"{listed(nodes)}",
                )


def _check_type(document: Section) -> None:
    kind = document.text("addressType")
    if document.get("addressType") is None:
        document.problem("addressType", "missing; write IPv4")
    elif kind == "FQDN":
        document.problem("addressType", "FQDN needs a cluster DNS, and kube-proxy ignores it")
    elif kind is not None and kind != "IPv4":
        document.problem(
            "addressType", f"{quote(kind)} is not supported: this release is IPv4 only; write IPv4"
        )


def _ports(document: Section) -> tuple[EndpointPort, ...]:
    found: list[EndpointPort] = []
    for section in document.sections("ports"):
        section.only(("name", "port", "protocol"), ignored={"appProtocol"})
        if section.get("port") is None:
            section.problem("port", "missing; write the endpoints' port")
        name = section.valid("name", _port_name) or ""
        if any(port.name == name for port in found):
            section.problem("name", f"port name {quote(name)} exists twice; change one")
        port = section.integer("port", 1, 65535) or 0
        found.append(EndpointPort(port, read_protocol(section), name))
    return tuple(found)


def _port_name(text: str) -> str | None:
    """The usual name is the empty one."""
    return names.dns_label(text) if text else None


def _endpoint(section: Section) -> Endpoint:
    section.only(
        ("addresses", "nodeName", "conditions"),
        {"hints": "nodes have no zones, so no routing by topology"},
        ignored={"deprecatedTopology", "hostname", "targetRef", "zone"},
    )
    value = section.get("addresses")
    if value is None or value.data == ():
        section.problem("addresses", "missing; an endpoint has at least one address")
    addresses = read_addresses(section, "addresses")
    if len(addresses) > _MOST_ADDRESSES:
        section.problem("addresses", f"more than {_MOST_ADDRESSES}; write one endpoint for each")
    ready, serving, terminating = _conditions(section.section("conditions"))
    return Endpoint(
        address=addresses[0] if addresses else _UNKNOWN,
        node=section.text("nodeName") or "",
        ready=ready,
        serving=serving,
        terminating=terminating,
    )


def _conditions(section: Section | None) -> tuple[bool, bool, bool]:
    """What the API says of conditions that are not given: ready, serving like ready, not ending."""
    if section is None:
        return True, True, False
    section.only(("ready", "serving", "terminating"))
    ready, serving = section.flag("ready"), section.flag("serving")
    ready = True if ready is None else ready
    return ready, ready if serving is None else serving, section.flag("terminating") or False
