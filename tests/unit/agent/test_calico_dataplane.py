"""The calico CNI plugin's executable, with calico-ipam's, in network namespaces."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.agent.calico_cni import host_veth
from tests.unit.agent.calico_node import Namespaces, Node

WEB = host_veth("default", "web-1")
DUAL = """\
#!/bin/sh
[ "$CNI_COMMAND" = ADD ] && cat <<'END'
{"cniVersion": "0.3.1", "ips": [
  {"version": "4", "address": "10.65.7.5/24", "gateway": "10.65.7.1"},
  {"version": "6", "address": "fd00:65::5/64"}]}
END
exit 0
"""
PING = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
    raw.settimeout(5)
    raw.sendto(bytes.fromhex("0800f7fd00010001"), (sys.argv[1], 0))
    print(raw.recv(100)[8])
"""
"""Prints the TTL of an echo reply."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node with one block."""
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    namespaces = Namespaces()
    try:
        yield Node(tmp_path, namespaces)
    finally:
        namespaces.close()


def test_the_pods_side(node: Node) -> None:
    """calico.md section 1: /32, a gateway that nobody has, forwarding off, the veth's MTU."""
    pod = node.pod()
    node.shell("echo 1 >/proc/sys/net/ipv4/ip_forward", pod)
    result = node.run("ADD", pod)
    mac = result["interfaces"][1]["mac"]
    assert result == {
        "cniVersion": "0.3.1",
        "interfaces": [
            {"name": WEB},
            {"name": "eth0", "mac": mac, "sandbox": f"/proc/{pod}/ns/net"},
        ],
        "ips": [{"version": "4", "interface": 1, "address": "10.65.0.1/32"}],
    }
    assert node.lines("ip route", pod) == [
        "default via 169.254.1.1 dev eth0",
        "169.254.1.1 dev eth0 scope link",
    ]
    shown = node.lines("ip -4 address show dev eth0", pod)
    assert re.fullmatch(
        r"\d+: eth0@if\d+: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1480 qdisc noqueue state UP "
        r"group default qlen 1000 link-netnsid 0",
        shown[0],
    )
    assert shown[1] == "    inet 10.65.0.1/32 scope global eth0"
    assert f"link/ether {mac} " in node.shell("ip link show dev eth0", pod)
    assert int(mac[:2], 16) & 3 == 2
    assert node.lines("cat /proc/sys/net/ipv4/ip_forward", pod) == ["0"]


def test_the_nodes_side(node: Node) -> None:
    """One MAC address for all, no address, no bridge, a /32 route and the settings."""
    node.run("ADD", node.pod())
    shown = node.shell(f"ip -d address show dev {WEB}")
    assert "link/ether ee:ee:ee:ee:ee:ee " in shown
    assert "mtu 1480 " in shown
    assert "numtxqueues 1 numrxqueues 1 " in shown
    assert "inet " not in shown
    assert "master" not in shown
    assert node.lines(f"ip route show dev {WEB}") == ["10.65.0.1 scope link"]
    assert f"10.65.0.1 dev {WEB} scope link" in node.lines("ip route")
    expected = {
        "ipv4/conf/{}/route_localnet": "1",
        "ipv4/conf/{}/proxy_arp": "1",
        "ipv4/conf/{}/forwarding": "1",
        "ipv4/conf/{}/rp_filter": "1",
        "ipv4/neigh/{}/proxy_delay": "0",
        "ipv6/conf/{}/accept_ra": "0",
    }
    for name, value in expected.items():
        assert node.lines(f"cat /proc/sys/net/{name.format(WEB)}") == [value], name
    endpoint = json.loads((node.place / "endpoints" / f"{WEB}.json").read_text())
    assert endpoint["name"] == "node1-k8s-web--1-eth0"
    assert endpoint["spec"]["containerID"] == "c1"
    assert endpoint["spec"]["ipNetworks"] == ["10.65.0.1/32"]


def test_pods_reach_each_other_through_proxy_arp(node: Node) -> None:
    """Routed by the node: TTL 63, and the gateway has the MAC address of all cali devices."""
    pods = node.pod(), node.pod()
    for number, pod in enumerate(pods):
        node.run("ADD", pod, f"web-{number}", f"c{number}", cniVersion="1.0.0")
    argv = node.namespaces.enter(pods[0], sys.executable, "-ISc", PING, "10.65.0.2")
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout == "63\n", done.stderr
    assert node.lines("ip neighbour show 169.254.1.1", pods[0])[0].startswith(
        "169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee "
    )


def test_settings_of_the_configuration(node: Node) -> None:
    """Felix's MTU if there is no other, forwarding in the pod, a result of version 1.0.0."""
    (node.place / "mtu").write_text("1430\n")
    pod = node.pod()
    settings = {"allow_ip_forwarding": True}
    result = node.run("ADD", pod, mtu=0, container_settings=settings, cniVersion="1.0.0")
    assert result["ips"] == [{"interface": 1, "address": "10.65.0.1/32"}]
    assert "mtu 1430 " in node.shell("ip link show dev eth0", pod)
    assert "mtu 1430 " in node.shell(f"ip link show dev {WEB}")
    assert node.lines("cat /proc/sys/net/ipv4/ip_forward", pod) == ["1"]


def test_without_kubernetes_the_container_names_the_veth(node: Node) -> None:
    """Eleven characters of it."""
    node.run("ADD", node.pod(), "", "0123456789abcdef")
    assert node.devices() == ["cali0123456789a"]


def test_delete_may_be_repeated(node: Node) -> None:
    """Device, endpoint and address are gone after the first; the others find nothing to do."""
    pod = node.pod()
    node.run("ADD", pod)
    for netns in (pod, pod, "", "/var/run/netns/gone", str(node.place / "nodename")):
        assert node.run("DEL", netns) == {}
        assert node.devices() == []
        assert node.unallocated()[-1] == 1
        assert list((node.place / "endpoints").iterdir()) == []
    assert "eth0" not in node.shell("ip link", pod)


def test_delete_without_a_namespace_removes_the_nodes_end(node: Node) -> None:
    """But not that of a newer sandbox of the same pod."""
    node.run("ADD", node.pod())
    assert node.run("DEL", "", container="older") == {}
    assert node.devices() == [WEB]
    assert node.run("DEL", "") == {}
    assert node.devices() == []


def test_a_new_sandbox_of_a_pod_takes_its_place(node: Node) -> None:
    """The stale veth goes; the old sandbox's DEL releases the old address only."""
    old, new = node.pod(), node.pod()
    node.run("ADD", old)
    result = node.run("ADD", new, container="c2")
    assert result["ips"][0]["address"] == "10.65.0.2/32"
    assert node.run("DEL", old) == {}
    assert node.devices() == [WEB]
    assert node.unallocated()[-1] == 1
    assert node.lines(f"ip route show dev {WEB}") == ["10.65.0.2 scope link"]


def test_check(node: Node) -> None:
    """Nothing is said as long as all is as ADD left it; else what is missing."""
    pod = node.pod()
    result = node.run("ADD", pod, cniVersion="1.0.0")

    def said(netns: int | str = pod) -> Any:
        answer = node.run("CHECK", netns, cniVersion="1.0.0", prevResult=result)
        return answer.get("msg")

    assert said() is None
    node.shell("ip route delete 169.254.1.1", pod)
    assert said() == "route to 169.254.1.1 is missing in the container"
    node.shell("ip route delete default", pod)
    assert said() == "default route by eth0 is missing in the container"
    node.shell("ip address flush dev eth0", pod)
    assert said() == "address 10.65.0.1/32 is missing on eth0 in the container"
    node.shell("ip link set eth0 down", pod)
    assert said() == "interface eth0 is down in the container"
    node.shell(f"ip link set {WEB} address 02:00:00:00:00:01")
    assert said() == f"MAC address of {WEB} is not ee:ee:ee:ee:ee:ee"
    node.shell(f"ip link set {WEB} address ee:ee:ee:ee:ee:ee; ip route delete 10.65.0.1")
    assert said() == f"route to 10.65.0.1/32 by {WEB} is missing"
    assert said("/gone") == 'failed to Statfs "/gone": no such file or directory'
    node.run("DEL", pod)
    assert said() == "no address assigned to handle k8s-pod-network.c1"
    assert node.run("CHECK", pod, cniVersion="1.0.0")["msg"] == "required prevResult missing"


def test_a_route_to_another_interface_is_a_conflict(node: Node) -> None:
    """Upstream's words; the address is free again, and no veth is left."""
    node.shell("ip route add 10.65.0.1 dev up0 scope link")
    pod = node.pod()
    answer = node.run("ADD", pod)
    assert re.fullmatch(
        rf"error adding host side routes for interface: {WEB}, error: route \(Ifindex: \d+, "
        rf"Dst: 10.65.0.1/32, Scope: link\) already exists for an interface other than '{WEB}': "
        r"route \(Ifindex: \d+, Dst: 10.65.0.1/32, Scope: link, Iface: up0\)",
        answer["msg"],
    )
    assert node.unallocated()[-1] == 1
    assert node.devices() == []
    assert "eth0" not in node.shell("ip link", pod)


def test_a_failure_in_the_pod_releases_the_address(node: Node) -> None:
    """Here its interface exists already; the log has the error, too."""
    pod = node.pod()
    node.shell("ip link add eth0 type veth peer name other", pod)
    answer = node.run("ADD", pod)
    assert answer == {"code": 999, "msg": f"Error adding veth {WEB}: file exists"}
    assert node.unallocated()[-1] == 1
    assert (
        f'Final result of CNI ADD was an error. ContainerID="c1" error="{answer["msg"]}"'
        in node.log.read_text()
    )


def test_the_nodes_own_namespace_is_refused(node: Node) -> None:
    """Or DEL would take the node's uplink."""
    for command in ("ADD", "DEL"):
        assert node.run(command, node.pid) == {
            "code": 8,
            "msg": "plugin's netns and netns from CNI_NETNS should not be the same",
        }


def test_addresses_of_both_families(node: Node) -> None:
    """Another IPAM plugin's: single addresses, the node's link-local one as gateway."""
    if not Path("/proc/sys/net/ipv6").exists():
        pytest.skip("the kernel has no IPv6")
    node.executable("dual", DUAL)
    pod = node.pod()
    for where in (pod, None):
        node.shell("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6", where)
    result = node.run("ADD", pod, ipam={"type": "dual"})
    assert result["ips"] == [
        {"version": "4", "interface": 1, "address": "10.65.7.5/32"},
        {"version": "6", "interface": 1, "address": "fd00:65::5/128"},
    ]
    assert "default via fe80::ecee:eeff:feee:eeee dev eth0 metric 1024 pref medium" in node.lines(
        "ip -6 route", pod
    )
    assert "inet6 fe80::ecee:eeff:feee:eeee/64 scope link" in node.shell(
        f"ip address show dev {WEB}"
    )
    assert f"fd00:65::5 dev {WEB} metric 1024 pref medium" in node.lines("ip -6 route")
    for name, value in {"proxy_ndp": "1", "forwarding": "1", "accept_dad": "0"}.items():
        assert node.lines(f"cat /proc/sys/net/ipv6/conf/{WEB}/{name}") == [value]
