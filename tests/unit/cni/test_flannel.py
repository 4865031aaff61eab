"""flannel's planner against what flanneld leaves on a node."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from testbed.cni import flannel
from testbed.dataplane.features import Features
from testbed.dataplane.spec import NodeSpec, Tunnel
from testbed.dataplane.underlay import Segment, Underlay
from testbed.errors import MissingCapabilityError
from testbed.overlay import wireguard
from testbed.plan import assumed_underlay, cnis, plan
from testbed.topology.load import find, load
from testbed.topology.model import Backend, Cluster, Node

UNDERLAY = Underlay(
    {
        "default": Segment(IPv4Network("172.18.0.0/16")),
        "other": Segment(IPv4Network("172.19.0.0/16")),
    }
)


def spec(
    type_: str = "vxlan",
    options: Mapping[str, int | bool | str] | None = None,
    node: int = 0,
    networks: Sequence[str] = ("default", "default"),
    driver: str = "kernel",
) -> NodeSpec:
    """The plan of one of two nodes, or of more: one on each of ``networks``."""
    nodes = tuple(
        Node(f"node{index + 1}", index, (IPv4Network(f"10.244.{index}.0/24"),), network=network)
        for index, network in enumerate(networks)
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
        ipip=driver,
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


THREE = ("default", "default", "other")
"""Of three nodes, the last is behind a router."""


def test_direct_routing_is_chosen_for_each_remote() -> None:
    """ARP and FDB entries for the node of the other segment only."""
    mac = flannel.vtep_mac("t", "node3")
    assert lines(spec("vxlan", {"direct_routing": True}, networks=THREE))[3:] == [
        f"neighbour replace 10.244.2.0 lladdr {mac} dev flannel.1 nud permanent",
        f"fdb replace {mac} dev flannel.1 dst 172.19.0.4 self permanent",
        "route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
        "route replace 10.244.1.0/24 via 172.18.0.3 dev eth0",
    ]


def test_without_direct_routing_segments_do_not_matter() -> None:
    """Both remotes are behind the VTEP."""
    routes = [line for line in lines(spec(networks=THREE)) if line.startswith("route")]
    assert routes == [
        "route replace 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink",
        "route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
    ]


def test_ipip_routes_to_the_nodes_own_addresses() -> None:
    """The gateway is not on the device, hence onlink; the device answers for no remote."""
    value = spec("ipip", networks=THREE)
    assert lines(value) == [
        "link add flannel.ipip mtu 1480 type ipip remote any local 172.18.0.2 ttl inherit "
        "nopmtudisc",
        "link set flannel.ipip up",
        "address replace 10.244.0.0/32 dev flannel.ipip",
        "route replace 10.244.1.0/24 via 172.18.0.3 dev flannel.ipip onlink",
        "route replace 10.244.2.0/24 via 172.19.0.4 dev flannel.ipip onlink",
    ]
    assert value.tunnels == ()
    assert "FLANNEL_MTU=1480" in file(value, "/run/flannel/subnet.env")


def test_ipip_direct_routing_keeps_onlink() -> None:
    """flannel replaces the device of the route only; the node behind the router is tunnelled."""
    assert lines(spec("ipip", {"direct_routing": True}, networks=THREE))[3:] == [
        "route replace 10.244.1.0/24 via 172.18.0.3 dev eth0 onlink",
        "route replace 10.244.2.0/24 via 172.19.0.4 dev flannel.ipip onlink",
    ]


def test_ipip_by_the_ebpf_driver_differs_in_the_device_only() -> None:
    """The agent makes it before the plan's objects, and no line of the plan deletes it."""
    value = spec("ipip", driver="ebpf")
    assert value.tunnels == (Tunnel("flannel.ipip", "eth0"),)
    assert lines(value) == [
        "link set flannel.ipip mtu 1480 multicast off up",
        *lines(spec("ipip"))[2:],
    ]
    assert value.objects[0].delete == ("link set flannel.ipip down",)
    assert value.files == spec("ipip").files


def test_wireguard_has_one_route_for_the_whole_cluster() -> None:
    """Which peer a packet goes to is decided by the peers' allowed addresses."""
    value = spec("wireguard", networks=THREE)
    assert lines(value) == [
        "link add flannel-wg mtu 1420 type wireguard",
        "link set flannel-wg up",
        "address replace 10.244.0.0/32 dev flannel-wg",
        "route replace 10.244.0.0/16 dev flannel-wg scope link",
    ]
    assert "FLANNEL_MTU=1420" in file(value, "/run/flannel/subnet.env")


def test_wireguard_peers_are_the_other_nodes() -> None:
    """Each with its node's address, its pods, and the key that belongs to the node's own one."""
    value = spec("wireguard", networks=THREE)
    (settings,) = [each for each in value.rulesets if each.tool == "wg"]
    key = wireguard.private_key("t", "node1")
    assert settings.name == "flannel-wg"
    assert settings.content == (
        f"[Interface]\nListenPort = 51820\nPrivateKey = {key}\n\n"
        f"[Peer]\nPublicKey = {wireguard.public_key('t', 'node2')}\n"
        "AllowedIPs = 10.244.1.0/24\nEndpoint = 172.18.0.3:51820\n\n"
        f"[Peer]\nPublicKey = {wireguard.public_key('t', 'node3')}\n"
        "AllowedIPs = 10.244.2.0/24\nEndpoint = 172.19.0.4:51820\n"
    )
    (kept,) = [each for each in value.files if each.path == "/run/flannel/wgkey"]
    assert (kept.content, kept.mode) == (key, 0o400)


def test_wireguard_options() -> None:
    """In flannel's own spelling in its configuration, and in effect."""
    value = spec("wireguard", {"port": 4500, "mtu": 1400, "keepalive": 25})
    assert " mtu 1320 " in lines(value)[0]
    assert "ListenPort = 4500\n" in value.rulesets[1].content
    assert "Endpoint = 172.18.0.3:4500\nPersistentKeepalive = 25\n" in value.rulesets[1].content
    assert json.loads(file(value, "/etc/kube-flannel/net-conf.json"))["Backend"] == {
        "Type": "wireguard",
        "ListenPort": 4500,
        "MTU": 1400,
        "PersistentKeepaliveInterval": 25,
    }


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


def test_a_device_too_small_for_ipv6_has_none_of_its_settings() -> None:
    """1280 bytes are the least that IPv6 demands of a link."""
    for mtu, there in ((1330, True), (1329, False)):
        assert ("net.ipv6.conf.flannel/1.accept_ra" in spec("vxlan", {"mtu": mtu}).sysctls) is there


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


@pytest.mark.parametrize(
    ("type_", "driver", "needs"),
    [
        ("vxlan", "kernel", {"vxlan"}),
        ("host-gw", "kernel", set()),
        ("ipip", "kernel", {"ipip"}),
        ("ipip", "ebpf", {"ipip_ebpf"}),
        ("wireguard", "ebpf", {"wireguard"}),
    ],
)
def test_requirements_follow_the_backend(type_: str, driver: str, needs: set[str]) -> None:
    """host-gw runs where the kernel has no tunnels; IP-in-IP has two drivers."""
    cluster = Cluster(
        "t",
        "flannel",
        Backend(type_),
        IPv4Network("10.244.0.0/16"),
        24,
        IPv4Network("10.96.0.0/16"),
        (),
        (),
        ipip=driver,
    )
    assert flannel.requires(cluster) == {"br_netfilter", *needs}


def test_a_kernel_without_wireguard_is_refused() -> None:
    """Before anything is created, with exit code 3 and the name of what is missing."""
    cluster = load(find("flannel-wireguard"), cnis=cnis())
    features = replace(Features.full(), wireguard=False, kernel_release="6.1.0")
    with pytest.raises(MissingCapabilityError) as caught:
        plan(cluster, assumed_underlay(cluster), features)
    assert caught.value.exit_code == 3
    assert "flannel with backend wireguard needs what kernel 6.1.0" in str(caught.value)
    assert "does not have: wireguard." in str(caught.value)
