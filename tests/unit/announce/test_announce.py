"""What nodes announce of load balancers, and what they answer: golden files and elections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from testbed.announce import layer2, plan
from testbed.dataplane.underlay import Segment, Underlay
from testbed.errors import PlanError
from testbed.topology.model import Backend, Cluster, LoadBalancer, Network, Node
from testbed.topology.portals import Portal, Target

GOLDEN = Path(__file__).parents[2] / "golden" / "announce"
UNDERLAY = Underlay.single(IPv4Network("172.18.0.0/16"))
NODES = tuple(
    Node(f"node{number}", number - 1, (IPv4Network(f"10.244.{number}.0/24"),))
    for number in (1, 2, 3)
)
CLUSTER = Cluster(
    name="announced",
    cni="flannel",
    backend=Backend("vxlan"),
    cluster_cidr=IPv4Network("10.244.0.0/16"),
    node_cidr_mask=24,
    service_cidr=IPv4Network("10.96.0.0/16"),
    nodes=NODES,
    pods=(),
    proxy="iptables",
)
BGP = replace(CLUSTER, cni="calico", load_balancer=LoadBalancer(announce="bgp"))


def portal(name: str, address: str | None, *nodes: str, ready: bool = True) -> Portal:
    """A Service with an endpoint on each of ``nodes``."""
    targets = tuple(
        Target(IPv4Address(f"10.244.{node[-1]}.2"), 8080, node, ready, ready) for node in nodes
    )
    ip = IPv4Address(address) if address else None
    return Portal(
        f"default/{name}", "", "tcp", IPv4Address("10.96.0.10"), 80, targets, 30000, (), ip
    )


def local(found: Portal) -> Portal:
    """The same with policy Local."""
    return replace(found, external_local=True, health_check_node_port=30080)


def mapped(*portals: Portal) -> dict[str, tuple[Portal, ...]]:
    """By Service."""
    return {each.service: (each,) for each in portals}


WEB = portal("web", "172.18.255.200", "node1", "node2")
LOCAL = local(portal("local", "172.18.255.201", "node1", "node2"))
NOBODY = portal("nobody", "172.18.255.202", "node1", ready=False)
LAYER2 = mapped(WEB, LOCAL, NOBODY, portal("inside", None, "node1"))
ROUTED = mapped(
    replace(WEB, load_balancer_ip=IPv4Address("203.0.113.0")),
    replace(LOCAL, load_balancer_ip=IPv4Address("203.0.113.1")),
    replace(NOBODY, load_balancer_ip=IPv4Address("203.0.113.2")),
)


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
@pytest.mark.parametrize("how", ["layer2", "bgp"])
def test_files_and_processes_are_golden(
    how: str, node: Node, golden: Callable[[Path, str], None]
) -> None:
    """Every file and daemon of a node, for both kinds of announcement."""
    cluster, portals = (BGP, ROUTED) if how == "bgp" else (CLUSTER, LAYER2)
    files, processes = plan(cluster, node, UNDERLAY, portals)
    parts = [f"### {file.path} {file.mode:o}\n{file.content}" for file in files]
    parts += [
        f"### process {each.name}\n{' '.join(each.argv)}\n{' '.join(each.reload)}\n"
        for each in processes
    ]
    golden(GOLDEN / how / f"{node.name}.txt", "\n".join(parts))


def test_without_load_balancers_nothing_runs() -> None:
    """A cluster that does not need daemons has none."""
    portals = mapped(portal("inside", None, "node1"))
    assert plan(CLUSTER, NODES[0], UNDERLAY, portals) == ((), ())


def test_without_kube_proxy_nobody_answers_for_it() -> None:
    """The announcement is not kube-proxy's; health checks are."""
    files, processes = plan(replace(CLUSTER, proxy="none"), NODES[0], UNDERLAY, LAYER2)
    assert [file.path for file in files] == [layer2.CONFIGURATION]
    assert [each.name for each in processes] == ["keepalived"]


def test_all_nodes_agree_on_the_order() -> None:
    """Of every address, the priorities of the nodes differ, and the elected has the highest."""
    portals = mapped(WEB)
    found = {}
    for node in NODES:
        (file, *_), _ = plan(CLUSTER, node, UNDERLAY, portals)
        (line,) = (each for each in file.content.splitlines() if "priority" in each)
        found[node.name] = int(line.split()[1])
    order = layer2.elected(NODES, IPv4Address("172.18.255.200"))
    assert sorted(found.values()) == [252, 253, 254]
    assert [name for name, _ in sorted(found.items(), key=lambda each: -each[1])] == [
        node.name for node in order
    ]


def test_addresses_are_spread() -> None:
    """The hash has the address in it, so one node does not get all of them."""
    addresses = [IPv4Address("172.18.255.200") + number for number in range(51)]
    assert {layer2.elected(NODES, address)[0].name for address in addresses} == {
        "node1",
        "node2",
        "node3",
    }


def test_policy_local_elects_among_nodes_with_endpoints() -> None:
    """A node without endpoints would drop what it attracts."""
    has = [
        any(file.path == layer2.CONFIGURATION for file in plan(*args)[0])
        for args in ((CLUSTER, node, UNDERLAY, mapped(LOCAL)) for node in NODES)
    ]
    assert has == [True, True, False]


def test_only_nodes_of_the_network_announce() -> None:
    """ARP does not cross routers."""
    racks = Underlay(
        {
            "rack1": Segment(IPv4Network("172.18.0.0/16")),
            "rack2": Segment(IPv4Network("172.19.0.0/16")),
        }
    )
    nodes = tuple(replace(node, network="rack2" if node.index else "rack1") for node in NODES)
    cluster = replace(CLUSTER, nodes=nodes, networks=(Network("rack1"), Network("rack2")))
    paths = [
        [file.path for file in plan(replace(cluster, proxy="none"), node, racks, mapped(WEB))[0]]
        for node in nodes
    ]
    assert paths == [[layer2.CONFIGURATION], [], []]


def test_more_addresses_than_virtual_routers() -> None:
    """VRRP numbers its routers in one byte."""
    first, last = IPv4Address("172.18.4.0"), IPv4Address("172.18.5.255")
    cluster = replace(CLUSTER, load_balancer=LoadBalancer(((first, last),)))
    plan(cluster, NODES[0], UNDERLAY, mapped(portal("web", "172.18.4.254", "node1")))
    with pytest.raises(PlanError, match=r"172\.18\.4\.255 of Service default/web is number 256"):
        plan(cluster, NODES[0], UNDERLAY, mapped(portal("web", "172.18.4.255", "node1")))
