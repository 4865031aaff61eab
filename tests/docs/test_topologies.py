# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
# ruff: noqa: D103 - as tests are written outside of this repository
"""Which testbed a test gets."""

import pytest

from testbed import IPIP, PLAIN, VXLAN


@pytest.mark.testbed("calico", nodes=2)
def test_calico_uses_ipip(nodes, pods, capture):
    pod_a, pod_b = pods["netexec-node1-1"], pods["netexec-node2-1"]
    with capture() as packets:
        pod_a.ping(pod_b)
    outer = nodes["node1"], nodes["node2"]
    assert packets.between(pod_a, pod_b).encapsulated_in(IPIP(), outer)


ENCAPSULATIONS = {"flannel": VXLAN(vni=1, port=8472), "kindnet": PLAIN}


@pytest.mark.parametrize("testbed", ENCAPSULATIONS, indirect=True, scope="session")
def test_every_cni_encapsulates_as_it_should(testbed, pods):
    pod_a, pod_b = pods["netexec-node1-1"], pods["netexec-node2-1"]
    with testbed.capture() as packets:
        pod_a.ping(pod_b)
    assert packets.between(pod_a, pod_b).encapsulated_in(ENCAPSULATIONS[testbed.cluster.cni])
