"""What a reader of a node sees: links, addresses, routes, neighbours, FDB, rules, files.

Asserted by testinfra on the nodes, against reference shapes of a real flannel node.
"""

from __future__ import annotations

import re

import pytest

from testbed.cni.flannel import vtep_mac
from tests.live.conftest import Running

NODES = ("node1", "node2", "node3")
OTHERS = {node: [other for other in NODES if other != node] for node in NODES}


def lines(text: str) -> list[str]:
    """Lines without the blanks that iproute2 ends them with."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("node", NODES)
def test_routing_table_line_for_line(live: Running, node: str) -> None:
    """flannel.md section 2.3; a flannel route prints no ``proto``."""
    index = NODES.index(node)
    segment = f"{live.host(node).interface('eth0').addresses[0].rsplit('.', 2)[0]}.0"
    expected = [
        f"default via {segment}.1 dev eth0",
        *(
            f"10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink"
            if other != index
            else f"10.244.{other}.0/24 dev cni0 proto kernel scope link src 10.244.{other}.1"
            for other in range(3)
        ),
        f"{segment}.0/16 dev eth0 proto kernel scope link src {segment}.{index + 2}",
    ]
    assert lines(live.host(node).check_output("ip route")) == expected


@pytest.mark.parametrize("node", NODES)
def test_vtep_has_the_network_address_as_its_host_address(live: Running, node: str) -> None:
    """``10.244.x.0/32``, MTU 1450, up, with the MAC that the others have in their FDB."""
    interface = live.host(node).interface("flannel.1")
    assert interface.addresses[0] == f"10.244.{NODES.index(node)}.0"
    shown = live.host(node).check_output("ip -4 -o address show flannel.1")
    assert f"10.244.{NODES.index(node)}.0/32 scope global flannel.1" in shown
    link = live.host(node).check_output("ip -d link show flannel.1")
    assert f"link/ether {vtep_mac(live.name, node)} " in link
    assert " mtu 1450 qdisc noqueue state UNKNOWN " in link


def test_vxlan_attributes_are_those_of_flannel(live: Running) -> None:
    """No learning, UDP 8472, VNI 1, local address and uplink set; nothing else."""
    host = live.host("node1")
    shown = host.check_output("ip -d link show flannel.1")
    local = host.interface("eth0").addresses[0]
    assert (
        f"vxlan id 1 local {local} dev eth0 srcport 0 0 dstport 8472 nolearning ttl auto "
        "ageing 300 udpcsum noudp6zerocsumtx noudp6zerocsumrx" in shown
    )


@pytest.mark.parametrize("node", NODES)
def test_one_permanent_neighbour_and_fdb_entry_per_remote(live: Running, node: str) -> None:
    """So that killing flanneld stops no traffic, and no ARP is ever seen on the overlay."""
    host = live.host(node)
    neighbours = lines(host.check_output("ip neighbour show dev flannel.1"))
    assert sorted(neighbours) == sorted(
        f"10.244.{NODES.index(other)}.0 lladdr {vtep_mac(live.name, other)} PERMANENT"
        for other in OTHERS[node]
    )
    entries = lines(host.check_output("bridge fdb show dev flannel.1"))
    assert sorted(entries) == sorted(
        f"{vtep_mac(live.name, other)} dst {live.host(other).interface('eth0').addresses[0]} "
        "self permanent"
        for other in OTHERS[node]
    )


def test_bridge_is_the_pods_gateway(live: Running) -> None:
    """cni0 has .1/24, MTU 1450, and its ports are in hairpin mode."""
    host = live.host("node1")
    assert host.interface("cni0").addresses[0] == "10.244.0.1"
    assert " mtu 1450 " in host.check_output("ip link show cni0")
    ports = lines(host.check_output("bridge -d link show"))
    assert len([port for port in ports if re.match(r"\d+: veth", port)]) == 4
    assert len([port for port in ports if "hairpin on" in port]) == 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("net.ipv4.ip_forward", 1),
        ("net.bridge.bridge-nf-call-iptables", 1),
        ("net.ipv6.conf.flannel/1.accept_ra", 0),
    ],
)
def test_sysctls(live: Running, key: str, value: int) -> None:
    """Every sysctl that the plan relies on is set explicitly."""
    for node in NODES:
        path = "/proc/sys/" + key.translate(str.maketrans("./", "/."))
        assert int(live.host(node).file(path).content_string) == value


def test_iptables_save_reads_like_flannel_s(live: Running) -> None:
    """FLANNEL-POSTRTG behind everything else in POSTROUTING, FLANNEL-FWD in FORWARD."""
    nat = lines(live.host("node1").check_output("iptables-save -t nat"))
    comment = '-m comment --comment "flanneld masq" -j'
    assert [rule for rule in nat if rule.startswith("-A FLANNEL-POSTRTG")] == [
        f"-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {comment} RETURN",
        f"-A FLANNEL-POSTRTG -s 10.244.0.0/24 -d 10.244.0.0/16 {comment} RETURN",
        f"-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.0.0/24 {comment} RETURN",
        f"-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/24 {comment} RETURN",
        f"-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 {comment} MASQUERADE --random-fully",
        f"-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 {comment} "
        "MASQUERADE --random-fully",
    ]
    assert [rule for rule in nat if rule.startswith("-A POSTROUTING")][-1] == (
        f"-A POSTROUTING {comment} FLANNEL-POSTRTG"
    )
    forward = lines(live.host("node1").check_output("iptables-save -t filter"))
    assert '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD' in forward


def test_files_that_a_reader_looks_for(live: Running) -> None:
    """subnet.env, the conflist, the plugins, host-local's leases and the CNI cache."""
    host = live.host("node2")
    assert host.file("/run/flannel/subnet.env").content_string == (
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n"
        "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    )
    assert host.file("/etc/cni/net.d/10-flannel.conflist").is_file
    for plugin in ("flannel", "bridge", "host-local", "loopback", "portmap", "bandwidth"):
        assert host.file(f"/opt/cni/bin/{plugin}").exists
    leases = set(host.file("/var/lib/cni/networks/cbr0").listdir())
    assert {"10.244.1.2", "10.244.1.3", "10.244.1.4", "lock"} <= leases
    lease = host.file("/var/lib/cni/networks/cbr0/10.244.1.2").content
    assert re.fullmatch(rb"[0-9a-f]{64}\r\neth0", lease)
    assert any(
        name.startswith("cbr0-") and name.endswith("-eth0")
        for name in host.file("/var/lib/cni/results").listdir()
    )


def test_native_files_stay_to_be_read(live: Running) -> None:
    """What the agent fed to ip, bridge and iptables-restore, as ``testbed plan`` prints it."""
    host = live.host("node1")
    names = sorted(host.file("/etc/testbed/native").listdir())
    assert names == [
        "01-link.ip",
        "02-address.ip",
        "03-neighbour.ip",
        "04-fdb.bridge",
        "05-route.ip",
        "06-kubelet.iptables",
        "07-kube-proxy.iptables",
        "08-flannel.iptables",
    ]


def test_nodes_know_each_other_by_name(live: Running) -> None:
    """Hostnames are the topology's, and resolve on the underlay."""
    host = live.host("node1")
    assert host.check_output("hostname") == "node1"
    address = live.host("node2").interface("eth0").addresses[0]
    assert host.check_output("getent hosts node2").split()[0] == address


def test_no_zombies_and_no_stray_processes(live: Running) -> None:
    """PID 1 reaps; after a check no tcpdump is left but that of the flight recorder."""
    for node in NODES:
        states = lines(live.host(node).check_output("ps -eo stat=,args="))
        assert not [line for line in states if line.startswith("Z")]
        assert not [each for each in states if "tcpdump" in each and "testbed-flight" not in each]
