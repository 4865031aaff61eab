# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
# ruff: noqa: D103 - as tests are written outside of this repository
"""The example of docs/services.md."""

import pytest

pytestmark = pytest.mark.testbed("flannel-services")


def test_a_service_from_inside_and_outside(testbed, pods, nodes, capture):
    web, front = testbed.services["web"], testbed.services["front"]
    pod, client = pods["netexec-node1-1"], testbed.clients["client"]
    with capture(pod.veth, nodes["node1"].uplink) as packets:
        assert pod.reaches(web, tcp=80)
        assert client.reaches(nodes["node1"].ip, tcp=30080)
    assert packets.where(lambda packet: packet.destination == web.cluster_ip).on(pod.veth)
    assert client.reaches(front.load_balancer_ip, tcp=80)
    assert testbed.trace(pod, web, tcp=80).ok
    assert testbed.trace(client, front, tcp=80).ok


def test_endpoints_follow(testbed, pods):
    testbed.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "somebody", "labels": {"app": "nobody"}},
            "spec": {"containers": [{"name": "nginx", "image": "nginx"}]},
        }
    )
    assert testbed.pods["netexec-node1-1"].reaches(testbed.services["nobody"], tcp=80)
