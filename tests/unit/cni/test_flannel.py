"""flannel's planner against what flanneld leaves on a node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Network

import pytest

from testbed.cni import flannel
from testbed.dataplane.features import Features
from testbed.dataplane.spec import NodeSpec
from testbed.dataplane.underlay import Underlay
from testbed.topology.model import Backend, Cluster, Node

UNDERLAY = Underlay(IPv4Network("172.18.0.0/16"))


def spec(
    type_: str = "vxlan", options: Mapping[str, int | bool | str] | None = None, node: int = 0
) -> NodeSpec:
    """The plan of one of two nodes."""
    nodes = tuple(
        Node(f"node{index + 1}", index, IPv4Network(f"10.244.{index}.0/24")) for index in range(2)
    )
    cluster = Cluster(
        name="t",
        cni="flannel",
        backend=Backend(type_, options or {}),
        cluster_cidr=IPv4Network("10.244.0.0/16"),
        node_cidr_mask=24,
        service_cidr=IPv4Network("10.96.0.0/16"),
        nodes=nodes,
        pods=(),
    )
    return flannel.plan(cluster, nodes[node], UNDERLAY, Features.full())


def lines(value: NodeSpec) -> list[str]:
    """Every native line that creates something."""
    return [line for item in value.objects for line in item.create]


def file(value: NodeSpec, path: str) -> str:
    """The content of one file of the plan."""
    return next(each.content for each in value.files if each.path == path)


def test_vxlan_has_one_arp_fdb_and_route_per_remote() -> None:
    """In that order: a route never precedes its neighbour."""
    mac = flannel.vtep_mac("t", "node2")
    assert lines(spec())[2:] == [
        "address replace 10.244.0.0/32 dev flannel.1",
        f"neighbour replace 10.244.1.0 lladdr {mac} dev flannel.1 nud permanent",
        f"fdb replace {mac} dev flannel.1 dst 172.18.0.3 self permanent",
        "route replace 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink",
    ]


def test_both_ends_agree_on_the_mac() -> None:
    """node1's FDB entry is node2's VTEP address."""
    remote = next(line for line in lines(spec(node=0)) if line.startswith("fdb")).split()[2]
    assert f"address {remote} " in lines(spec(node=1))[0]


def test_mac_is_locally_administered_unicast() -> None:
    """First octet: bit 1 set, bit 0 clear, as flannel's pkg/mac does."""
    for name in map(str, range(50)):
        first = int(flannel.vtep_mac("t", name)[:2], 16)
        assert first & 0x03 == 0x02


def test_direct_routing_keeps_the_device_but_routes_plainly() -> None:
    """No ARP and FDB entries for nodes of the same segment; the MTU stays 1450."""
    value = spec("vxlan", {"direct_routing": True})
    assert lines(value)[3:] == ["route replace 10.244.1.0/24 via 172.18.0.3 dev eth0"]
    assert "FLANNEL_MTU=1450" in file(value, "/run/flannel/subnet.env")


def test_host_gw_has_routes_only() -> None:
    """No device, and pods keep the uplink's MTU."""
    value = spec("host-gw")
    assert lines(value) == ["route replace 10.244.1.0/24 via 172.18.0.3 dev eth0"]
    assert "FLANNEL_MTU=1500" in file(value, "/run/flannel/subnet.env")
    assert "net.ipv6.conf.flannel/1.accept_ra" not in value.sysctls


@pytest.mark.parametrize(
    ("options", "mtu"), [({}, 1450), ({"mtu": 1400}, 1350), ({"mtu": 9000}, 8950)]
)
def test_mtu_option_replaces_the_uplinks_before_the_overhead(
    options: dict[str, int | bool | str], mtu: int
) -> None:
    """50 bytes go to outer IPv4, UDP, VXLAN and the inner Ethernet header."""
    value = spec("vxlan", options)
    assert f"FLANNEL_MTU={mtu}\n" in file(value, "/run/flannel/subnet.env")
    assert f" mtu {mtu} " in lines(value)[0]


def test_vni_names_the_device_and_its_sysctl() -> None:
    """VNI 7 makes flannel.7; sysctl(8) writes its dot as a slash."""
    value = spec("vxlan", {"vni": 7, "port": 4789})
    assert "link add flannel.7 " in lines(value)[0]
    assert "type vxlan id 7 " in lines(value)[0]
    assert " dstport 4789 " in lines(value)[0]
    assert value.sysctls["net.ipv6.conf.flannel/7.accept_ra"] == "0"


def test_subnet_env_is_flanneld_s() -> None:
    """The subnet is written as the future bridge's address."""
    assert file(spec(), "/run/flannel/subnet.env") == (
        "FLANNEL_NETWORK=10.244.0.0/16\n"
        "FLANNEL_SUBNET=10.244.0.1/24\n"
        "FLANNEL_MTU=1450\n"
        "FLANNEL_IPMASQ=true\n"
    )


def test_conflist_is_kube_flannel_s_with_bandwidth() -> None:
    """The chain of kube-flannel.yml, and the bandwidth plugin behind it."""
    conflist = json.loads(file(spec(), "/etc/cni/net.d/10-flannel.conflist"))
    assert (conflist["name"], conflist["cniVersion"]) == ("cbr0", "0.3.1")
    assert [plugin["type"] for plugin in conflist["plugins"]] == [
        "flannel",
        "portmap",
        "bandwidth",
    ]


def test_masquerade_rules_in_flannel_s_order() -> None:
    """The six rules of flannel's iptables manager, of node1."""
    rules = [
        line.replace(' -m comment --comment "flanneld masq"', "")
        for line in spec().rulesets[0].content.splitlines()
        if line.startswith("-A FLANNEL-POSTRTG")
    ]
    assert rules == [
        "-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN",
        "-A FLANNEL-POSTRTG -s 10.244.0.0/24 -d 10.244.0.0/16 -j RETURN",
        "-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.0.0/24 -j RETURN",
        "-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/24 -j RETURN",
        "-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully",
        "-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully",
    ]


@pytest.mark.parametrize(("type_", "needs_vxlan"), [("vxlan", True), ("host-gw", False)])
def test_requirements_follow_the_backend(type_: str, needs_vxlan: bool) -> None:
    """host-gw runs where the kernel has no vxlan."""
    cluster = Cluster(
        "t",
        "flannel",
        Backend(type_),
        IPv4Network("10.244.0.0/16"),
        24,
        IPv4Network("10.96.0.0/16"),
        (),
        (),
    )
    assert ("vxlan" in flannel.requires(cluster)) is needs_vxlan
