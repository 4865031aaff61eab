"""What a reader of a Calico node and of its pods sees: calico.md sections 1 to 3 and 7."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from testbed import IPIP, existing, lifecycle
from tests.live.calico import cali, eventually, lines, routes, tunnel_address, uplink
from tests.live.conftest import Lasting, Running
from tests.live.wire import MARK, marked, ping, replies, requests, same_as_tshark

NODES = ("node1", "node2", "node3")
POD, NEIGHBOUR, REMOTE = "netexec-node1-1", "netexec-node1-2", "netexec-node2-1"


@pytest.fixture(scope="module")
def calico(lasting: Lasting) -> Iterator[Running]:
    """Three nodes with IP-in-IP, as ``testbed up calico`` makes them."""
    with lasting("calico", name="calico") as found:
        yield found


def test_the_check_passes(calico: Running) -> None:
    """Every pair, every BGP session, and protocol 4 between all nodes."""
    report = calico.outcome.report
    assert report.ok, report.failures
    assert report.encapsulation == "IP-in-IP (protocol 4)"
    assert report.counts()["bgp"] == (6, 6)
    assert report.counts()["wire"] == (6, 6)


@pytest.mark.parametrize("node", NODES)
def test_routing_table_line_for_line(calico: Running, node: str) -> None:
    """Section 4, IPIP Always, up to 3.32: BIRD's routes by tunl0, own block a blackhole."""
    expected = routes(
        calico,
        node,
        block="proto bird",
        remote=lambda peer, cidr: (
            f"{cidr} via {uplink(calico, peer.name).ip} dev tunl0 proto bird onlink"
        ),
    )
    assert sorted(lines(calico.host(node).check_output("ip route"))) == expected


@pytest.mark.parametrize("node", NODES)
def test_tunl0(calico: Running, node: str) -> None:
    """Section 5: link/ipip, MTU 1480, the tunnel address with /32, no IPv6 address."""
    shown = calico.host(node).check_output("ip address show dev tunl0")
    assert "mtu 1480 " in shown
    assert "link/ipip 0.0.0.0 " in shown
    assert f"inet {tunnel_address(calico, node)}/32 scope global tunl0" in shown
    assert "inet6" not in shown
    assert ",UP,LOWER_UP>" in shown
    assert "MULTICAST" not in shown


def test_a_pod_sees_its_address_and_a_gateway_that_nobody_has(calico: Running) -> None:
    """/32, two routes, proxy ARP: the answer carries the MAC of all cali devices."""
    pod = calico.host(POD)
    ip = calico.ip(POD)
    assert lines(pod.check_output("ip route")) == [
        "default via 169.254.1.1 dev eth0",
        "169.254.1.1 dev eth0 scope link",
    ]
    shown = pod.check_output("ip -4 address show dev eth0")
    assert f"inet {ip}/32 scope global eth0" in shown
    assert "mtu 1480 " in shown
    ping(calico, POD, calico.ip(REMOTE))
    neighbours = pod.check_output("ip neighbour show 169.254.1.1")
    assert "169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee " in neighbours
    assert pod.check_output("cat /proc/sys/net/ipv4/ip_forward") == "0"


def test_the_node_s_end_of_a_pod(calico: Running) -> None:
    """Name, MAC, MTU, no address, no bridge, and the sysctls of the plugin and of Felix."""
    host, device = calico.host("node1"), cali(POD)
    shown = host.check_output(f"ip -d address show dev {device}")
    assert "link/ether ee:ee:ee:ee:ee:ee " in shown
    assert "mtu 1480 " in shown
    assert "inet " not in shown
    assert "master" not in shown
    for key, value in {
        "conf/{}/route_localnet": 1,
        "conf/{}/proxy_arp": 1,
        "conf/{}/forwarding": 1,
        "conf/{}/rp_filter": 1,
        "neigh/{}/proxy_delay": 0,
    }.items():
        path = f"/proc/sys/net/ipv4/{key.format(device)}"
        assert int(host.file(path).content_string) == value, path


def test_files_that_a_reader_looks_for(calico: Running) -> None:
    """Section 2."""
    host = calico.host("node2")
    assert host.file("/var/lib/calico/nodename").content_string == "node2"
    assert host.file("/var/lib/calico/mtu").content_string == "1480"
    conflist = json.loads(host.file("/etc/cni/net.d/10-calico.conflist").content_string)
    assert conflist["name"] == "k8s-pod-network"
    kinds = [plugin["type"] for plugin in conflist["plugins"]]
    assert kinds[:2] == ["calico", "portmap"]
    assert conflist["plugins"][0]["ipam"]["type"] == "calico-ipam"
    for plugin in ("calico", "calico-ipam"):
        assert host.file(f"/opt/cni/bin/{plugin}").mode & 0o111


def test_iptables_save_reads_like_felix_s(calico: Running) -> None:
    """Jumps at the top, each rule with its hash; POSTROUTING's behind everything else."""
    saved = lines(calico.host("node1").check_output("iptables-save"))
    rules = [line for line in saved if line.startswith("-A ")]
    ours = [rule for rule in rules if "cali-" in rule.split()[1] or "-j cali-" in rule]
    assert ours
    assert all(re.search(r'--comment "cali:[\w-]{16}"', rule) for rule in ours)
    assert [r.split()[1] for r in rules if re.search(r"-A (INPUT|FORWARD|OUTPUT) ", r)]
    for chain in ("INPUT", "FORWARD", "OUTPUT"):
        first = next(rule for rule in rules if rule.startswith(f"-A {chain} "))
        assert first.endswith(f"-j cali-{chain}")
    assert any(rule.startswith("-A cali-fw-" + cali(POD)[:9]) for rule in rules)
    masquerade = next(rule for rule in rules if rule.startswith("-A cali-nat-outgoing "))
    assert "--match-set cali40masq-ipam-pools src" in masquerade
    assert masquerade.endswith("-j MASQUERADE --random-fully")


def test_frames_are_ip_in_ip(calico: Running, tmp_path: Any) -> None:
    """Section 5: protocol 4, outer nodes, TTL and DF the inner packet's; tshark agrees."""
    target = calico.ip(REMOTE)
    with calico.capture("node1", "node1:tunl0") as packets:
        ping(calico, POD, target)
    wire, tunnel = (packets.on(f"node1/{device}") for device in ("eth0", "tunl0"))
    ends = [str(uplink(calico, node).ip) for node in ("node1", "node2")]
    echoes = requests(wire)
    answers = replies(wire)
    assert (len(echoes), len(answers)) == (3, 3)
    for frame in echoes:
        assert [str(frame.source), str(frame.destination)] == ends
        assert (frame.protocol, frame.ttl, frame.dont_fragment, frame.tos) == (4, 63, True, 0)
        assert frame.inner is not None
        assert (frame.inner.ttl, frame.inner.dont_fragment) == (63, True)
        assert (str(frame.inner.source), str(frame.inner.destination)) == (calico.ip(POD), target)
    assert all([str(each.destination), str(each.source)] == ends for each in answers)
    inside = [(str(frame.source), frame.icmp_type) for frame in marked(tunnel)]
    assert inside.count((calico.ip(POD), 8)) == 3
    assert inside.count((target, 0)) == 3
    same_as_tshark(packets, tmp_path)


def test_the_largest_packet_passes_and_one_byte_more_does_not(calico: Running) -> None:
    """MTU 1480: 1452 bytes of ping payload with DF; the kernel says what would fit."""
    target = calico.ip(REMOTE)
    assert " 0% packet loss" in ping(calico, POD, target, "-M do", "-s 1452")
    refused = calico.host(POD).run(f"ping -n -c 1 -W 1 -M do -s 1453 {target}")
    assert refused.rc != 0
    assert "mtu=1480" in refused.stdout + refused.stderr


def test_a_node_reaches_remote_pods_from_its_tunnel_address(calico: Running) -> None:
    """So that the answer finds the way back through the tunnel."""
    target = calico.ip(REMOTE)
    with calico.capture(calico.pods[REMOTE].veth) as wire:
        ping(calico, "node1", target)
    echoes = requests(wire)
    assert {str(frame.source) for frame in echoes} == {str(tunnel_address(calico, "node1"))}
    assert {frame.ttl for frame in echoes} == {63}


def test_a_node_reaches_its_own_pods_from_its_own_address(calico: Running) -> None:
    """cali devices have none, so it is the first device's that has one; TTL 64.

    A container that is made when the ipip module is there gets tunl0 before eth0.
    """
    with calico.capture(calico.pods[POD].veth) as wire:
        ping(calico, "node1", calico.ip(POD))
    echoes = requests(wire)
    kernel = calico.outcome.status["ipip"] == "kernel"
    first = tunnel_address(calico, "node1") if kernel else uplink(calico, "node1").ip
    assert {str(frame.source) for frame in echoes} == {str(first)}
    assert {frame.ttl for frame in echoes} == {64}


def test_pods_of_one_node_are_routed_and_stay_on_it(calico: Running) -> None:
    """TTL 63 at the receiver, nothing on the uplink; a ping to another node is the control."""
    here, near, far = (calico.pods[name] for name in (POD, NEIGHBOUR, REMOTE))
    with calico.capture("node1", near.veth) as packets:
        here.ping(near)
        here.ping(far)
    arrived = packets.on(near.veth).sent(here, near)
    assert {frame.ttl for frame in arrived} == {63}
    assert {frame.source_mac for frame in arrived} == {"ee:ee:ee:ee:ee:ee"}
    assert packets.between(here, far).encapsulated_in(IPIP(), outer=(here.node, far.node))
    assert not packets.between(here, near).on(here.node.uplink)


def test_pods_are_masqueraded_to_nodes_but_not_to_pods(calico: Running) -> None:
    """Section 8: natOutgoing applies when the destination is in no pool."""
    other = uplink(calico, "node2").ip
    with calico.capture("node2") as wire:
        ping(calico, POD, str(other))
        ping(calico, POD, calico.ip(REMOTE))
    echoes = requests(wire)
    plain = {str(frame.source) for frame in echoes if frame.inner is None}
    inner = {str(frame.inner.source) for frame in echoes if frame.inner}
    assert plain == {str(uplink(calico, "node1").ip)}
    assert inner == {calico.ip(POD)}


def test_an_unallocated_address_of_the_own_block_goes_nowhere(calico: Running) -> None:
    """Section 4: EINVAL from the blackhole on the owner, silence from a pod."""
    block = calico.cluster.node("node1").pod_cidr
    unused = str(block.broadcast_address)
    refused = calico.host("node1").run(f"ping -n -c 1 -W 1 {unused}")
    assert refused.rc == 2
    assert "Invalid argument" in refused.stdout + refused.stderr
    silent = calico.host(REMOTE).run(f"ping -n -c 1 -W 1 {unused}")
    assert silent.rc == 1
    assert "100% packet loss" in silent.stdout
    assert "nreachable" not in silent.stdout


_SPOOF = """
import socket, struct, sys
source, target, mark = sys.argv[1:]
body = bytes.fromhex(mark) * 4
icmp = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + body
total = sum(struct.unpack("!12H", icmp))
total = (total >> 16) + (total & 0xFFFF)
icmp = struct.pack("!BBHHH", 8, 0, ~(total + (total >> 16)) & 0xFFFF, 7, 1) + body
ends = socket.inet_aton(source) + socket.inet_aton(target)
head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 1, 0, 64, 1, 0) + ends
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).sendto(head + icmp, (target, 0))
"""


def test_a_pod_cannot_send_from_another_address(calico: Running) -> None:
    """Section 7: rpfilter in raw; the same packet from its own address is the control."""
    target = calico.ip(REMOTE)
    state = json.loads(calico.host("node1").check_output("testbed-agent status"))
    netns = next(pod["netns"] for pod in state["pods"] if pod["name"] == POD)
    node = calico.host("node1")
    with calico.capture("node1") as wire:
        for source in ("10.65.99.99", calico.ip(POD)):
            enter = f"nsenter --net={netns} python3 -c"
            node.check_output(f"{enter} %s {source} {target} {MARK}", _SPOOF)
    sources = {str(f.innermost.source) for f in requests(wire)}
    assert sources == {calico.ip(POD)}


def test_a_second_up_changes_nothing(calico: Running) -> None:
    """Rules, sets, routes and files are compared as the kernel lists them."""
    said: list[tuple[str, str, str]] = []
    lifecycle.up(calico.cluster, calico.client, lambda *words: said.append(words))
    ready = [words for words in said if words[1] == "ready"]
    assert {words[2] for words in ready} == {"nothing to change"}, ready


def test_a_node_s_restart_brings_everything_back(calico: Running) -> None:
    """docker restart: tunnel, BIRD, pods with their addresses, and the mesh again."""
    before = {pod.name: calico.ip(pod.name) for pod in calico.cluster.pods_on("node3")}
    calico.client.containers.get(calico.container("node3")).restart(timeout=2)
    status = eventually(lambda: ready(calico), 60)
    assert {pod["name"]: pod["ip"] for pod in status["pods"] if pod["node"] == "node3"} == before
    report = eventually(lambda: checked(calico), 60)
    assert report.ok


def ready(live: Running) -> dict[str, Any] | None:
    """The status, once everything is ready."""
    status = existing.status(live.client, live.name)
    return status if status["state"] == "ready" else None


def checked(live: Running) -> Any:
    """The report of a check, once it passes."""
    report = lifecycle.check(live.client, live.name).report
    return report if report.ok else None
