# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
# ruff: noqa: D103 - as tests are written outside of this repository
"""A test that fails, to see what pytest says then."""

import pytest


@pytest.fixture
def blocked(nodes):
    """node2 with a firewall that drops VXLAN."""
    node2 = nodes["node2"]
    rule = ["INPUT", "-p", "udp", "--dport", "8472", "-j", "DROP"]
    node2.run("iptables", "-I", *rule)
    yield
    node2.run("iptables", "-D", *rule)


@pytest.mark.usefixtures("blocked")
def test_web(pods):
    assert pods["netexec-node1-1"].reaches(pods["netexec-node2-1"], tcp=8080)
