"""The way of a packet for a Service from outside: to a node, translated there, to the endpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from testbed.verify.trace.model import Endpoint, ExpectedHop
from testbed.verify.trace.service_path import expect
from tests.unit.verify.trace.outside import (
    ADDRESSES,
    BALANCER,
    CLIENT,
    EXTERNAL,
    OBSERVED,
    asked,
    cluster,
    place,
    portal,
    spelled,
)

WAYS = """
flannel iptables client node1 b
    client:eth0> node1:eth0< node1:cni0> node1:vethb> b:eth0<
  | b:eth0> node1:vethb< node1:cni0< node1:eth0> client:eth0<
flannel iptables client node1 c
    client:eth0> node1:eth0< node1:flannel.1> node1:eth0>* node2:eth0<* node2:flannel.1<
    node2:cni0> node2:vethc> c:eth0<
  | c:eth0> node2:vethc< node2:cni0< node2:flannel.1> node2:eth0>* node1:eth0<* node1:flannel.1<
    node1:eth0> client:eth0<
flannel iptables client web d
    client:eth0> node1:eth0< node1:flannel.1> node1:eth0>* tor:eth0<* tor:eth1>* node3:eth0<*
    node3:flannel.1< node3:cni0> node3:vethd> d:eth0<
  | d:eth0> node3:vethd< node3:cni0< node3:flannel.1> node3:eth0>* tor:eth1<* tor:eth0>*
    node1:eth0<* node1:flannel.1< node1:eth0> client:eth0<
flannel iptables far node1 d
    far:eth0> tor:eth1< tor:eth0> node1:eth0< node1:flannel.1> node1:eth0>* tor:eth0<*
    tor:eth1>* node3:eth0<* node3:flannel.1< node3:cni0> node3:vethd> d:eth0<
  | d:eth0> node3:vethd< node3:cni0< node3:flannel.1> node3:eth0>* tor:eth1<* tor:eth0>*
    node1:eth0<* node1:flannel.1< node1:eth0> tor:eth0< tor:eth1> far:eth0<
flannel iptables client node2 host
    client:eth0> node2:eth0<
  | node2:eth0> client:eth0<
flannel iptables client node1 host
    client:eth0> node1:eth0< node1:eth0> node2:eth0<
  | node2:eth0> node1:eth0< node1:eth0> client:eth0<
flannel iptables tor node1 b
    tor:eth0> node1:eth0< node1:cni0> node1:vethb> b:eth0<
  | b:eth0> node1:vethb< node1:cni0< node1:eth0> tor:eth0<
calico iptables client node1 b
    client:eth0> node1:eth0< node1:vethb> b:eth0<
  | b:eth0> node1:vethb< node1:eth0> client:eth0<
calico iptables client node1 c
    client:eth0> node1:eth0< node1:tunl0> node1:eth0>* node2:eth0<* node2:tunl0< node2:vethc>
    c:eth0<
  | c:eth0> node2:vethc< node2:tunl0> node2:eth0>* node1:eth0<* node1:tunl0< node1:eth0>
    client:eth0<
flannel iptables a node2 a
    a:eth0> node1:vetha< node1:cni0< node1:eth0> node2:eth0< node2:flannel.1> node2:eth0>*
    node1:eth0<* node1:flannel.1< node1:cni0> node1:vetha> a:eth0<
  | a:eth0> node1:vetha< node1:cni0< node1:flannel.1> node1:eth0>* node2:eth0<* node2:flannel.1<
    node2:eth0> node1:eth0< node1:cni0> node1:vetha> a:eth0<
calico nftables a node2 d
    a:eth0> node1:vetha< node1:eth0> node2:eth0< node2:tunl0> node2:eth0>* tor:eth0<* tor:eth1>*
    node3:eth0<* node3:tunl0< node3:vethd> d:eth0<
  | d:eth0> node3:vethd< node3:tunl0> node3:eth0>* tor:eth1<* tor:eth0>* node2:eth0<*
    node2:tunl0< node2:eth0> node1:eth0< node1:vetha> a:eth0<
flannel iptables node1 node2 b
    node1:eth0> node2:eth0< node2:flannel.1> node2:eth0>* node1:eth0<* node1:flannel.1<
    node1:cni0> node1:vethb> b:eth0<
  | b:eth0> node1:vethb< node1:cni0< node1:flannel.1> node1:eth0>* node2:eth0<* node2:flannel.1<
    node2:eth0> node1:eth0<
flannel iptables node2 node1 host
    node2:eth0> node1:eth0< node1:eth0> node2:eth0<
  | node2:eth0> node1:eth0< node1:eth0> node2:eth0<
flannel iptables a 172.18.255.200 b
    a:eth0> node1:vetha< node1:vethb> b:eth0<
  | b:eth0> node1:vethb< node1:vetha> a:eth0<
flannel ipvs client node1 b
    client:eth0> node1:eth0< node1:cni0> node1:vethb> b:eth0<
  | b:eth0> node1:vethb< node1:cni0< node1:eth0> client:eth0<
"""
"""CNI, mode, source, what is asked, and the endpoint that it got; then the request | the reply."""
ROWS = re.split(r"\n(?=\w)", WAYS.strip())
LOCAL: dict[str, Any] = {"external_local": True}
FENCED = {"source_ranges": (IPv4Network("203.0.113.0/24"),)}

Legs = tuple[Sequence[ExpectedHop], Sequence[ExpectedHop]]


def way(
    source: str, target: str, end: str, cni: str = "flannel", mode: str = "iptables", **how: Any
) -> tuple[Endpoint, Legs]:
    """To one of the Service's endpoints, or to none."""
    found = cluster(cni, mode)
    served = asked(found, source, target, [portal("a,b,c,d,host", **how)])
    served = replace(served, translated=f"{ADDRESSES[end]}:8080" if end else "")
    return expect(found, OBSERVED, place(source), served, {})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.partition("\n")[0])
def test_the_way_through_a_node(row: str) -> None:
    """As to the node, and from there on as from it; the reply comes back the same way."""
    head, legs = row.split("\n", 1)
    cni, mode, source, target, name = head.split()
    end, found = way(source, target, name, cni, mode)
    assert [spelled(leg) for leg in found] == [" ".join(leg.split()) for leg in legs.split("|")]
    assert end.place in (f"default/{name}", "node2")
    for leg in found:
        assert leg[0].what == "sent"
        assert leg[-1].what.endswith("delivered")
        assert not any("delivered" in hop.what or hop.what == "sent" for hop in leg[1:-1])


def addresses(hops: Sequence[ExpectedHop]) -> list[tuple[str, str, str]]:
    """What the source must be, what it must not be, and the destination, each hop."""
    return [(hop.source, hop.masqueraded, hop.destination) for hop in hops]


def test_from_outside_it_is_masqueraded_where_it_is_translated() -> None:
    """And the reply is from the address that was asked as soon as it leaves that node."""
    _, (there, back) = way("client", "node1", "c")
    c = ADDRESSES["c"]
    assert addresses(there) == [("", "", "172.18.0.2")] * 2 + [("", CLIENT, c)] * 7
    assert addresses(back) == [(c, "", "")] * 7 + [("172.18.0.2", "", "")] * 2


def test_policy_local_keeps_the_clients_address() -> None:
    """All the way to the endpoint, which answers it."""
    _, (there, back) = way("client", "node1", "b", **LOCAL)
    b = ADDRESSES["b"]
    assert addresses(there) == [("", "", "172.18.0.2")] * 2 + [(CLIENT, "", b)] * 3
    assert addresses(back) == [(b, "", CLIENT)] * 3 + [("172.18.0.2", "", "")] * 2


def test_a_pod_at_another_nodes_port_comes_with_its_own_nodes_address() -> None:
    """That is what must not be seen behind the node that is asked."""
    _, (there, _) = way("a", "node2", "c")
    assert {hop.masqueraded for hop in there if hop.place != "node2"} == {"", "172.18.0.2"}
    assert {hop.source for hop in way("a", "node2", "c", **LOCAL)[1][0][5:]} == {"172.18.0.2"}


@pytest.mark.parametrize(
    ("how", "own", "gone"), [({}, "", ADDRESSES["a"]), (LOCAL, ADDRESSES["a"], "")]
)
def test_a_pod_at_a_balancers_address_is_masqueraded_unless_the_policy_is_local(
    how: dict[str, Any], own: str, gone: str
) -> None:
    """Its own node translates it; the chain for outside short-circuits what comes from pods."""
    _, (there, back) = way("a", BALANCER, "c", **how)
    assert {(hop.source, hop.masqueraded) for hop in there[3:]} == {(own, gone)}
    assert back[-1].source == BALANCER


@pytest.mark.parametrize(
    ("source", "target", "how", "mode", "there"),
    [
        ("client", "node1", {}, "none", "client:eth0> node1:eth0<"),
        ("tor", "node3", {}, "none", "tor:eth1> node3:eth0<"),
        ("a", "node2", {}, "none", "a:eth0> node1:vetha< node1:cni0< node1:eth0> node2:eth0<"),
        ("node1", BALANCER, {}, "none", ""),
        ("a", BALANCER, FENCED, "iptables", "a:eth0> node1:vetha< node1:cni0<"),
        ("a", BALANCER, FENCED, "nftables", "a:eth0> node1:vetha<"),
        ("client", BALANCER, FENCED, "nftables", "client:eth0> node1:eth0<"),
    ],
)
def test_where_nobody_answers_the_node_that_it_enters_is_the_end(
    source: str, target: str, how: dict[str, Any], mode: str, there: str
) -> None:
    """With nftables, source ranges are looked at before a bridge hands the packet up."""
    found = cluster(mode=mode)
    served = asked(found, source, target, [portal("b", **how)])
    end, legs = expect(found, OBSERVED, place(source), served, {})
    assert (end.place, spelled(legs[0]), legs[1]) == ("svc/default/web", there, ())
    assert not legs[0] or "delivered" not in legs[0][-1].what


def test_no_way_is_known_where_no_node_announces_it() -> None:
    """Without endpoints."""
    found = cluster()
    served = asked(found, "client", BALANCER, [portal("")])
    end, legs = expect(found, OBSERVED, place("client"), served, {})
    assert (end.place, end.node, end.ip) == ("svc/default/web", "client", BALANCER)
    assert legs == ((), ())


def test_an_external_ip_comes_in_where_the_senders_route_leads() -> None:
    """The first node, until it was seen."""
    _, (there, _) = way("client", EXTERNAL, "b")
    assert spelled(there).startswith("client:eth0> node1:eth0<")
    assert {hop.destination for hop in there[:2]} == {EXTERNAL}
