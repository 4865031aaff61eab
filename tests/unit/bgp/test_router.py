"""What clients on the underlay hold, with and without BGP."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from testbed.bgp import mesh, router
from testbed.dataplane.underlay import Underlay
from testbed.topology.model import Backend, Client, Cluster, LoadBalancer, Node, Router

UNDERLAY = Underlay.single(IPv4Network("172.18.0.0/16"))
NODES = tuple(Node(f"node{n}", n, (IPv4Network(f"10.244.{n}.0/26"),)) for n in range(2))
CLUSTER = Cluster(
    name="outside",
    cni="calico",
    backend=Backend("ipip"),
    cluster_cidr=IPv4Network("10.244.0.0/16"),
    node_cidr_mask=26,
    service_cidr=IPv4Network("10.96.0.0/16"),
    nodes=NODES,
    pods=(),
    routers=(Router("tor", 0, ("default",)),),
    clients=(Client("silent", 0), Client("speaking", 1, as_number=64513)),
    load_balancer=LoadBalancer(announce="bgp"),
)


def test_addresses_follow_the_routers() -> None:
    """Counted down from the subnet's end: the router, then the clients."""
    found = [UNDERLAY.client_address(CLUSTER, client) for client in CLUSTER.clients]
    assert found == [IPv4Address("172.18.255.253"), IPv4Address("172.18.255.252")]


def test_a_client_sends_only_for_itself() -> None:
    """It is no router, and runs nothing."""
    spec = router.plan_client(CLUSTER, CLUSTER.clients[0], UNDERLAY)
    assert spec.sysctls == {"net.ipv4.ip_forward": "0"}
    assert (spec.files, spec.processes) == ((), ())


def test_a_client_learns_routes_to_pods_and_services() -> None:
    """It waits for the nodes to connect, and does not wait long for one that is silent."""
    spec = router.plan_client(CLUSTER, CLUSTER.clients[1], UNDERLAY)
    (file,) = spec.files
    assert "( net ~ 10.244.0.0/16 || net ~ 203.0.113.0/24 )" in file.content
    assert (
        "hold time 3;\n  error wait time 1,5;\n  graceful restart off;\n  passive on;"
        in file.content
    )
    assert "merge paths on;" in file.content
    assert [line for line in file.content.splitlines() if "neighbor" in line] == [
        "  neighbor 172.18.0.2 as 64512;",
        "  neighbor 172.18.0.3 as 64512;",
    ]
    assert spec.sysctls["net.ipv4.fib_multipath_hash_policy"] == "1"


def test_nodes_know_the_clients_that_speak() -> None:
    """As peers of eBGP, and what they are told: addresses of Services."""
    speaker = mesh.speaker(CLUSTER, NODES[0], UNDERLAY, tunnel="", programs_routes=True)
    assert [(str(each.address), each.as_number) for each in speaker.peers] == [
        ("172.18.0.3", 64512),
        ("172.18.255.252", 64513),
    ]
    assert speaker.service_pools == (IPv4Network("203.0.113.0/24"),)
