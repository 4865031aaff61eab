"""What a pod is: namespaces, files, addresses and routes, and what its containers share."""

from __future__ import annotations

import re

import pytest

from testbed.verify.report import Finding
from tests.live.conftest import Running
from tests.live.walks import trace

SHARED = ("net", "ipc", "uts")
OWN = ("pid", "mnt")


def lines(text: str) -> list[str]:
    """Lines without the blanks that iproute2 ends them with."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def namespaces(live: Running, node: str, process: str) -> dict[str, str]:
    """Namespace type → identity, of the first process that runs ``process`` on a node."""
    host = live.host(node)
    pid = host.check_output(f"pgrep -of '{process}'")
    return {
        kind: host.check_output(f"readlink /proc/{pid}/ns/{kind}")
        for kind in (*SHARED, *OWN, "user")
    }


def pause_of(live: Running, pod: str) -> tuple[str, str]:
    """Node and PID of a pod's pause process."""
    node = live.pod(pod)["node"]
    state = live.host(node).check_output("testbed-agent status")
    match = re.search(rf'"name": ?"{pod}".*?"pause_pid": ?(\d+)', state, re.DOTALL)
    if match is None:
        match = re.search(rf'"pause_pid": ?(\d+)[^{{}}]*?"name": ?"{pod}"', state, re.DOTALL)
    assert match, state
    return node, match[1]


def test_pod_routes_line_for_line(live: Running) -> None:
    """flannel.md section 2.3: default, connected, and the whole network by the bridge."""
    ip = live.ip("web")
    assert lines(live.host("web").check_output("ip route")) == [
        "default via 10.244.0.1 dev eth0",
        f"10.244.0.0/24 dev eth0 proto kernel scope link src {ip}",
        "10.244.0.0/16 via 10.244.0.1 dev eth0",
    ]


def test_pod_interface(live: Running) -> None:
    """eth0 with the subnet's mask, its broadcast address, and flannel's MTU; and lo."""
    host = live.host("web")
    ip = live.ip("web")
    shown = host.check_output("ip address show eth0")
    assert f"inet {ip}/24 brd 10.244.0.255 scope global eth0" in shown
    assert " mtu 1450 " in shown
    assert host.interface("eth0").addresses[0] == ip
    assert "127.0.0.1" in host.interface("lo").addresses


def test_containers_share_what_kubernetes_says(live: Running) -> None:
    """pods.md section 2: net, ipc and uts are pause's; pid and mnt are their own."""
    node, pid = pause_of(live, "web")
    host = live.host(node)
    pause = {kind: host.check_output(f"readlink /proc/{pid}/ns/{kind}") for kind in (*SHARED, *OWN)}
    nginx = namespaces(live, node, "nginx: master")
    for kind in SHARED:
        assert nginx[kind] == pause[kind], kind
    for kind in OWN:
        assert nginx[kind] != pause[kind], kind


def test_lsns_shows_the_sharing(live: Running) -> None:
    """The net namespace is listed under pause, the lowest PID in it, with both containers."""
    node, pid = pause_of(live, "web")
    host = live.host(node)
    app = host.check_output("pgrep -of 'nginx: master'")
    rows = {row.split()[1]: row.split() for row in lines(host.check_output(f"lsns -n -p {app}"))}
    for kind in SHARED:
        assert rows[kind][3] == pid
        assert rows[kind][4] == "65535"
        assert rows[kind][5].endswith("/pause")
    for kind in OWN:
        assert rows[kind][3] == app


def test_network_namespace_is_pinned_as_a_file(live: Running) -> None:
    """``/var/run/netns/cni-<uuid>`` is the namespace that pause is in."""
    node, pid = pause_of(live, "web")
    host = live.host(node)
    inode = re.search(r"\d+", host.check_output(f"readlink /proc/{pid}/ns/net"))
    assert inode
    pinned = lines(host.check_output("ls -i /var/run/netns"))
    names = [row.split()[1] for row in pinned if row.split()[0] == inode[0]]
    assert len(names) == 1
    assert re.fullmatch(r"cni-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", names[0])


def test_shared_process_namespace(live: Running) -> None:
    """With shareProcessNamespace, PID 1 of the containers is pause."""
    assert "/pause" in live.host("shared").check_output("cat /proc/1/cmdline | tr '\\0' ' '")
    assert "/pause" not in live.host("web").check_output("cat /proc/1/cmdline | tr '\\0' ' '")


def test_containers_share_localhost_and_the_port_space(live: Running) -> None:
    """The side container reaches nginx as 127.0.0.1, and cannot bind its port."""
    side = live.host("web?container=side")
    assert "Welcome to nginx" in side.check_output("curl -s http://127.0.0.1/")
    bind = side.run("timeout 5 busybox nc -l -p 80")
    assert bind.rc != 0
    assert "in use" in bind.stderr


def test_containers_share_dev_shm_but_not_the_root(live: Running) -> None:
    """/dev/shm is the pod's, files elsewhere are the container's own."""
    one, two = live.host("web?container=nginx"), live.host("web?container=side")
    one.check_output("echo hello > /dev/shm/greeting; echo hello > /tmp/greeting")
    assert two.file("/dev/shm/greeting").content_string == "hello\n"
    assert not two.file("/tmp/greeting").exists
    assert not live.host("node1").file("/tmp/greeting").exists
    options = two.check_output("grep ' /dev/shm ' /proc/mounts")
    assert {"nosuid", "nodev", "noexec", "size=65536k"} <= set(re.split(r"[ ,]", options))


def test_files_that_kubelet_writes(live: Running) -> None:
    """Hostname and hosts file of the pod, the same in every container."""
    for container in ("nginx", "side"):
        host = live.host(f"web?container={container}")
        assert host.check_output("hostname") == "web"
        hosts = host.file("/etc/hosts").content_string
        assert hosts.startswith("# Kubernetes-managed hosts file.\n")
        assert f"{live.ip('web')}\tweb" in hosts


def test_pod_sysctls(live: Running) -> None:
    """Unprivileged users may bind low ports and ping."""
    host = live.host("web")
    assert host.check_output("cat /proc/sys/net/ipv4/ip_unprivileged_port_start") == "0"
    assert host.check_output("cat /proc/sys/net/ipv4/ping_group_range").split() == [
        "0",
        "2147483647",
    ]


def test_nginx_listens(live: Running) -> None:
    """testinfra's socket module works inside pods."""
    assert live.host("web").socket("tcp://0.0.0.0:80").is_listening


def test_host_network_pod_is_on_the_node(live: Running) -> None:
    """The node's interfaces, the node's address, the node's name."""
    node = live.host("node3")
    pod = live.host("on-the-node")
    assert pod.check_output("hostname") == "node3"
    assert pod.interface("flannel.1").exists
    assert live.ip("on-the-node") == node.interface("eth0").addresses[0]


def test_every_pair_reaches_each_other_without_nat(live: Running) -> None:
    """The matrix of ``up``: ping, and TCP with the source as the target saw it."""
    report = live.outcome.report
    assert report.ok, report.failures
    kinds = {kind: total for kind, (_, total) in report.counts().items()}
    pods = 6 + 6
    assert kinds["pod"] == pods
    assert kinds["icmp"] == pods * (pods - 1) + (pods - 1)
    assert kinds["wire"] == 6
    assert Finding("wire", "default/web", "default/published", ok=True) in report.findings


def test_a_node_reaches_remote_pods_from_its_vtep_address(live: Running) -> None:
    """kube-proxy.md section 4: the remote pod sees 10.244.0.0, a local one cni0's address."""
    node = live.host("node1")
    remote = node.check_output(f"curl -s http://{live.ip('netexec-node2-1')}:8080/clientip")
    local = node.check_output(f"curl -s http://{live.ip('netexec-node1-1')}:8080/clientip")
    assert remote.rpartition(":")[0] == "10.244.0.0"
    assert local.rpartition(":")[0] == "10.244.0.1"


def test_a_pod_reaches_another_node_as_its_own_node(live: Running) -> None:
    """flannel masquerades pod → remote node address, but never pod → pod."""
    pod = live.host("netexec-node1-1")
    seen = pod.check_output(f"curl -s http://{live.ip('on-the-node')}:9080/clientip")
    assert seen.rpartition(":")[0] == live.host("node1").interface("eth0").addresses[0]


@pytest.mark.parametrize("source", ["node1", "netexec-node1-1", "netexec-node2-1", "node2"])
def test_host_port_leads_to_the_pod(live: Running, source: str) -> None:
    """From nodes and pods, the portmap plugin's DNAT on node2's address."""
    address = live.host("node2").interface("eth0").addresses[0]
    answer = live.host(source).check_output(f"curl -s http://{address}:18080/hostname")
    assert answer == "published"


def test_nobody_listens_on_the_host_port(live: Running) -> None:
    """It is a rule, not a socket: positive control by the DNAT chain."""
    node = live.host("node2")
    assert not node.socket("tcp://0.0.0.0:18080").is_listening
    rules = node.check_output("iptables-save -t nat")
    assert "--dport 18080 -j DNAT --to-destination " in rules
    assert "CNI-HOSTPORT-DNAT" in rules


def test_bandwidth_is_limited(live: Running) -> None:
    """After the burst that containerd allows, 10 Mbit/s; another pod's rate is the control."""

    def last_second(target: str, seconds: int) -> float:
        """Megabits per second that the receiver of an iperf3 run got in its last whole second."""
        shown = live.host("netexec-node1-1").check_output(
            f"iperf3 -i 1 -t {seconds} --get-server-output -c {live.ip(target)}"
        )
        received = shown.partition("Server output:")[2]
        pattern = r"(\d+)\.00-(\d+)\.00 +sec .* ([\d.]+) ([MG])bits/sec"
        rates = [
            float(rate) * {"M": 1, "G": 1000}[unit]
            for begin, end, rate, unit in re.findall(pattern, received)
            if int(end) - int(begin) == 1
        ]
        return rates[-1]

    assert last_second("fast", 1) > 100
    assert 5 < last_second("slow", 4) < 12


def test_bandwidth_is_shaped_by_tbf(live: Running) -> None:
    """Ingress on the pod's host veth, egress on an ifb, at the annotations' rates."""
    shown = live.host("node3").check_output("tc qdisc show")
    assert re.search(r"qdisc tbf 1: dev veth\w+ root .*rate 10Mbit", shown)
    assert re.search(r"qdisc tbf 1: dev bwp\w+ root .*rate 5Mbit", shown)
    assert re.search(r"qdisc ingress ffff: dev veth\w+", shown)


def test_a_shaped_pod_s_link_is_its_veth(live: Running) -> None:
    """Not the ifb that `bandwidth` lists behind it, by which its packets only pass."""
    assert live.pods["slow"].veth.device.startswith("veth")
    for source, target in (("slow", "node2"), ("netexec-node1-1", "slow"), ("fast", "slow")):
        found = trace(live, source, target)
        assert found.ok, found.diagnosis
