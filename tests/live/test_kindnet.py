"""kindnet on real nodes: route tables line for line, plain frames, masquerading, host ports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import existing, lifecycle
from tests.live.calico import lines, uplink
from tests.live.conftest import Lasting, Running
from tests.live.wire import ping, requests, same_as_tshark

NODES = ("node1", "node2", "node3")
LOCAL, NEIGHBOUR, REMOTE = "netexec-node1-1", "netexec-node1-2", "netexec-node2-1"


@pytest.fixture(scope="module")
def kind(lasting: Lasting) -> Iterator[Running]:
    """Three nodes with kindnet, two pods each, a published pod, and one on the node's network."""
    with lasting("kindnet-ports", name="kindnet") as found:
        yield found


def address(live: Running, node: str) -> str:
    """A node's underlay address."""
    return str(uplink(live, node).ip)


def mac(live: Running, target: str, device: str = "eth0") -> str:
    """The MAC address of a link on a node or in a pod."""
    return str(live.host(target).check_output(f"cat /sys/class/net/{device}/address"))


def veth(live: Running, pod: str) -> str:
    """The node's end of a pod's link, by the node's route to the pod."""
    route = live.host(live.pod(pod)["node"]).check_output(f"ip route show {live.ip(pod)}")
    return str(route.split()[2])


def pods_of(live: Running, node: str) -> list[str]:
    """The pods of a node that have an address of their own, in the order of their addresses."""
    pods = [
        pod
        for pod in existing.status(live.client, live.name)["pods"]
        if pod["node"] == node and pod["name"] != "on-the-node"
    ]
    return [pod["name"] for pod in sorted(pods, key=lambda pod: int(pod["ip"].split(".")[3]))]


def test_every_pair_reaches_each_other_without_nat(kind: Running) -> None:
    """The whole check of ``up``: ping, TCP with the client's address, frames on the uplink."""
    report = kind.outcome.report
    assert report.ok, report.failures
    assert {found for found, (_, total) in report.counts().items() if total} >= {"icmp", "wire"}


@pytest.mark.parametrize("node", NODES)
def test_node_routes_line_for_line(kind: Running, node: str) -> None:
    """pods.md section 5: each pod by its own veth with scope host, each remote node's CIDR."""
    own = [
        f"{kind.ip(pod)} dev {veth(kind, pod)} scope host"  # the name is random: veth and 8 digits
        for pod in pods_of(kind, node)
    ]
    assert len(own) == (3 if node == "node2" else 2)
    assert all(re.fullmatch(r"\S+ dev veth[0-9a-f]{8} scope host", line) for line in own)
    remote = [
        [f"10.244.{other}.0/24 via {address(kind, name)} dev eth0"] if name != node else own
        for other, name in enumerate(NODES)
    ]
    segment = uplink(kind, node).network
    assert lines(kind.host(node).check_output("ip route")) == [
        f"default via {segment.network_address + 1} dev eth0",
        *(line for group in remote for line in group),
        f"{segment} dev eth0 proto kernel scope link src {address(kind, node)}",
    ]


def test_every_veth_has_the_gateways_address(kind: Running) -> None:
    """The same /32 on each; the local table has one route for each veth."""
    host = kind.host("node1")
    names = [veth(kind, pod) for pod in pods_of(kind, "node1")]
    for name in names:
        shown = host.check_output(f"ip -4 -o address show {name}")
        assert re.search(rf"{name}\s+inet 10\.244\.0\.1/32 scope global {name}", shown), shown
    table = lines(host.check_output("ip route show table local"))
    assert [line for line in table if line.startswith("local 10.244.0.1 ")] == [
        f"local 10.244.0.1 dev {name} proto kernel scope host src 10.244.0.1" for name in names
    ]


def test_pod_routes_line_for_line(kind: Running) -> None:
    """pods.md section 5: the connected route is replaced, so even neighbours are behind .1."""
    ip = kind.ip(REMOTE)
    assert lines(kind.host(REMOTE).check_output("ip route")) == [
        "default via 10.244.1.1 dev eth0",
        f"10.244.1.0/24 via 10.244.1.1 dev eth0 src {ip}",
        f"10.244.1.1 dev eth0 scope link src {ip}",
    ]


def test_pod_interface(kind: Running) -> None:
    """eth0 with the subnet's mask and its broadcast address, and the uplink's whole MTU."""
    host = kind.host(REMOTE)
    shown = host.check_output("ip address show eth0")
    assert f"inet {kind.ip(REMOTE)}/24 brd 10.244.1.255 scope global eth0" in shown
    assert " mtu 1500 qdisc noqueue state UP " in shown
    assert " link-netnsid 0" in shown


def test_neighbours(kind: Running) -> None:
    """A pod knows its own veth as .1 and nobody else; a node its pods and the other nodes."""
    for target in (NEIGHBOUR, REMOTE):
        ping(kind, LOCAL, kind.ip(target))
    ping(kind, "node1", kind.ip(LOCAL))
    pod = lines(kind.host(LOCAL).check_output("ip neighbour"))
    gateway = mac(kind, "node1", veth(kind, LOCAL))
    assert [line.split()[:5] for line in pod] == [["10.244.0.1", "dev", "eth0", "lladdr", gateway]]
    node = {tuple(line.split()[:5]) for line in lines(kind.host("node1").check_output("ip neigh"))}
    for name in (LOCAL, NEIGHBOUR):
        entry = (kind.ip(name), "dev", veth(kind, name), "lladdr", mac(kind, name))
        assert entry in node
    entry = (address(kind, "node2"), "dev", "eth0", "lladdr", mac(kind, "node2"))
    assert entry in node


def test_pods_of_one_node_are_routed_and_stay_on_it(kind: Running) -> None:
    """TTL 63 at the receiver, nothing on the uplink; a ping to node2 is the positive control."""
    here, near, far = (kind.pods[name] for name in (LOCAL, NEIGHBOUR, REMOTE))
    with kind.capture("node1", near.veth) as packets:
        here.ping(near)
        here.ping(far)
    assert {frame.ttl for frame in packets.on(near.veth).sent(here, near)} == {63}
    assert packets.between(here, far).plain()
    assert not packets.between(here, near).on(here.node.uplink)


def test_pods_of_two_nodes_speak_plainly(kind: Running, tmp_path: Path) -> None:
    """Node MACs, no encapsulation, no NAT; TTL 63 on the uplink and 62 at the receiver."""
    macs = (mac(kind, "node1"), mac(kind, "node2"))
    pods = (kind.ip(LOCAL), kind.ip(REMOTE))
    veth_there = kind.pods[REMOTE].veth
    with kind.capture("node1", veth_there) as packets:
        ping(kind, LOCAL, pods[1])
    echoes = requests(packets.on("node1/eth0"))
    assert len(echoes) == 3
    for frame in echoes:
        assert (frame.source_mac, frame.destination_mac) == macs
        assert (str(frame.source), str(frame.destination)) == pods
        assert (frame.inner, frame.protocol, frame.ttl, frame.dont_fragment) == (None, 1, 63, True)
    arrived = requests(packets.on(veth_there))
    assert [(str(frame.source), frame.ttl) for frame in arrived] == [(pods[0], 62)] * 3
    assert {frame.source_mac for frame in arrived} == {mac(kind, "node2", veth(kind, REMOTE))}
    same_as_tshark(packets, tmp_path)


@pytest.mark.parametrize(
    ("source", "target", "ttl"),
    [(LOCAL, NEIGHBOUR, 63), (LOCAL, REMOTE, 62), ("node1", LOCAL, 64), ("node1", REMOTE, 63)],
)
def test_a_reply_has_lost_one_of_its_ttl_at_each_node(
    kind: Running, source: str, target: str, ttl: int
) -> None:
    """pods.md section 5: pod to pod by one node or two; a node to its own pod and a remote one."""
    assert ping(kind, source, kind.ip(target)).count(f" ttl={ttl} ") == 3


def test_the_largest_packet_passes_and_one_byte_more_does_not(kind: Running) -> None:
    """MTU 1500: 1472 bytes of ping payload with DF; the kernel says what would fit."""
    target = kind.ip(REMOTE)
    assert " 0% packet loss" in ping(kind, LOCAL, target, "-M do", "-s 1472")
    refused = kind.host(LOCAL).run(f"ping -n -c 1 -W 1 -M do -s 1473 {target}")
    assert refused.rc != 0
    assert "mtu=1500" in refused.stdout + refused.stderr


def test_who_a_pod_sees(kind: Running) -> None:
    """A remote node by its own address, the pod's own node as the gateway."""
    node = kind.host("node1")
    remote = node.check_output(f"curl -s http://{kind.ip(REMOTE)}:8080/clientip")
    local = node.check_output(f"curl -s http://{kind.ip(LOCAL)}:8080/clientip")
    assert remote.rpartition(":")[0] == address(kind, "node1")
    assert local.rpartition(":")[0] == "10.244.0.1"


def test_a_pod_reaches_another_node_as_its_own_node(kind: Running) -> None:
    """KIND-MASQ-AGENT masquerades what is not for a pod; pod to pod is the control."""
    seen = kind.host(LOCAL).check_output(f"curl -s http://{address(kind, 'node3')}:9080/clientip")
    assert seen.rpartition(":")[0] == address(kind, "node1")
    seen = kind.host(LOCAL).check_output(f"curl -s http://{kind.ip(REMOTE)}:8080/clientip")
    assert seen.rpartition(":")[0] == kind.ip(LOCAL)


def test_iptables_save_reads_like_kindnet_s(kind: Running) -> None:
    """The jump for whatever is not local, pods excepted, then MASQUERADE as the last rule."""
    nat = lines(kind.host("node1").check_output("iptables-save -t nat"))
    agent = '-m comment --comment "kind-masq-agent:'
    assert [rule for rule in nat if "KIND-MASQ-AGENT" in rule] == [
        ":KIND-MASQ-AGENT - [0:0]",
        f"-A POSTROUTING -m addrtype ! --dst-type LOCAL {agent} ensure nat POSTROUTING directs "
        'all non-LOCAL destination traffic to our custom KIND-MASQ-AGENT chain" '
        "-j KIND-MASQ-AGENT",
        f"-A KIND-MASQ-AGENT -d 10.244.0.0/16 {agent} local traffic is not subject to "
        'MASQUERADE" -j RETURN',
        f"-A KIND-MASQ-AGENT {agent} outbound traffic is subject to MASQUERADE (must be last in "
        'chain)" -j MASQUERADE',
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("net.ipv4.ip_forward", 1),
        ("net.ipv4.conf.all.arp_ignore", 0),
        ("net.ipv4.conf.all.route_localnet", 1),
        ("net.ipv4.conf.all.rp_filter", 1),
        ("net.ipv4.conf.default.rp_filter", 1),
    ],
)
def test_sysctls(kind: Running, key: str, value: int) -> None:
    """What kind's node image sets, and forwarding."""
    for node in NODES:
        path = "/proc/sys/" + key.replace(".", "/")
        assert int(kind.host(node).file(path).content_string) == value


def test_files_that_a_reader_looks_for(kind: Running) -> None:
    """The conflist as kindnetd writes it, and host-local's leases where it says."""
    host = kind.host("node2")
    conflist = json.loads(host.file("/etc/cni/net.d/10-kindnet.conflist").content_string)
    assert conflist["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.1.0/24"}]]
    assert {"10.244.1.2", "10.244.1.3", "10.244.1.4"} <= set(
        host.file("/run/cni-ipam-state/kindnet").listdir()
    )
    native = sorted(host.file("/etc/testbed/native").listdir())
    assert native == [
        "01-route.ip",
        "02-kubelet.iptables",
        "03-kube-proxy.iptables",
        "04-kindnet.iptables",
    ]


@pytest.mark.parametrize("source", ["node1", LOCAL, REMOTE, "node2", "published"])
def test_host_port_leads_to_the_pod(kind: Running, source: str) -> None:
    """From nodes and pods, the published one included, portmap's DNAT on node2's address."""
    url = f"http://{address(kind, 'node2')}:18080/hostname"
    assert kind.host(source).check_output(f"curl -s {url}") == "published"


def test_a_second_sync_changes_nothing(kind: Running) -> None:
    """Routes, rules and sysctls read back as they were written; the conflist's MTU too."""
    before = [kind.host(node).check_output("ip route; iptables-save -t nat") for node in NODES]
    said: list[str] = []
    again = lifecycle.up(kind.cluster, kind.client, lambda *words: said.append(" ".join(words)))
    assert again.report.ok, again.report.failures
    assert len([each for each in said if each.endswith("ready nothing to change")]) == 3
    after = [kind.host(node).check_output("ip route; iptables-save -t nat") for node in NODES]
    stamp = re.compile(r"^#.*$", re.MULTILINE)
    assert [stamp.sub("", each) for each in after] == [stamp.sub("", each) for each in before]
