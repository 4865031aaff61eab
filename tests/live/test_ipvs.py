"""What kube-proxy's ipvs mode leaves in the kernel, and what only it does on the wire.

The ways of packets that all modes have in common are in ``test_services.py``. Needs a kernel with
ip_vs: the full-kernel lane's.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.dataplane.features import Features
from tests.live import asking
from tests.live.conftest import SLOWNESS, Lasting, Running

HTTP = {"name": "http", "image": "netexec", "ports": [{"name": "http", "containerPort": 8080}]}
GATE = "example.com/open"
_TALK = """\
exec 3<>/dev/tcp/$1/80 || exit
touch /tmp/open
for i in $(seq 600); do [ -e /tmp/changed ] && break; sleep 0.1; done
printf 'GET /hostname HTTP/1.0\\r\\n\\r\\n' >&3
timeout 5 cat <&3
"""


@pytest.fixture(scope="module")
def testbed(lasting: Lasting, able: Features) -> Iterator[Running]:
    """Two nodes with a pod each, and a Service of two more pods, one of them gated."""
    if not able.ip_vs:
        pytest.skip("this kernel has no ip_vs")
    with lasting("flannel", "ipvs", nodes=2, pods_per_node=1, proxy="ipvs") as found:
        found.apply(pod("steady", "node1"), pod("gated", "node2"), SERVICE)
        yield found


def pod(name: str, node: str, status: str = "True") -> dict[str, Any]:
    """A pod of the Service; it is ready while ``status`` is ``True``."""
    spec: dict[str, Any] = {"nodeName": node, "containers": [HTTP]}
    given: dict[str, Any] = {"metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec}
    if name == "gated":
        spec["readinessGates"] = [{"conditionType": GATE}]
        given["status"] = {"conditions": [{"type": GATE, "status": status}]}
    return {"apiVersion": "v1", "kind": "Pod", **given}


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {
        "type": "NodePort",
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080}],
    },
}


def cluster_ip(testbed: Running) -> str:
    """The Service's address."""
    services = testbed.status()["services"]
    return next(str(each["cluster_ip"]) for each in services if each["name"] == "web")


def virtual_servers(testbed: Running, node: str) -> dict[str, list[str]]:
    """Virtual server → its servers with weights, as ``ipvsadm`` saves them; sorted."""
    found: dict[str, list[str]] = {}
    for line in testbed.host(node).check_output("ipvsadm --save --numeric").splitlines():
        words = line.split()
        if words[0] == "-A":
            found[" ".join(words[1:])] = []
        else:
            found[next(key for key in found if key.startswith(f"-t {words[2]} "))].append(
                " ".join(words[4:])
            )
    return {key: sorted(servers) for key, servers in found.items()}


def test_the_device_has_the_addresses_and_is_down(testbed: Running) -> None:
    """The kernel delivers to them all the same."""
    shown = testbed.host("node1").check_output("ip -json -4 address show dev kube-ipvs0")
    (link,) = json.loads(shown)
    assert (link["operstate"], set(link["flags"])) == ("DOWN", {"BROADCAST", "NOARP"})
    own = {str(each["cluster_ip"]) for each in testbed.status()["services"]}
    assert {each["local"] for each in link["addr_info"]} == own


def test_virtual_servers(testbed: Running) -> None:
    """At the cluster IP, and at the node port of every address of the node itself."""
    servers = sorted(f"{testbed.pods[name].ip}:8080 -m -w 1" for name in ("steady", "gated"))
    links = json.loads(testbed.host("node1").check_output("ip -json -4 address show"))
    addresses = {
        each["local"]
        for link in links
        if link.get("ifname") not in (None, "lo", "kube-ipvs0")
        for each in link["addr_info"]
    }
    assert len(addresses) == 3  # eth0, cni0 and flannel.1
    expected = {f"-t {cluster_ip(testbed)}:80 -s rr"}
    expected |= {f"-t {address}:30080 -s rr" for address in addresses}
    assert virtual_servers(testbed, "node1") == dict.fromkeys(expected, servers)


@pytest.mark.parametrize("source", ["netexec-node1-1", "node1"])
def test_ping_to_a_cluster_ip_is_refused(testbed: Running, source: str) -> None:
    """The address is the node's own, but since Kubernetes 1.27 nothing else is served there."""
    command = f"ping -c 1 -W 2 {cluster_ip(testbed)}"
    assert "Destination Port Unreachable" in testbed.host(source).run(command).stdout


def test_ports_of_the_node_are_not_served_at_cluster_ips(testbed: Running) -> None:
    """What listens on every address of the node is reached at the node's own."""
    listener = "nohup busybox nc -ll -p 81 -e /bin/true >/dev/null 2>&1 & sleep 1"
    testbed.nodes["node1"].run("sh", "-c", listener)
    ask = "timeout 3 bash -c 'exec 3<>/dev/tcp/{}/81'"
    pod = testbed.host("netexec-node1-1")
    assert pod.run(ask.format(testbed.nodes["node1"].ip)).rc == 0
    assert pod.run(ask.format(cluster_ip(testbed))).rc == 1


def test_a_connection_outlives_its_endpoint(testbed: Running) -> None:
    """An endpoint that is no longer ready gets weight 0: what is open goes on, nothing new comes.

    When the connection has ended, the next change removes it.
    """
    address = cluster_ip(testbed)
    source = testbed.pods["netexec-node1-1"]
    gated = f"{testbed.pods['gated'].ip}:8080"
    key = f"-t {address}:80 -s rr"
    source.run("rm", "-f", "/tmp/open", "/tmp/changed")
    heard: list[str] = []

    def talk() -> None:
        heard.append(source.run("bash", "-c", _TALK, "talk", address, check=False).stdout)

    testbed.apply(pod("gated", "node2"))
    threads = [threading.Thread(target=talk) for _ in range(2)]  # round robin: one at each
    for thread in threads:
        thread.start()
    source.run("sh", "-c", "for i in $(seq 100); do [ -e /tmp/open ] && exit; sleep 0.1; done")
    for _ in range(50):
        connections = testbed.host("node1").check_output("ipvsadm --list --connection --numeric")
        if connections.count("ESTABLISHED") == 2:
            break
    testbed.apply(pod("gated", "node2", "False"))
    assert f"{gated} -m -w 0" in virtual_servers(testbed, "node1")[key]
    assert gated not in str(virtual_servers(testbed, "node2")[key])
    answers = {asking.tcp(source, address, 80).host for _ in range(4)}
    assert answers == {"steady"}
    source.run("touch", "/tmp/changed")
    for thread in threads:
        thread.join(30 * SLOWNESS)
    assert sorted(each.split()[-1] for each in heard) == ["gated", "steady"]
    testbed.apply(pod("gated", "node2"))
    assert f"{gated} -m -w 1" in virtual_servers(testbed, "node1")[key]


def test_a_deleted_service_leaves_nothing(testbed: Running) -> None:
    """No virtual server, no address, no member of a set."""
    address = cluster_ip(testbed)
    testbed.delete(SERVICE)
    try:
        for node in ("node1", "node2"):
            host = testbed.host(node)
            assert not virtual_servers(testbed, node)
            assert address not in host.check_output("ip -4 address show dev kube-ipvs0")
            assert "add KUBE-" not in host.check_output("ipset save")
    finally:
        testbed.apply(SERVICE)
    source = testbed.pods["netexec-node1-1"]
    assert asking.tcp(source, cluster_ip(testbed), 80).outcome == "answered"
