"""What changes on running Calico nodes when pods and nodes come and go."""

from __future__ import annotations

from collections.abc import Callable

from testbed import lifecycle
from tests.live.calico import cali, eventually, lines, sessions
from tests.live.conftest import Running, bring_up, quiet


def names(live: Running, node: str) -> str:
    """Rules, sets, links and routes of a node in one text."""
    return str(live.host(node).check_output("iptables-save; ipset save; ip link; ip route"))


def test_pods_and_nodes_that_go_leave_nothing(make: Callable[..., Running]) -> None:
    """Their chains, veths, routes and sessions; what stays is not touched, and nothing is left."""
    live = make("calico", nodes=3, pods_per_node=3)
    gone = cali("netexec-node1-3")
    assert gone in names(live, "node1")
    fewer = bring_up(live.client, "calico", name=live.name, nodes=2, pods_per_node=1)
    assert fewer.outcome.report.ok, fewer.outcome.report.failures
    assert gone not in names(fewer, "node1")
    eventually(lambda: len(sessions(fewer, "node1")) == 1)
    assert set(sessions(fewer, "node1").values()) == {"Established"}
    assert len(lines(fewer.host("node1").check_output("ip route show dev tunl0"))) == 1
    said: list[tuple[str, str, str]] = []
    lifecycle.up(fewer.cluster, fewer.client, lambda *words: said.append(words))
    assert {words[2] for words in said if words[1] == "ready"} == {"nothing to change"}
    more = bring_up(live.client, "calico", name=live.name, nodes=3, pods_per_node=2)
    assert more.outcome.report.ok, more.outcome.report.failures


def test_a_check_right_after_a_restart_waits_for_the_boot(make: Callable[..., Running]) -> None:
    """And does not take what an earlier boot left for this one's state."""
    live = make("calico", nodes=2, pods_per_node=1)
    live.client.containers.get(live.container("node2")).restart(timeout=2)
    report = lifecycle.check(live.client, live.name).report
    assert report.ok, report.failures


def test_a_node_that_does_not_run_is_said_not_to(make: Callable[..., Running]) -> None:
    """Of the BGP sessions with it, too."""
    live = make("calico", nodes=2, pods_per_node=1)
    live.client.containers.get(live.container("node2")).stop(timeout=2)
    report = lifecycle.check(live.client, live.name).report
    details = {each.detail for each in report.failures if each.kind == "bgp"}
    assert details == {"node node2 does not run"}
    assert lifecycle.up(live.cluster, live.client, quiet).report.ok
