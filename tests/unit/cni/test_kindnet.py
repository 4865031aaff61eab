"""kindnet's planner against what kindnetd leaves on a node."""

from __future__ import annotations

import json
from ipaddress import IPv4Network

from testbed.cni import kindnet
from testbed.dataplane.features import Features
from testbed.dataplane.spec import NodeSpec
from testbed.dataplane.underlay import Underlay
from testbed.topology.model import Backend, Cluster, Node

CLUSTER = Cluster(
    name="t",
    cni="kindnet",
    backend=Backend("ptp"),
    cluster_cidr=IPv4Network("10.244.0.0/16"),
    node_cidr_mask=24,
    service_cidr=IPv4Network("10.96.0.0/16"),
    nodes=tuple(
        Node(f"node{index + 1}", index, (IPv4Network(f"10.244.{index}.0/24"),))
        for index in range(3)
    ),
    pods=(),
)


def spec(mtu: int = 1500) -> NodeSpec:
    """The plan of the second of three nodes."""
    underlay = Underlay.single(IPv4Network("172.18.0.0/16"), mtu)
    return kindnet.plan(CLUSTER, CLUSTER.nodes[1], underlay, Features.full())


def conflist(value: NodeSpec) -> dict[str, object]:
    """The only file of the plan."""
    (file,) = value.files
    assert file.path == "/etc/cni/net.d/10-kindnet.conflist"
    found: dict[str, object] = json.loads(file.content)
    return found


def test_one_route_for_each_remote_node() -> None:
    """By the node's own address, as host-gw does; there is no device and no address."""
    assert [line for item in spec().objects for line in item.create] == [
        "route replace 10.244.0.0/24 via 172.18.0.2 dev eth0",
        "route replace 10.244.2.0/24 via 172.18.0.4 dev eth0",
    ]


def test_conflist_is_kindnetd_s() -> None:
    """Its template, filled in for the second node."""
    assert conflist(spec()) == {
        "cniVersion": "0.3.1",
        "name": "kindnet",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-ipam-state",
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "ranges": [[{"subnet": "10.244.1.0/24"}]],
                },
                "mtu": 1500,
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def test_pods_have_the_uplinks_mtu() -> None:
    """And a node whose uplink's MTU changed is made anew: running pods do not follow."""
    assert '"mtu": 9000' in spec(9000).files[0].content
    assert spec(9000).attachment != spec().attachment


def test_masquerade_chain_in_kindnetd_s_order() -> None:
    """Pods excepted, everything that is not for the node itself."""
    (ruleset,) = spec().rulesets
    agent = '-m comment --comment "kind-masq-agent:'
    assert ruleset.content.splitlines() == [
        "*nat",
        ":KIND-MASQ-AGENT - [0:0]",
        f"-A POSTROUTING -m addrtype ! --dst-type LOCAL {agent} ensure nat POSTROUTING directs "
        'all non-LOCAL destination traffic to our custom KIND-MASQ-AGENT chain" '
        "-j KIND-MASQ-AGENT",
        f"-A KIND-MASQ-AGENT -d 10.244.0.0/16 {agent} local traffic is not subject to "
        'MASQUERADE" -j RETURN',
        f"-A KIND-MASQ-AGENT {agent} outbound traffic is subject to MASQUERADE (must be last in "
        'chain)" -j MASQUERADE',
        "COMMIT",
    ]


def test_sysctls_are_kind_s() -> None:
    """Of its node image; forwarding is what the plugin would set."""
    assert spec().sysctls == {
        "net.ipv4.ip_forward": "1",
        "net.ipv4.conf.all.arp_ignore": "0",
        "net.ipv4.conf.all.route_localnet": "1",
        "net.ipv4.conf.default.rp_filter": "1",
        "net.ipv4.conf.all.rp_filter": "1",
    }


def test_it_needs_nothing_of_the_kernel() -> None:
    """It runs where there is no tunnel driver at all, and its nodes share a segment."""
    assert kindnet.requires(CLUSTER) == frozenset()
    assert kindnet.TRAITS.routed == frozenset()
