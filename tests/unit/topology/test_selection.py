"""Which endpoints traffic gets, by both policies: kube-proxy's CategorizeEndpoints."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.topology.portals import Portal, Target
from testbed.topology.selection import select

HERE = Target(IPv4Address("10.244.0.5"), 80, "a")
THERE = Target(IPv4Address("10.244.1.6"), 80, "b")
LEAVING = replace(HERE, ready=False, terminating=True)
WAITING = replace(HERE, ready=False, serving=False)
INSIDE = Portal("ns1/svc1", "", "tcp", IPv4Address("10.96.0.41"), 80, (HERE, THERE))
OUTSIDE = replace(INSIDE, node_port=30080)


@pytest.mark.parametrize(
    ("portal", "cluster", "local"),
    [
        (INSIDE, (HERE, THERE), ()),
        (replace(INSIDE, external_local=True), (HERE, THERE), ()),
        (replace(INSIDE, internal_local=True), (), (HERE,)),
        (OUTSIDE, (HERE, THERE), ()),
        (replace(OUTSIDE, external_local=True), (HERE, THERE), (HERE,)),
        (replace(OUTSIDE, internal_local=True), (HERE, THERE), (HERE,)),
        (replace(INSIDE, targets=(WAITING, THERE)), (THERE,), ()),
        (replace(INSIDE, targets=(LEAVING, THERE)), (THERE,), ()),
        (replace(INSIDE, targets=(LEAVING,)), (LEAVING,), ()),
        (
            replace(OUTSIDE, external_local=True, targets=(LEAVING, THERE)),
            (THERE,),
            (LEAVING,),
        ),
    ],
)
def test_endpoints_by_policy(
    portal: Portal, cluster: tuple[Target, ...], local: tuple[Target, ...]
) -> None:
    """Those of a policy that is never in effect are not looked for; each is used once."""
    found = select(portal, "a")
    assert (found.cluster, found.local) == (cluster, local)
    assert found.targets == tuple(dict.fromkeys((*cluster, *local)))
    assert found.reachable


def test_reachable_elsewhere_is_not_reachable_from_here() -> None:
    """Policy Local on a node without an endpoint: some other node has one."""
    found = select(replace(OUTSIDE, external_local=True, internal_local=True), "c")
    assert (found.reachable, found.internal, found.outside) == (True, False, False)


def test_source_ranges_need_a_load_balancer_and_an_endpoint() -> None:
    """Without either there is nothing to restrict."""
    ranges = replace(INSIDE, source_ranges=(IPv4Network("192.0.2.0/24"),))
    balanced = replace(ranges, load_balancer_ip=IPv4Address("198.51.100.7"))
    assert not select(ranges, "a").restricted
    assert not select(replace(balanced, targets=()), "a").restricted
    assert select(balanced, "a").restricted
