"""Which node a pod runs on."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.errors import TopologyError
from testbed.topology.declared import ContainerDeclaration, PodDeclaration, PortDeclaration
from testbed.topology.model import ContainerPort
from testbed.topology.scheduling import Room, listed, schedule
from testbed.topology.shares import of_cidr
from testbed.topology.source import Place, Problems

PLACE = Place("f.yaml", 1)


def pod(
    name: str,
    node: str | None = None,
    *,
    host_port: int | None = None,
    host_ip: str = "",
    host_network: bool = False,
    **selector: str,
) -> PodDeclaration:
    """A pod that wants what is given."""
    address = IPv4Address(host_ip) if host_ip else None
    port = ContainerPort(80, host_port=host_port, host_ip=address)
    container = ContainerDeclaration("c", "netexec", (), ports=(PortDeclaration(port, PLACE),))
    return PodDeclaration(
        place=PLACE,
        namespace="default",
        name=name,
        containers=(container,),
        host_network=host_network,
        node=node,
        node_selector=selector,
    )


def rooms(*names: str, cidr: str = "10.0.0.0/24", **labels: str) -> list[Room]:
    """Empty nodes, all with the same labels."""
    return [Room(name, labels, of_cidr(IPv4Network(cidr))) for name in names]


def nodes_of(pods: list[PodDeclaration], where: list[Room]) -> list[str]:
    """Every pod's node."""
    problems = Problems()
    found = schedule(pods, where, problems)
    problems.check()
    return [found[position] for position in range(len(pods))]


def test_pods_spread_evenly_and_ties_go_to_the_first_node() -> None:
    """Five pods over two nodes."""
    found = nodes_of([pod(name) for name in "abcde"], rooms("n1", "n2"))
    assert found == ["n1", "n2", "n1", "n2", "n1"]


def test_pinned_pods_count_before_the_others_choose() -> None:
    """Even when they come later in the file."""
    found = nodes_of([pod("a"), pod("b", "n1"), pod("c", "n1")], rooms("n1", "n2"))
    assert found == ["n2", "n1", "n1"]


def test_node_selector_is_honoured() -> None:
    """Only nodes with every label remain."""
    where = [*rooms("n1"), *rooms("n2", disk="ssd"), *rooms("n3", disk="ssd", zone="a")]
    found = nodes_of([pod("a", disk="ssd", zone="a"), pod("b", disk="ssd")], where)
    assert found == ["n3", "n2"]


def test_host_ports_keep_pods_apart() -> None:
    """The second pod with the port goes elsewhere, though its address may differ."""
    pods = [pod("a", "n1", host_port=80), pod("b", host_port=80, host_ip="127.0.0.1")]
    assert nodes_of([*pods, pod("c", "n1")], rooms("n1", "n2")) == ["n1", "n2", "n1"]


def test_different_host_addresses_share_a_port() -> None:
    """127.0.0.1:80 and 127.0.0.2:80 are two ports."""
    pods = [pod(ip, host_port=80, host_ip=ip) for ip in ("127.0.0.1", "127.0.0.2")]
    assert nodes_of(pods, rooms("n1")) == ["n1", "n1"]


def test_a_full_node_is_passed_over() -> None:
    """A /29 numbers five pods; a hostNetwork pod needs no number."""
    where = [*rooms("n1", cidr="10.0.0.0/29"), *rooms("n2")]
    pinned = [pod(f"p{number}", "n1") for number in range(5)]
    crowd = [pod(f"q{number}", "n2") for number in range(9)]
    found = nodes_of([*pinned, *crowd, pod("x"), pod("y", host_network=True)], where)
    assert found[-2:] == ["n2", "n1"]


def test_every_reason_is_given_once() -> None:
    """Nodes with the same objection are named together."""
    problems = Problems()
    where = [*rooms("n1"), *rooms("n2", "n3", disk="ssd")]
    schedule([pod("a", "n2", host_port=80), pod("b", host_port=80, disk="ssd")], where, problems)
    schedule([pod("c", disk="hdd")], where, problems)
    with pytest.raises(TopologyError) as raised:
        problems.check()
    assert str(raised.value) == (
        "f.yaml:1: pod default/c fits on no node (n1, n2, n3: has no label disk=hdd); "
        "change the pod or the nodes"
    )


def test_long_lists_are_cut() -> None:
    """A message stays readable with a hundred nodes."""
    assert listed(["a", "b"]) == "a, b"
    assert listed([f"n{number}" for number in range(100)], 2) == "n0, n1, … (100 in all)"
