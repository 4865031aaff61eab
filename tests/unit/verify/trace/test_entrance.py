"""By which node a packet for a Service comes in, and whom it may be given to there."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from testbed.packets.packet import Packet
from testbed.verify.trace.correlation import Sight
from testbed.verify.trace.entrance import enter
from testbed.verify.trace.model import Event, Facts
from tests.unit.verify.trace.outside import (
    ADDRESSES,
    BALANCER,
    CLIENT,
    EXTERNAL,
    IP,
    asked,
    cluster,
    portal,
)

LOCAL: dict[str, Any] = {"external_local": True}
INTERNAL: dict[str, Any] = {"internal_local": True}
NAMES = {f"{ip}:8080": name for name, ip in ADDRESSES.items()}
TABLE = """
# mode     policy   source target    pods  entrances: node=endpoints, + keeps the address, - not
iptables   Cluster  a      web       b,c   node1=b,c+
iptables   Cluster  node1  web       b,c   node1=b,c-
iptables   Internal a      web       b,c   node1=b+
iptables   Internal node3  web       b,c   node3=-
iptables   Cluster  client web       b,c   node1=b,c- node2=b,c-
iptables   Cluster  tor    web       b,c   node1=b,c- node2=b,c-
iptables   Cluster  far    web       b,c   node1=b,c- node2=b,c-
iptables   Cluster  client external  b,c   node1=b,c- node2=b,c- node3=b,c-
iptables   Cluster  client node3     b,c   node3=b,c-
iptables   Cluster  a      node1     b,c   node1=b,c-
iptables   Cluster  a      node2     b,c   node2=b,c-
iptables   Cluster  a      balancer  b,c   node1=b,c-
iptables   Local    client web       c     node2=c+
iptables   Local    client external  c     node1=+ node2=c+ node3=+
iptables   Local    client node1     c     node1=+
iptables   Local    client node2     c     node2=c+
iptables   Local    a      balancer  c     node1=c+
iptables   Local    a      node1     c     node1=c+
iptables   Local    a      node2     c     node2=c+
iptables   Local    a      node3     c     node3=+
iptables   Local    node1  balancer  c     node1=c-
iptables   Local    node1  node1     c     node1=c-
iptables   Local    node1  node3     c     node3=+
nftables   Local    node1  balancer  c     node1=-
nftables   Local    node1  external  c     node1=-
nftables   Local    node1  node1     c     node1=c-
nftables   Local    node2  balancer  c     node2=c-
nftables   Local    a      balancer  c     node1=c+
ipvs       Local    client node1     c     node1=c?
ipvs       Local    client node2     c     node2=c+
ipvs       Local    a      balancer  b,c   node1=b+
ipvs       Local    a      balancer  c     node1=c+
ipvs       Local    node1  balancer  c     node1=c?
iptables   Cluster  client web       .     .
iptables   Cluster  a      balancer  .     node1=-
"""
ROWS = [line.split("#")[0] for line in TABLE.strip().splitlines() if not line.startswith("#")]


def entrances(found: Any) -> str:
    """In the table's words."""
    keeps = {True: "+", False: "-", None: "?"}
    words = [
        f"{each.node}={','.join(NAMES[name] for name in each.usable)}{keeps[each.keeps]}"
        for each in found.entrances
    ]
    return " ".join(words) or "."


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row.split()))
def test_the_nodes_by_which_it_comes_in(row: str) -> None:
    """With the endpoints that each may give it to, and whether it keeps its sender's address."""
    mode, policy, source, target, pods, *rest = row.split()
    wanted = " ".join(rest)
    how = {"Local": LOCAL, "Internal": INTERNAL}.get(policy, {})
    address = {"balancer": BALANCER, "external": EXTERNAL}.get(target, target)
    found = asked(cluster(mode=mode), source, address, [portal(pods.strip("."), **how)])
    assert entrances(found) == wanted
    assert found.entered == wanted.partition("=")[0].replace(".", "")
    usable = {str(each) for each in found.usable}
    assert usable == set(found.entrance.usable if found.entrance else ())


def test_with_bgp_every_node_announces_to_its_own_peers() -> None:
    """A client without an AS is told nothing, nor is one of another network."""
    found = cluster("calico", announce="bgp")
    assert entrances(asked(found, "client", "web", [portal("b d")])) == "node1=b,d- node2=b,d-"
    assert entrances(asked(found, "far", "web", [portal("b d")])) == "."
    assert entrances(asked(found, "tor", "web", [portal("d", **LOCAL)])) == "node3=d+"


@pytest.mark.parametrize(
    ("source", "target", "ranges", "shut"),
    [
        ("client", BALANCER, "172.18.0.0/16", False),
        ("client", BALANCER, "203.0.113.0/24", True),
        ("client", "node1", "203.0.113.0/24", False),
        ("a", BALANCER, "172.18.0.0/16", True),
        ("a", BALANCER, "10.244.0.0/16", False),
        ("node1", BALANCER, "172.18.0.2/32", False),
        ("node1", BALANCER, "172.18.0.3/32", True),
        ("a", IP, "203.0.113.0/24", False),
    ],
)
def test_source_ranges_are_for_the_balancers_address(
    source: str, target: str, ranges: str, shut: bool
) -> None:
    """Of whoever asks, also from within."""
    fenced = portal("b", source_ranges=(IPv4Network(ranges),))
    found = asked(cluster(), source, target, [fenced])
    assert {each.firewalled for each in found.entrances} == {shut}
    assert bool(found.usable) is not shut


def test_source_ranges_shut_nobody_out_where_nobody_is_in() -> None:
    """kube-proxy rejects then, as for others."""
    fenced = portal("", source_ranges=(IPv4Network("203.0.113.0/24"),))
    (only,) = asked(cluster(), "a", BALANCER, [fenced]).entrances
    assert not only.firewalled


def sight(node: str, direction: str = "in") -> Sight:
    """On a node's uplink."""
    packet = Packet(source=IPv4Address(CLIENT), destination=IPv4Address(BALANCER))
    return Sight(Event(node, node, "eth0", direction, packet))


def holding(node: str, device: str = "eth0") -> dict[str, Facts]:
    """A node that has the balancer's address."""
    row = {"ifname": device, "addr_info": [{"local": BALANCER}]}
    return {node: Facts({"": {"addresses": [row]}})}


def test_who_announces_it_by_arp_is_where_it_must_come_in() -> None:
    """Whoever got it; with ipvs every node has the address, on another device."""
    found = asked(cluster(), "client", "web", [portal("b c")])
    assert enter(found, {}, [sight("node2")]).entered == "node2"
    assert enter(found, holding("node1"), [sight("node2")]).entered == "node1"
    assert enter(found, holding("node1", "kube-ipvs0"), [sight("node2")]).entered == "node2"
    assert enter(found, holding("node3"), []).entered == "node1"


def test_of_several_nodes_the_first_that_got_it_counts() -> None:
    """The second is that of the endpoint; what a node sends on does not tell."""
    found = asked(cluster(), "client", EXTERNAL, [portal("b c", **LOCAL)])
    entered = enter(found, {}, [sight("node2", "out"), sight("node2"), sight("node1")])
    assert entered.entered == "node2"
    assert [NAMES[str(each)] for each in entered.usable] == ["c"]
    assert enter(found, {}, [sight("node3")]).usable == ()
