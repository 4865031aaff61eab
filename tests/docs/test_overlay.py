# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
# ruff: noqa: D103 - as tests are written outside of this repository
"""The tutorial of docs/testing.md: what two pods say to each other, on the wire."""

from testbed import VXLAN


def test_pods_of_two_nodes_reach_each_other(pods):
    pod_a, pod_b = pods["netexec-node1-1"], pods["netexec-node2-1"]
    assert pod_a.reaches(pod_b, tcp=8080)
    assert not pod_a.reaches(pod_b, tcp=81)


def test_vxlan(nodes, pods, capture):
    node1, node2 = nodes["node1"], nodes["node2"]
    pod_a, pod_b = pods["netexec-node1-1"], pods["netexec-node2-1"]
    with capture(node1.uplink, node2["flannel.1"]) as packets:
        pod_a.ping(pod_b)
    assert packets.between(pod_a, pod_b).encapsulated_in(
        VXLAN(vni=1, port=8472), outer=(node1, node2)
    )


def test_pods_of_one_node_stay_on_its_bridge(nodes, pods, capture):
    node1 = nodes["node1"]
    pod_a, pod_b = pods["netexec-node1-1"], pods["netexec-node2-1"]
    pod_c = pods["netexec-node1-2"]
    with capture(node1.uplink, pod_c.veth) as packets:
        pod_a.ping(pod_c)
        pod_a.ping(pod_b)
    assert packets.between(pod_a, pod_c).on(pod_c.veth)
    assert not packets.between(pod_a, pod_c).on(node1.uplink)


def test_what_is_inside(nodes, pods, capture):
    node2 = nodes["node2"]
    pod_a, pod_b = pods["netexec-node1-1"], pods["netexec-node2-1"]
    with capture(node2.uplink, filter="udp port 8472") as packets:
        pod_a.ping(pod_b, count=3)
    requests = packets.sent(pod_a, pod_b).icmp(8)
    assert len(requests) == 3
    for packet in requests:
        assert packet.source == nodes["node1"].ip
        assert packet.innermost.ttl == 63
        assert packet.innermost.dont_fragment


def test_the_largest_packet_passes(pods):
    pod_a, pod_b = pods["netexec-node1-1"], pods["netexec-node2-1"]
    assert pod_a.ping(pod_b, size=1422, df=True).received == 1
    assert (
        "mtu=1450" in pod_a.run("ping", "-c1", "-Mdo", "-s1423", str(pod_b.ip), check=False).stderr
    )
