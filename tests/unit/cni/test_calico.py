"""Calico's planner: devices and routes by mode."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings

from testbed.cni import calico
from testbed.dataplane.spec import NodeSpec, Tunnel
from testbed.errors import PlanError
from testbed.topology.model import Cluster, Router
from tests.unit.cni.calico_clusters import (
    BIRD,
    UNDERLAY,
    cluster,
    clusters,
    file,
    lines,
    on,
)


def routes(value: NodeSpec) -> list[str]:
    """Those that make routes."""
    return [line.removeprefix("route replace ") for line in lines(value) if "route" in line]


def test_ipip_leaves_routes_to_bird() -> None:
    """The device and its address, and a daemon that does the rest."""
    value = on(cluster())
    assert lines(value) == [
        "link set tunl0 mtu 1480 multicast off up",
        "address replace 10.244.0.0/32 dev tunl0",
    ]
    assert [process.name for process in value.processes] == ["bird"]
    assert "route 10.244.0.0/26 blackhole;" in file(value, f"{BIRD}/bird_aggr.cfg")
    assert 'ifname = "tunl0"' in file(value, f"{BIRD}/bird_ipam.cfg")


def test_ipip_by_the_ebpf_driver_differs_in_the_tunnel_only() -> None:
    """The agent makes it before the plan's objects, which then find it by its name."""
    kernel, ebpf = on(cluster()), on(cluster(ipip="ebpf"))
    assert (kernel.tunnels, ebpf.tunnels) == ((), (Tunnel("tunl0", "eth0"),))
    assert replace(ebpf, tunnels=()) == kernel
    assert on(cluster("vxlan", ipip="ebpf")).tunnels == ()


def test_ipip_routes_by_felix() -> None:
    """calico.md section 4, from 3.33 on; BIRD runs and leaves the pool alone."""
    value = on(cluster(options={"route_owner": "felix"}))
    assert routes(value) == [
        "blackhole 10.244.0.0/26 proto 80",
        "10.244.1.0/26 via 172.18.0.3 dev tunl0 proto 80 onlink",
        "10.244.2.0/26 via 172.19.0.4 dev tunl0 proto 80 onlink",
    ]
    assert "Cluster routes are handled by Felix" in file(value, f"{BIRD}/bird_ipam.cfg")
    assert value.processes


def test_cross_subnet_is_plain_within_a_network() -> None:
    """Felix keeps onlink; the node behind the router is tunnelled to."""
    value = on(cluster(options={"route_owner": "felix", "mode": "CrossSubnet"}))
    assert routes(value)[1:] == [
        "10.244.1.0/26 via 172.18.0.3 dev eth0 proto 80 onlink",
        "10.244.2.0/26 via 172.19.0.4 dev tunl0 proto 80 onlink",
    ]
    text = file(on(cluster(options={"mode": "CrossSubnet"}), 2), f"{BIRD}/bird_ipam.cfg")
    assert "! ( bgp_next_hop ~ 172.19.0.0/16 )" in text


def test_vxlan_by_felix_without_bgp() -> None:
    """Section 5: the device by its tunnel address and MAC, peers, then routes by their VTEP."""
    value = on(cluster("vxlan"))
    two, three = (calico.vtep_mac(name) for name in ("node2", "node3"))
    assert lines(value) == [
        f"link add vxlan.calico address {calico.vtep_mac('node1')} mtu 1450 type vxlan id 4096 "
        "local 172.18.0.2 dev eth0 dstport 4789 nolearning",
        "link set vxlan.calico up",
        "address replace 10.244.0.0/32 dev vxlan.calico",
        f"neighbour replace 10.244.1.0 lladdr {two} dev vxlan.calico nud permanent",
        f"neighbour replace 10.244.2.0 lladdr {three} dev vxlan.calico nud permanent",
        f"fdb replace {two} dev vxlan.calico dst 172.18.0.3 self permanent",
        f"fdb replace {three} dev vxlan.calico dst 172.19.0.4 self permanent",
        "route replace blackhole 10.244.0.0/26 proto 80",
        "route replace 10.244.1.0/26 via 10.244.1.0 dev vxlan.calico onlink",
        "route replace 10.244.2.0/26 via 10.244.2.0 dev vxlan.calico onlink",
    ]
    assert value.processes == ()
    assert not [each.path for each in value.files if "bird" in each.path]


def test_vxlan_cross_subnet_keeps_every_vtep() -> None:
    """Neighbours and FDB entries are there for all nodes, routes by the device only for some."""
    value = on(cluster("vxlan", {"mode": "CrossSubnet"}))
    assert len([line for line in lines(value) if line.startswith(("neighbour", "fdb"))]) == 4
    assert routes(value)[1:] == [
        "10.244.1.0/26 via 172.18.0.3 dev eth0 proto 80 onlink",
        "10.244.2.0/26 via 10.244.2.0 dev vxlan.calico onlink",
    ]


def test_vxlan_route_to_a_vtep_s_own_address_is_direct() -> None:
    """Nothing can be its own gateway; and blocks of one address have no blackhole."""
    base = cluster("vxlan", {"block_size": 32}, racks=("rack1", "rack1"))
    first, second = (
        (IPv4Network(f"10.244.{index}.0/32"), IPv4Network(f"10.244.{index}.1/32"))
        for index in range(2)
    )
    nodes = tuple(
        replace(node, pod_cidrs=blocks)
        for node, blocks in zip(base.nodes, (first, second), strict=True)
    )
    assert routes(on(replace(base, nodes=nodes))) == [
        "10.244.1.0/32 dev vxlan.calico scope link",
        "10.244.1.1/32 via 10.244.1.0 dev vxlan.calico onlink",
    ]


def test_mac_follows_from_the_node_s_name() -> None:
    """``66:`` and five bytes of SHA-1, so that all nodes know it without asking."""
    digest = hashlib.sha1(b"node1", usedforsecurity=False).hexdigest()
    assert calico.vtep_mac("node1").replace(":", "") == f"66{digest[:10]}"


def test_without_encapsulation_there_is_no_device() -> None:
    """BIRD writes plain routes; the tunnel address is a pod's like any other."""
    value = on(cluster("none"))
    assert lines(value) == []
    assert "tunl0" not in file(value, f"{BIRD}/bird_ipam.cfg")
    assert "Global_172_18_255_254" in file(value, f"{BIRD}/bird.cfg")
    assert json.loads(file(value, "/etc/calico/ipam.json"))["reserved"] == {}


def test_a_router_that_does_not_know_pods_is_refused_without_encapsulation() -> None:
    """Packets would reach it and be lost; what to do is said. One network needs no router."""
    silent = (Router("tor", 0, ("rack1", "rack2")),)
    with pytest.raises(PlanError) as caught:
        on(cluster("none", routers=silent))
    assert str(caught.value) == (
        "router tor has no as_number, so it would not learn the pods' blocks, and without "
        "encapsulation their packets cross it as they are. Write `as_number: 64513` under its "
        "x-testbed, or use backend ipip or vxlan."
    )
    assert on(cluster("ipip", routers=silent))
    assert on(cluster("none", racks=("rack1", "rack1"), routers=silent))


def test_borrowed_addresses_are_routed_one_by_one() -> None:
    """On every other node, the lender's among them."""
    base = cluster(options={"route_owner": "felix"})
    borrower = replace(base.nodes[0], borrowed=(IPv4Address("10.244.1.63"),))
    changed = replace(base, nodes=(borrower, *base.nodes[1:]))
    route = "10.244.1.63/32 via 172.18.0.2 dev tunl0 proto 80 onlink"
    assert [route in routes(on(changed, node)) for node in range(3)] == [False, True, True]


@pytest.mark.parametrize(
    ("type_", "driver", "needs"),
    [
        ("ipip", "kernel", {"ipip"}),
        ("ipip", "ebpf", {"ipip_ebpf"}),
        ("vxlan", "kernel", {"vxlan"}),
        ("none", "kernel", set()),
    ],
)
def test_requirements_follow_the_backend(type_: str, driver: str, needs: set[str]) -> None:
    """No bridge: pods are routed to, so br_netfilter is not needed."""
    assert calico.requires(cluster(type_, ipip=driver)) == {"ipset", "iptables_nft", *needs}


def destinations(value: NodeSpec) -> Counter[IPv4Network]:
    """How many routes the plan has to each destination; blackholes are left out."""
    return Counter(
        IPv4Network(item.key["dst"])
        for item in value.objects
        if item.kind == "route" and "type" not in item.key
    )


def blackholes(value: NodeSpec) -> list[IPv4Network]:
    """What the plan routes to nowhere."""
    return [
        IPv4Network(item.key["dst"])
        for item in value.objects
        if item.kind == "route" and item.key.get("type") == "blackhole"
    ]


@settings(max_examples=60, deadline=None)
@given(clusters())
def test_every_remote_block_has_one_route_and_own_ones_a_blackhole(of: Cluster) -> None:
    """Felix's by objects; where BIRD routes, the plan has none, and BIRD the blackholes."""
    by_felix = of.backend.type == "vxlan" or of.backend.options.get("route_owner") == "felix"
    for node in of.nodes:
        value = on(of, node.index)
        remote = Counter(
            block
            for other in of.nodes
            if other is not node
            for block in (*other.pod_cidrs, *map(IPv4Network, other.borrowed))
        )
        assert destinations(value) == (remote if by_felix else Counter())
        assert blackholes(value) == (list(node.pod_cidrs) if by_felix else [])
        if not by_felix:
            static = re.findall(r"route (\S+) blackhole;", file(value, f"{BIRD}/bird_aggr.cfg"))
            assert static == [str(block) for block in node.pod_cidrs]


@settings(max_examples=60, deadline=None)
@given(clusters())
def test_every_pair_of_nodes_has_one_session(of: Cluster) -> None:
    """Each names the other, and exactly one of the two waits."""
    if of.backend.type == "vxlan":
        return
    waits: dict[tuple[str, str], bool] = {}
    for node in of.nodes:
        text = file(on(of, node.index), f"{BIRD}/bird.cfg")
        own = str(UNDERLAY.address_of(node.network, node.index))
        for peer, body in re.findall(
            r"protocol bgp Mesh_(\S+) from bgp_template {\n(.*?)^}", text, re.DOTALL | re.MULTILINE
        ):
            waits[own, peer.replace("_", ".")] = "passive on;" in body
    assert len(waits) == len(of.nodes) * (len(of.nodes) - 1)
    for (one, other), passive in waits.items():
        assert waits[other, one] != passive


@settings(max_examples=60, deadline=None)
@given(clusters())
def test_tunnels_agree_at_both_ends(of: Cluster) -> None:
    """A neighbour entry is the other node's own address and MAC; FDB entries lead to it."""
    if of.backend.type != "vxlan":
        return
    specs = [on(of, node.index) for node in of.nodes]
    ends = {
        (item.key["local"], spec.objects[0].fixed["address"])
        for spec in specs
        for item in spec.objects
        if item.kind == "address"
    }
    for spec in specs:
        known = {
            (item.key["dst"], item.want["lladdr"])
            for item in spec.objects
            if item.kind == "neighbour"
        }
        own = (spec.objects[1].key["local"], spec.objects[0].fixed["address"])
        assert known == ends - {own}
