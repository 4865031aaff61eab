"""Addresses of Services of type LoadBalancer, as MetalLB gives them out. Pure.

MetalLB leaves a Service without an address pending; here that is an error, since nothing would ever
become of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, summarize_address_range
from typing import TypeAlias

from testbed.errors import PlanError
from testbed.topology.model import Cluster, LoadBalancer
from testbed.topology.section import Section
from testbed.topology.service import Service
from testbed.topology.source import BROKEN, Problems, Value, describe, quote

__all__ = ["ANNOUNCE", "addressed", "networks", "pool", "position", "read_load_balancer"]

ANNOUNCE = ("layer2", "bgp")
_EVERYWHERE = IPv4Network("203.0.113.0/24")
"""The default pool of routed addresses: reserved for documentation, so that nobody has them."""
_TOP = 5
"""How far below the subnet's end the default pool ends: at .250, as in MetalLB's examples."""
_SIZE = 51

_Range: TypeAlias = tuple[IPv4Address, IPv4Address]


def read_load_balancer(section: Section) -> LoadBalancer:
    """Read ``load_balancer`` of ``x-testbed``; what is wrong with it is reported."""
    nested = section.section("load_balancer")
    if nested is None:
        return LoadBalancer()
    nested.only(("pool", "announce"))
    announce = nested.choice("announce", ANNOUNCE, ANNOUNCE[0])
    given = nested.get("pool")
    if given is None:
        return LoadBalancer(announce=announce)
    entries = [(nested.path("pool"), given)]
    if isinstance(given.data, tuple):
        entries = nested.items("pool")
        if not entries:
            nested.problem("pool", "it is empty; remove it, or write a range of addresses")
    found = (_range(value, where, nested.problems) for where, value in entries)
    ranges = tuple(each for each in found if each is not None)
    for number, one in enumerate(ranges):
        if any(_meet(one, other) for other in ranges[:number]):
            nested.problem("pool", f"{_text(one)} is in it twice; keep it once")
    return LoadBalancer(ranges, announce)


def _range(value: Value, where: str, problems: Problems) -> _Range | None:
    if value.data is BROKEN:
        return None
    wanted = "a range such as 172.18.255.200-172.18.255.250, or a network such as 203.0.113.0/24"
    if not isinstance(value.data, str):
        problems.add(value.place, f"{where}: must be {wanted}, not {describe(value.data)}")
        return None
    try:
        if "/" in value.data:
            network = IPv4Network(value.data)
            return network.network_address, network.broadcast_address
        first, _, last = value.data.partition("-")
        found = IPv4Address(first.strip()), IPv4Address((last or first).strip())
    except ValueError:
        problems.add(value.place, f"{where}: {quote(value.data)} is not {wanted}")
        return None
    if found[0] > found[1]:
        problems.add(value.place, f"{where}: {quote(value.data)} ends before it begins; swap them")
        return None
    return found


def pool(cluster: Cluster, subnets: Mapping[str, IPv4Network]) -> tuple[_Range, ...]:
    """First and last address of each range; ``subnets`` are those of the node networks.

    By default it is what is free near the end of the first network's subnet, or with ``bgp`` a
    network that nobody has.
    """
    wanted = cluster.load_balancer
    if wanted.pool:
        return wanted.pool
    if wanted.announce == "bgp":
        return ((_EVERYWHERE.network_address, _EVERYWHERE.broadcast_address),)
    subnet = subnets[cluster.networks[0].name]
    lowest = subnet.network_address + 2 + len(cluster.nodes)
    end = subnet.broadcast_address - 1 - len(cluster.routers) - len(cluster.clients)
    last = min(subnet.broadcast_address - _TOP, end)
    first = max(last - (_SIZE - 1), lowest)
    return ((first, last),) if first <= last else ()


def networks(cluster: Cluster) -> tuple[IPv4Network, ...]:
    """The pool of routed addresses as networks; none where they are not announced by BGP."""
    if cluster.load_balancer.announce != "bgp":
        return ()
    ranges = pool(cluster, {})
    return tuple(each for first, last in ranges for each in summarize_address_range(first, last))


def position(ranges: tuple[_Range, ...], address: IPv4Address) -> int:
    """Which address of the pool it is, from 0.

    Raises:
        ValueError: none.
    """
    before = 0
    for first, last in ranges:
        if first <= address <= last:
            return before + int(address) - int(first)
        before += int(last) - int(first) + 1
    raise ValueError(f"{address} is not in the pool")


def addressed(cluster: Cluster, subnets: Mapping[str, IPv4Network]) -> Cluster:
    """Give every Service of type LoadBalancer without an address the first that is free.

    Services keep what they have, so an address changes only when its Service asks for another.

    Raises:
        PlanError: an address asked for is not in the pool or taken, the pool has no more of them,
            or it lies where its addresses cannot be announced.
    """
    waiting = [each for each in cluster.services if each.type == "LoadBalancer"]
    if not waiting:
        return cluster
    ranges = pool(cluster, subnets)
    _check_pool(cluster, subnets, ranges)
    taken: dict[IPv4Address, str] = {}
    for service in waiting:
        if service.load_balancer_ip is not None:
            _check_asked(service, service.load_balancer_ip, ranges, taken)
            taken[service.load_balancer_ip] = service.key
    machines = _machines(cluster, subnets)
    free = (each for each in _every(ranges) if each not in taken and each not in machines)
    services = tuple(
        replace(each, load_balancer_ip=_next(each, free, ranges))
        if each.type == "LoadBalancer" and each.load_balancer_ip is None
        else each
        for each in cluster.services
    )
    return replace(cluster, services=services)


def _next(service: Service, free: Iterator[IPv4Address], ranges: tuple[_Range, ...]) -> IPv4Address:
    found = next(free, None)
    if found is None:
        raise PlanError(
            f"no address is left for Service {service.key}: the pool of load balancers "
            f"({_texts(ranges)}) has no more. Enlarge x-testbed.load_balancer.pool."
        )
    return found


def _every(ranges: tuple[_Range, ...]) -> Iterator[IPv4Address]:
    for first, last in ranges:
        for number in range(int(first), int(last) + 1):
            yield IPv4Address(number)


def _check_asked(
    service: Service,
    address: IPv4Address,
    ranges: tuple[_Range, ...],
    taken: Mapping[IPv4Address, str],
) -> None:
    if not any(first <= address <= last for first, last in ranges):
        raise PlanError(
            f"Service {service.key} asks for load balancer address {address}, which is not in the "
            f"pool ({_texts(ranges)}). Change loadBalancerIP, or x-testbed.load_balancer.pool."
        )
    if address in taken:
        raise PlanError(
            f"Services {taken[address]} and {service.key} ask for the same load balancer address "
            f"{address}. Change one loadBalancerIP, or remove it: the next free one is taken."
        )


def _machines(cluster: Cluster, subnets: Mapping[str, IPv4Network]) -> frozenset[IPv4Address]:
    """Addresses of the pool's networks that are somebody's, or nobody's to have."""
    found: set[IPv4Address] = set()
    ends = len(cluster.routers) + len(cluster.clients)
    for subnet in subnets.values():
        found |= {subnet.network_address + number for number in range(2 + len(cluster.nodes))}
        found |= {subnet.broadcast_address - number for number in range(1 + ends)}
    return frozenset(found)


def _check_pool(
    cluster: Cluster, subnets: Mapping[str, IPv4Network], ranges: tuple[_Range, ...]
) -> None:
    for one in ranges:
        for name, network in (
            ("cluster_cidr", cluster.cluster_cidr),
            ("service_cidr", cluster.service_cidr),
        ):
            if _meet(one, (network.network_address, network.broadcast_address)):
                raise PlanError(
                    f"the pool of load balancers {_text(one)} overlaps {name} {network}. Change "
                    "x-testbed.load_balancer.pool."
                )
        within = [name for name, net in subnets.items() if one[0] in net and one[1] in net]
        outside = not any(_meet(one, (net[0], net[-1])) for net in subnets.values())
        known = ", ".join(map(str, subnets.values()))
        if cluster.load_balancer.announce == "layer2" and not within:
            raise PlanError(
                f"the pool of load balancers {_text(one)} is not within a node network ({known}), "
                "where alone ARP announces addresses. Change x-testbed.load_balancer.pool, or "
                "write `announce: bgp`."
            )
        if cluster.load_balancer.announce == "bgp" and not outside:
            raise PlanError(
                f"the pool of load balancers {_text(one)} overlaps a node network ({known}): who "
                "is on it would ask by ARP and not take the route that BGP announces. Change "
                "x-testbed.load_balancer.pool."
            )


def _meet(one: _Range, other: _Range) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _text(one: _Range) -> str:
    return f"{one[0]}-{one[1]}"


def _texts(ranges: tuple[_Range, ...]) -> str:
    return ", ".join(map(_text, ranges)) or "no range"
