"""Endpoints that come and go while clients connect, and what becomes of connections."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from testbed.dataplane.features import Features
from testbed.errors import NodeError
from tests.live import asking
from tests.live.conftest import SLOWNESS, Cli, Lasting, Running

MODES = ["iptables", "nftables", "ipvs"]
_LOAD = """\
while [ ! -e /tmp/stop ]; do
  curl -s -m 2 -w '\\n' http://$1/hostname || echo "failed $?"
done
"""


@pytest.fixture(scope="module", params=MODES)
def testbed(request: pytest.FixtureRequest, lasting: Lasting, able: Features) -> Iterator[Running]:
    """Two nodes; each test brings its own Services."""
    if request.param == "ipvs" and not able.ip_vs:
        pytest.skip("this kernel has no ip_vs")
    with lasting("flannel", f"change-{request.param}", nodes=2, proxy=request.param) as found:
        yield found


def deployment(name: str, replicas: int) -> dict[str, Any]:
    """Netexec pods."""
    labels = {"app": name}
    ports = [
        {"name": "http", "containerPort": 8080},
        {"name": "udp", "containerPort": 8081, "protocol": "UDP"},
    ]
    containers = [{"name": "netexec", "image": "netexec", "ports": ports}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }


def service(name: str, **spec: Any) -> dict[str, Any]:
    """A Service of that Deployment."""
    ports = [
        {"name": "http", "port": 80, "targetPort": "http"},
        {"name": "udp", "port": 90, "targetPort": "udp", "protocol": "UDP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }


def entry(testbed: Running, name: str) -> dict[str, Any]:
    """A Service's entry of ``status -o json``."""
    return next(each for each in testbed.status()["services"] if each["name"] == name)


def pods(testbed: Running, name: str) -> list[str]:
    """The names of a Deployment's pods."""
    found = (each["name"] for each in testbed.status()["pods"])
    return sorted(each for each in found if each.startswith(f"{name}-"))


@contextmanager
def load(testbed: Running, source: str, address: str) -> Iterator[list[str]]:
    """One connection after the other from a pod; who answered each, once the block has ended."""
    pod = testbed.pods[source]
    pod.run("rm", "-f", "/tmp/stop")
    lines: list[str] = []

    def connect() -> None:
        done = pod.run("sh", "-c", _LOAD, "load", f"{address}:80", seconds=120)
        lines.extend(done.stdout.split("\n")[:-1])

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        yield lines
    finally:
        pod.run("touch", "/tmp/stop")
        thread.join(60)
        pod.run("rm", "-f", "/tmp/stop")


def test_an_endpoint_goes_and_comes_under_load(testbed: Running) -> None:
    """Nobody notices: no connection fails, and a removed endpoint gets none any more."""
    testbed.apply(deployment("web", 3), service("web"))
    address = entry(testbed, "web")["cluster_ip"]
    three = pods(testbed, "web")
    assert len(three) == 3
    with load(testbed, "netexec-node1-1", address) as before:
        assert testbed.apply(deployment("web", 2)).deleted
    assert not [each for each in before if each.startswith("failed")], Counter(before)
    two = pods(testbed, "web")
    assert len(two) == 2
    with load(testbed, "netexec-node1-1", address) as after:
        testbed.apply(deployment("web", 3))
        source = testbed.pods["netexec-node1-1"]
        url = f"http://127.0.0.1:8080/dial?host={address}&port=80&request=hostname&tries=60"
        answers = json.loads(source.run("curl", "-s", "-m", "60", url).stdout)
    assert not [each for each in after if each.startswith("failed")], Counter(after)
    assert set(answers["responses"]) == set(pods(testbed, "web"))
    with load(testbed, "netexec-node1-1", address) as removed:
        testbed.apply(deployment("web", 2))
        url = f"http://127.0.0.1:8080/dial?host={address}&port=80&request=hostname&tries=60"
        answers = json.loads(source.run("curl", "-s", "-m", "60", url).stdout)
    assert set(answers["responses"]) == set(two)
    assert not [each for each in removed if each.startswith("failed")], Counter(removed)
    testbed.delete(deployment("web", 2), service("web"))
    assert not pods(testbed, "web")


def test_established_connections_survive(testbed: Running) -> None:
    """A TCP connection goes on when its Service's rules change, and without the Service, too.

    With ipvs, whose connections are the Service's own, only the former.
    """
    testbed.apply(deployment("long", 1), service("long"))
    address = entry(testbed, "long")["cluster_ip"]
    source = testbed.pods["netexec-node1-1"]
    script = (
        f"exec 3<>/dev/tcp/{address}/80; touch /tmp/open; "
        "for i in $(seq 100); do [ -e /tmp/changed ] && break; sleep 0.1; done; "
        "printf 'GET /hostname HTTP/1.0\\r\\n\\r\\n' >&3; timeout 5 cat <&3"
    )
    source.run("rm", "-f", "/tmp/open", "/tmp/changed")
    heard: list[str] = []

    def talk() -> None:
        heard.append(source.run("bash", "-c", script, check=False).stdout)

    thread = threading.Thread(target=talk)
    thread.start()
    source.run("sh", "-c", "for i in $(seq 100); do [ -e /tmp/open ] && exit; sleep 0.1; done")
    if testbed.cluster.proxy == "ipvs":
        testbed.apply(service("long", sessionAffinity="ClientIP"))
    else:
        testbed.delete(service("long"))
        assert asking.tcp(source, address, 80).outcome != "answered"
    source.run("touch", "/tmp/changed")
    thread.join(30 * SLOWNESS)
    assert pods(testbed, "long")[0] in heard[0]
    testbed.delete(deployment("long", 1))
    if testbed.cluster.proxy == "ipvs":
        testbed.delete(service("long"))


def test_udp_clients_follow_their_endpoint(testbed: Running) -> None:
    """A client that keeps its port is not bound to an endpoint that is gone: conntrack forgets."""
    testbed.apply(deployment("dns", 1), service("dns"))
    address = entry(testbed, "dns")["cluster_ip"]
    source = testbed.pods["netexec-node1-1"]
    script = (
        "import socket,sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.settimeout(2); s.bind(('', 40404)); s.connect((sys.argv[1], 90))\n"
        "s.send(b'hostname'); print(s.recv(100).decode())\n"
    )
    (first,) = pods(testbed, "dns")
    assert source.run("python3", "-c", script, address).stdout.strip() == first
    template = deployment("dns", 1)
    template["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "NEW", "value": "1"}]
    testbed.apply(template)
    (second,) = pods(testbed, "dns")
    assert second != first
    assert source.run("python3", "-c", script, address).stdout.strip() == second
    testbed.delete(template, service("dns"))


def test_udp_before_there_are_endpoints(testbed: Running) -> None:
    """A client that was refused is answered as soon as there is an endpoint."""
    testbed.apply(service("late"))
    address = entry(testbed, "late")["cluster_ip"]
    source = testbed.pods["netexec-node1-1"]
    assert asking.udp(source, address, 90).outcome == "refused"
    testbed.apply(deployment("late", 1))
    assert asking.udp(source, address, 90).outcome == "answered"
    testbed.delete(deployment("late", 1), service("late"))


def test_readiness_by_a_gate(testbed: Running) -> None:
    """A pod whose readiness gate closes gets nothing new; it is not touched itself."""

    def gated(status: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "gate", "labels": {"app": "gate"}},
            "spec": {
                "nodeName": "node2",
                "readinessGates": [{"conditionType": "example.com/open"}],
                "containers": deployment("gate", 1)["spec"]["template"]["spec"]["containers"],
            },
            "status": {"conditions": [{"type": "example.com/open", "status": status}]},
        }

    testbed.apply(gated("True"), service("gate"))
    address = entry(testbed, "gate")["cluster_ip"]
    source = testbed.pods["netexec-node1-1"]
    began = testbed.pod("gate")
    assert asking.tcp(source, address, 80).outcome == "answered"
    testbed.apply(gated("False"))
    assert asking.tcp(source, address, 80).outcome == "refused"
    assert testbed.pod("gate") == began
    testbed.apply(gated("True"))
    assert asking.tcp(source, address, 80).outcome == "answered"
    testbed.delete(gated("True"), service("gate"))


def test_endpoints_written_by_hand(testbed: Running) -> None:
    """A Service without selector leads where its EndpointSlices say."""
    where = testbed.pods["netexec-node2-1"]
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "hand-1", "labels": {"kubernetes.io/service-name": "hand"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [str(where.ip)], "nodeName": "node2"}],
    }
    bare = service("hand")
    del bare["spec"]["selector"]
    bare["spec"]["ports"] = [{"name": "http", "port": 80, "targetPort": 8080}]
    testbed.apply(bare, piece)
    source = testbed.pods["netexec-node1-1"]
    address = entry(testbed, "hand")["cluster_ip"]
    assert asking.tcp(source, address, 80).host == "netexec-node2-1"
    testbed.delete(piece)
    assert asking.tcp(source, address, 80).outcome == "refused"
    testbed.delete(bare)


def test_services_survive_a_restart(testbed: Running) -> None:
    """``docker restart`` of a node brings its rules back, without testbed."""
    testbed.apply(deployment("keep", 1), service("keep"))
    address = entry(testbed, "keep")["cluster_ip"]
    testbed.client.api.restart(testbed.container("node1"), timeout=1)
    testbed.check()
    source = testbed.pods["netexec-node1-1"]
    assert asking.tcp(source, address, 80).outcome == "answered"
    assert testbed.apply(service("keep")).is_empty
    testbed.delete(deployment("keep", 1), service("keep"))


def names(testbed: Running) -> list[str]:
    """The Services that there are."""
    return [each["name"] for each in testbed.status()["services"]]


def test_a_killed_command_forgets_nothing(testbed: Running, cli: Cli) -> None:
    """The next one finds all Services, and finishes what the first began."""
    testbed.apply(deployment("old", 1), service("old"))
    documents = [service(f"more-{number:02}") for number in range(40)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("\n---\n".join(json.dumps(each) for each in documents))
        file.flush()
        for delay in (0.25, 0.35, 0.45):
            process = cli.start("apply", "-f", file.name, "--name", testbed.name)
            time.sleep(delay * SLOWNESS)
            process.kill()
            process.communicate()
            assert "old" in names(testbed)
        assert cli("apply", "-f", file.name, "--name", testbed.name).returncode == 0
    assert {"old", "more-00", "more-39"} <= set(names(testbed))
    source = testbed.pods["netexec-node1-1"]
    address = entry(testbed, "old")["cluster_ip"]
    assert asking.tcp(source, address, 80).outcome == "answered"
    testbed.delete(*documents, deployment("old", 1), service("old"))
    assert names(testbed) == []


def test_a_node_that_did_not_run_learns_what_changed(testbed: Running) -> None:
    """It is not asked, and gets everything at the next change; pods wait for all nodes."""
    testbed.apply(service("before"))
    testbed.client.api.stop(testbed.container("node1"), timeout=1)
    testbed.apply(service("during"))
    with pytest.raises(NodeError, match=r"node1 of testbed .* does not run"):
        testbed.apply(deployment("during", 1))
    testbed.client.api.start(testbed.container("node1"))
    assert names(testbed) == ["before", "during"]
    testbed.check()
    testbed.apply(deployment("during", 1), service("after"))
    source = testbed.pods["netexec-node1-1"]
    address = entry(testbed, "during")["cluster_ip"]
    assert asking.tcp(source, address, 80).outcome == "answered"
    testbed.delete(deployment("during", 1), *(service(name) for name in names(testbed)))


def test_applying_again_repairs(testbed: Running) -> None:
    """Rules that somebody removed come back with the same manifests."""
    testbed.apply(deployment("fix", 1), service("fix"))
    source, node = testbed.pods["netexec-node1-1"], testbed.nodes["node1"]
    address = entry(testbed, "fix")["cluster_ip"]
    flush = {
        "iptables": ["iptables", "-t", "nat", "-F", "KUBE-SERVICES"],
        "nftables": ["nft", "flush", "map", "ip", "kube-proxy", "service-ips"],
        "ipvs": ["ipvsadm", "--clear"],
    }
    node.run(*flush[testbed.cluster.proxy])
    assert asking.tcp(source, address, 80).outcome != "answered"
    assert testbed.apply(service("fix")).is_empty
    assert asking.tcp(source, address, 80).outcome == "answered"
    testbed.delete(deployment("fix", 1), service("fix"))
