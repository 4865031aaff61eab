"""Calico's IPAM on running nodes: blocks, FIFO, borrowing (calico.md section 3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Address

from tests.live.calico import eventually, lines, tunnel_address, uplink
from tests.live.conftest import Running
from tests.live.wire import ping

Make = Callable[..., Running]


def addresses(live: Running, node: str) -> list[IPv4Address]:
    """The addresses of a node's pods, in the order in which they were attached."""
    return [IPv4Address(live.ip(pod.name)) for pod in live.cluster.pods_on(node)]


def test_a_full_block_is_followed_by_a_second(make: Make) -> None:
    """Nine pods and the tunnel address in blocks of eight; every address of a block is used."""
    live = make("calico-blocks")
    assert live.outcome.report.ok, live.outcome.report.failures
    for node in live.cluster.nodes:
        first, second = node.pod_cidrs
        expected = [*first, *second][1:10]  # the very first is the tunnel's
        assert addresses(live, node.name) == expected
        shown = lines(live.host(node.name).check_output("ip route show type blackhole"))
        assert sorted(shown) == sorted(f"blackhole {cidr} proto bird" for cidr in (first, second))


def test_a_freed_address_is_not_given_again_at_once(make: Make) -> None:
    """First in, first out: a new sandbox takes the address that has been free for longest."""
    live = make("calico", nodes=1, pods_per_node=2)
    first, second = addresses(live, "node1")
    assert second == first + 1
    state = json.loads(live.host("node1").check_output("testbed-agent status"))
    pod = next(each for each in state["pods"] if each["ip"] == str(first))
    live.host("node1").check_output(f"kill -9 {pod['pause_pid']}")
    fresh = eventually(lambda: [ip for ip in ips(live) if ip not in (first, second, None)])
    assert fresh == [second + 1]


def ips(live: Running) -> list[IPv4Address | None]:
    """The addresses of node1's pods as the agent reports them now."""
    state = json.loads(live.host("node1").check_output("testbed-agent status"))
    return [IPv4Address(pod["ip"]) if pod["ip"] else None for pod in state["pods"]]


def test_addresses_are_borrowed_when_no_block_is_left(make: Make) -> None:
    """Each is a /32 route on the lender's node, and reached from there through the tunnel."""
    live = make("calico-borrow")
    assert live.outcome.report.ok, live.outcome.report.failures
    node1, node2 = live.cluster.nodes
    borrowed = [ip for ip in addresses(live, "node1") if ip not in node1.pod_cidr]
    assert len(borrowed) == 2
    assert all(ip in node2.pod_cidr for ip in borrowed)
    shown = lines(live.host("node2").check_output("ip route show proto bird"))
    for ip in borrowed:
        assert f"{ip} via {uplink(live, 'node1').ip} dev tunl0 onlink" in [
            line.replace(" proto bird", "") for line in shown
        ]
        ping(live, "lender", str(ip))
    assert tunnel_address(live, "node2") not in borrowed
