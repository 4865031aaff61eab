"""What the API server chooses of a Service: its cluster IP and the ports of the nodes.

It chooses at random, from the upper part of the range first; here the first free one is taken, so
that a topology always gives the same. What a manifest asks for is set aside before anything is
chosen. The first address of ``service_cidr`` and the tenth, which in real clusters are those of
the API server and the cluster DNS, are given only to who asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from itertools import chain

from testbed.topology.declared import ServiceDeclaration
from testbed.topology.service import Service, ServicePort
from testbed.topology.services import NODE_PORTS
from testbed.topology.source import Place, Problems

__all__ = ["complete"]

_FIRST = 11
_WELL_KNOWN = (1, 10)


def complete(
    declared: Sequence[ServiceDeclaration],
    service_cidr: IPv4Network,
    problems: Problems,
    others: Iterable[Service] = (),
) -> tuple[Service, ...]:
    """The Services with everything chosen, in the same order; ``others`` run already."""
    others = tuple(others)
    addresses: dict[IPv4Address, str] = {}
    ports: dict[int, str] = {}
    for service in others:
        owner = f"Service {service.key}"
        if service.cluster_ip:
            addresses[service.cluster_ip] = owner
        ports |= dict.fromkeys(_node_ports(service), owner)
    for each in declared:
        _set_aside(each, service_cidr, addresses, ports, problems)
    free_addresses = _free(service_cidr, addresses)
    free_ports = (port for port in NODE_PORTS if port not in ports)
    found = []
    for each in declared:
        service = each.service
        if service.cluster_ip is None and not each.headless:
            address = next(free_addresses, None)
            if address is None:
                problems.add(
                    each.place,
                    f"Service {service.key} finds no address: service_cidr {service_cidr} is full; "
                    "use a larger one or fewer Services",
                )
            service = replace(service, cluster_ip=address)
        found.append(_with_node_ports(service, each, free_ports, problems))
    _check_claims(declared, found, others, problems)
    return tuple(found)


def _check_claims(
    declared: Sequence[ServiceDeclaration],
    found: Sequence[Service],
    others: Iterable[Service],
    problems: Problems,
) -> None:
    """An address and port lead to one Service: kube-proxy would take either, or refuse both."""
    owners = {claim: service.key for service in others for claim in _claims(service)}
    for each, service in zip(declared, found, strict=True):
        for claim in dict.fromkeys(_claims(service)):
            owner = owners.setdefault(claim, service.key)
            address, port, protocol = claim
            if owner != service.key and address != each.service.cluster_ip:  # that is told already
                problems.add(
                    each.place,
                    f"{address} at port {port}/{protocol}, for Service {service.key}, is that of "
                    f"Service {owner}; use another address or port",
                )


def _claims(service: Service) -> Iterator[tuple[IPv4Address, int, str]]:
    """What reaches a Service besides node ports."""
    given = (service.cluster_ip, service.load_balancer_ip, *service.external_ips)
    for address in given:
        for port in service.ports if address else ():
            assert address
            yield address, port.port, port.protocol


def _node_ports(service: Service) -> Iterator[int]:
    """Every port of the nodes that a Service has; one port may be of two protocols."""
    given = {port.node_port for port in service.ports} | {service.health_check_node_port}
    yield from sorted(port for port in given if port)


def _set_aside(
    declared: ServiceDeclaration,
    service_cidr: IPv4Network,
    addresses: dict[IPv4Address, str],
    ports: dict[int, str],
    problems: Problems,
) -> None:
    """Note what the manifest asks for, and report what it cannot have."""
    service = declared.service
    owner = f"Service {service.key}"
    origin = f"{owner} ({declared.place.file}:{declared.place.line})"
    if (address := service.cluster_ip) is not None:
        place = declared.ip_place or declared.place
        if error := _outside(address, service_cidr):
            problems.add(place, f"spec.clusterIP of {owner}: {error}")
        elif address in addresses:
            problems.add(
                place,
                f"spec.clusterIP of {owner}: {address} is that of {addresses[address]}; choose "
                "another, or remove it",
            )
        addresses.setdefault(address, origin)
    for port in _node_ports(service):
        if port in ports:
            problems.add(
                _port_place(declared, port),
                f"port {port} of the nodes, for {owner}, is taken by {ports[port]}; it is one "
                "Service's for all protocols: choose another, or remove it",
            )
        ports.setdefault(port, origin)
    health = service.health_check_node_port
    if health and any(port.node_port == health for port in service.ports):
        problems.add(
            declared.health_place or declared.place,
            f"healthCheckNodePort {health} of {owner} is also a nodePort; choose another",
        )


def _port_place(declared: ServiceDeclaration, wanted: int) -> Place:
    places = zip(declared.service.ports, declared.port_places, strict=False)
    found = (place for port, place in places if port.node_port == wanted)
    return next(found, declared.health_place or declared.place)


def _outside(address: IPv4Address, cidr: IPv4Network) -> str | None:
    if address not in cidr:
        return f"{address} is not in service_cidr {cidr}; choose one of it, or remove it"
    if address in (cidr.network_address, cidr.broadcast_address):
        return f"{address} is the first or last of service_cidr {cidr}, which no Service gets"
    return None


def _free(cidr: IPv4Network, taken: Iterable[IPv4Address]) -> Iterator[IPv4Address]:
    known = frozenset(taken)
    last = cidr.num_addresses - 1
    for offset in chain(range(_FIRST, last), range(1, min(_FIRST, last))):
        address = cidr.network_address + offset
        if address not in known and offset not in _WELL_KNOWN:
            yield address


def _with_node_ports(
    service: Service, declared: ServiceDeclaration, free: Iterator[int], problems: Problems
) -> Service:
    """TCP and UDP at the same port of a Service share the port of the nodes, as with DNS."""
    ports: list[ServicePort] = []
    chosen: dict[int, int | None] = {
        port.port: port.node_port for port in service.ports if port.node_port
    }
    for port in service.ports:
        if port.node_port is None and declared.allocates_node_ports:
            if port.port not in chosen:
                chosen[port.port] = _next(free, declared, problems)
            port = replace(port, node_port=chosen[port.port])
        ports.append(port)
    health = service.health_check_node_port
    local = service.external_traffic_policy == "Local"
    if health is None and service.type == "LoadBalancer" and local:
        health = _next(free, declared, problems)
    return replace(service, ports=tuple(ports), health_check_node_port=health)


def _next(free: Iterator[int], declared: ServiceDeclaration, problems: Problems) -> int | None:
    port = next(free, None)
    if port is None:
        problems.add(
            declared.place,
            f"Service {declared.service.key} finds no port of the nodes: {NODE_PORTS[0]} to "
            f"{NODE_PORTS[-1]} are taken; use fewer Services of type NodePort and LoadBalancer",
        )
    return port
