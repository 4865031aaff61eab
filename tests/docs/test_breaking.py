# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
# ruff: noqa: D103 - as tests are written outside of this repository
"""Breaking a network on purpose, and asking for the cause."""

import pytest

RULE = ("INPUT", "-p", "udp", "--dport", "8472", "-j", "DROP")


@pytest.fixture
def blocked(nodes):
    """node2 with a firewall that drops VXLAN."""
    node2 = nodes["node2"]
    node2.run("iptables", "-I", *RULE)
    yield node2
    node2.run("iptables", "-D", *RULE)


def test_a_firewall_that_blocks_the_overlay(testbed, pods, blocked):
    pod_a, pod_b = pods["netexec-node1-1"], pods["netexec-node2-1"]
    assert not pod_a.reaches(pod_b, timeout=0.5)
    trace = testbed.trace(pod_a, pod_b)
    assert not trace.answered
    assert trace.diagnosis.cause == "rule"
    assert trace.diagnosis.place == "node2"
