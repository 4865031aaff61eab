"""Addresses of load balancers: which pool, who gets which, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.errors import PlanError
from testbed.topology import load_balancer
from testbed.topology.load_balancer import addressed
from testbed.topology.model import Backend, Client, Cluster, LoadBalancer, Node, Router
from testbed.topology.service import Service, ServicePort

SUBNETS = {"default": IPv4Network("172.18.0.0/16")}
CLUSTER = Cluster(
    name="pool",
    cni="flannel",
    backend=Backend("vxlan"),
    cluster_cidr=IPv4Network("10.244.0.0/16"),
    node_cidr_mask=24,
    service_cidr=IPv4Network("10.96.0.0/16"),
    nodes=tuple(Node(f"node{n}", n, (IPv4Network(f"10.244.{n}.0/24"),)) for n in range(3)),
    pods=(),
)


def service(name: str, ip: str = "", kind: str = "LoadBalancer") -> Service:
    """One that asks for ``ip``, or for any."""
    address = IPv4Address(ip) if ip else None
    return Service("default", name, (ServicePort(80),), kind, load_balancer_ip=address)


def pooled(first: str, last: str, announce: str = "layer2") -> LoadBalancer:
    """One range."""
    return LoadBalancer(((IPv4Address(first), IPv4Address(last)),), announce)


def given(cluster: Cluster, *services: Service) -> list[str]:
    """The addresses that Services get."""
    found = addressed(replace(cluster, services=services), SUBNETS)
    return [str(each.load_balancer_ip or "") for each in found.services]


def test_the_first_free_address() -> None:
    """Services keep what they have; others fill the gaps in order; other types get none."""
    services = (
        service("a"),
        service("b", "172.18.255.200"),
        service("c"),
        service("d", kind="NodePort"),
    )
    assert given(CLUSTER, *services) == ["172.18.255.201", "172.18.255.200", "172.18.255.202", ""]


@pytest.mark.parametrize(
    ("subnet", "others", "first", "last"),
    [
        ("172.18.0.0/16", 0, "172.18.255.200", "172.18.255.250"),
        ("172.18.0.0/16", 10, "172.18.255.194", "172.18.255.244"),
        ("192.168.0.0/24", 2, "192.168.0.200", "192.168.0.250"),
        ("192.168.0.0/27", 2, "192.168.0.5", "192.168.0.26"),
    ],
)
def test_the_default_pool_meets_nobody(subnet: str, others: int, first: str, last: str) -> None:
    """It ends below routers and clients and begins above the nodes."""
    networks = {"default": IPv4Network(subnet)}
    cluster = replace(
        CLUSTER,
        routers=(Router("tor", 0, ("default",)),) if others else (),
        clients=tuple(Client(f"client{n}", n) for n in range(max(others - 1, 0))),
    )
    assert load_balancer.pool(cluster, networks) == ((IPv4Address(first), IPv4Address(last)),)


def test_routed_addresses_are_nobodys() -> None:
    """With BGP the pool is elsewhere, and known without a network: BIRD's filters need it."""
    cluster = replace(CLUSTER, load_balancer=LoadBalancer(announce="bgp"))
    assert load_balancer.networks(cluster) == (IPv4Network("203.0.113.0/24"),)
    assert load_balancer.networks(CLUSTER) == ()
    assert given(cluster, service("a")) == ["203.0.113.0"]


def test_machines_addresses_are_skipped() -> None:
    """A pool may be the whole subnet; nodes and the gateway keep their addresses."""
    cluster = replace(CLUSTER, load_balancer=pooled("172.18.0.0", "172.18.255.255"))
    assert given(cluster, service("a"), service("b")) == ["172.18.0.5", "172.18.0.6"]


def test_positions_go_on_from_range_to_range() -> None:
    """Every address of the pool has a number of its own."""
    ranges = (
        (IPv4Address("172.18.1.0"), IPv4Address("172.18.1.9")),
        (IPv4Address("172.18.0.0"), IPv4Address("172.18.0.9")),
    )
    assert load_balancer.position(ranges, IPv4Address("172.18.1.3")) == 3
    assert load_balancer.position(ranges, IPv4Address("172.18.0.3")) == 13
    with pytest.raises(ValueError, match="not in the pool"):
        load_balancer.position(ranges, IPv4Address("172.18.2.0"))


@pytest.mark.parametrize(
    ("wanted", "services", "message"),
    [
        (LoadBalancer(), [service("a", "172.18.9.9")], "172.18.9.9, which is not in the pool"),
        (
            LoadBalancer(),
            [service("a", "172.18.255.201"), service("b", "172.18.255.201")],
            "default/a and default/b ask for the same",
        ),
        (
            pooled("172.18.9.9", "172.18.9.9"),
            [service("a"), service("b")],
            "no address is left for Service default/b",
        ),
        (pooled("10.244.9.0", "10.244.9.9"), [service("a")], "overlaps cluster_cidr"),
        (pooled("10.95.0.0", "10.97.0.0"), [service("a")], "overlaps service_cidr"),
        (pooled("172.19.0.0", "172.19.0.9"), [service("a")], "not within a node network"),
        (pooled("172.18.9.0", "172.18.9.9", "bgp"), [service("a")], "overlaps a node network"),
    ],
)
def test_refused(wanted: LoadBalancer, services: list[Service], message: str) -> None:
    """What could never get an address, or never be reached at it."""
    with pytest.raises(PlanError, match=message):
        given(replace(CLUSTER, load_balancer=wanted), *services)


def test_a_pool_is_looked_at_when_it_is_used() -> None:
    """Clusters without load balancers do not care about their addresses."""
    cluster = replace(CLUSTER, load_balancer=pooled("10.244.9.0", "10.244.9.9"))
    assert given(cluster, service("a", kind="ClusterIP")) == [""]
