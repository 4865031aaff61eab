"""What survives what: containers, pause, nodes, the agent's sync."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from testbed import existing, lifecycle
from tests.live.conftest import Lasting, Running, quiet

POD = "netexec-node1-1"


@pytest.fixture(scope="module")
def pair(lasting: Lasting) -> Iterator[Running]:
    """Two nodes with two pods each, which these tests restart."""
    with lasting("flannel", name="restarts", nodes=2) as found:
        yield found


def eventually(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """The first true value of ``condition``; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {condition.__doc__ or condition}")


def running(live: Running, pod: str = POD) -> dict[str, Any] | None:
    """The pod's status, once it runs."""
    status = live.pod(pod)
    return status if status["state"] == "Running" and status["ip"] else None


def process(live: Running, node: str, pattern: str) -> set[str]:
    """PIDs on a node whose command line matches."""
    return set(live.host(node).run(f"pgrep -f '{pattern}'").stdout.split())


def reachable(live: Running) -> bool:
    """The whole check passes."""
    return lifecycle.check(live.client, live.name).report.ok


def test_a_killed_container_restarts_and_its_pod_keeps_its_address(pair: Running) -> None:
    """The sandbox holds the address while containers come and go."""
    before = pair.pod(POD)
    pid = pair.host(POD).check_output("echo $PPID; cat /proc/1/comm").split()
    assert pid[1] == "netexec"
    node = pair.host("node1")
    victims = node.check_output("pgrep -x netexec").split()
    pauses = process(pair, "node1", "^/pause$")
    node.check_output(f"kill -9 {' '.join(victims)}")
    eventually(lambda: (running(pair) or {}).get("restarts", 0) > before["restarts"])
    eventually(lambda: running(pair))
    assert pair.pod(POD)["ip"] == before["ip"]
    assert process(pair, "node1", "^/pause$") == pauses
    assert eventually(lambda: reachable(pair))


def test_a_killed_pause_makes_a_new_sandbox(pair: Running) -> None:
    """New namespaces and, as with a real runtime, a new address; nothing of the old one stays."""
    before = {pod["name"]: pod["ip"] for pod in existing.status(pair.client, pair.name)["pods"]}
    node = pair.host("node1")
    old = set(node.file("/var/run/netns").listdir())
    pauses = process(pair, "node1", "^/pause$")
    node.check_output(f"kill -9 {sorted(pauses)[0]}")

    def anew() -> bool:
        """A new pause runs and every pod is back."""
        now = process(pair, "node1", "^/pause$")
        states = existing.status(pair.client, pair.name)["pods"]
        return len(now) == 2 and now != pauses and all(pod["state"] == "Running" for pod in states)

    eventually(anew)
    after = {pod["name"]: pod["ip"] for pod in existing.status(pair.client, pair.name)["pods"]}
    assert len([name for name in before if before[name] != after[name]]) == 1
    pinned = set(node.file("/var/run/netns").listdir())
    assert len(pinned) == 2
    assert len(pinned & old) == 1
    assert len([n for n in node.file("/var/lib/cni/networks/cbr0").listdir() if n[0] == "1"]) == 2
    assert eventually(lambda: reachable(pair))


def test_docker_restart_brings_everything_back(pair: Running) -> None:
    """Without testbed: the same pods, the same addresses, the same network."""
    before = existing.status(pair.client, pair.name)
    started = time.monotonic()
    pair.client.api.restart(pair.container("node1"), timeout=10)
    assert time.monotonic() - started < 5
    eventually(lambda: existing.status(pair.client, pair.name)["state"] == "ready")
    after = existing.status(pair.client, pair.name)
    assert after["nodes"] == before["nodes"]
    assert [(p["name"], p["ip"]) for p in after["pods"]] == [
        (p["name"], p["ip"]) for p in before["pods"]
    ]
    assert eventually(lambda: reachable(pair))
    assert len(pair.host("node1").file("/var/run/netns").listdir()) == 2


def test_a_second_sync_changes_nothing_and_loses_no_packet(pair: Running) -> None:
    """200 pings during three syncs of both nodes."""
    target = pair.ip("netexec-node2-1")
    host = pair.host(POD)
    host.check_output(
        f"(ping -n -q -c 200 -i 0.01 -W 1 {target} >/tmp/pings 2>&1; echo done >>/tmp/pings) "
        ">/dev/null 2>&1 &"
    )
    said: list[tuple[str, str, str]] = []
    for _ in range(3):
        lifecycle.up(pair.cluster, pair.client, lambda *words: said.append(words))
    pings = eventually(
        lambda: (lambda text: text if "done" in text else "")(host.check_output("cat /tmp/pings"))
    )
    assert "200 packets transmitted, 200 received" in pings
    synced = [words for words in said if words[1] == "ready"]
    assert len(synced) == 6
    assert {words[2] for words in synced} == {"nothing to change"}


def test_nodes_come_and_go_without_touching_the_others(pair: Running) -> None:
    """A third node is added and removed; the pods of the first two are the same processes."""
    from tests.live.conftest import bring_up

    pauses = {node: process(pair, node, "^/pause$") for node in ("node1", "node2")}
    more = bring_up(pair.client, "flannel", name=pair.name, nodes=3)
    assert more.outcome.report.ok, more.outcome.report.failures
    assert "10.244.2.0/24" in pair.host("node1").check_output("ip route")
    fewer = lifecycle.up(pair.cluster, pair.client, quiet)
    assert fewer.report.ok, fewer.report.failures
    assert "10.244.2.0/24" not in pair.host("node1").check_output("ip route")
    assert {node: process(pair, node, "^/pause$") for node in pauses} == pauses


def test_a_spec_that_changes_while_its_node_is_stopped(make: Callable[..., Running]) -> None:
    """Files of the older spec are removed at the next boot: the applied spec is remembered."""
    from tests.live.conftest import bring_up

    live = make("flannel", nodes=2, pods_per_node=1)
    live.client.api.stop(live.container("node1"), timeout=5)
    kept = live.client.api.inspect_container(live.container("node1"))["Id"]
    direct = "flannel-direct-routing"
    again = bring_up(live.client, direct, name=live.name, nodes=2, pods_per_node=1)
    assert again.outcome.report.ok, again.outcome.report.failures
    assert live.client.api.inspect_container(live.container("node1"))["Id"] == kept
    for node in ("node1", "node2"):
        native = again.host(node).file("/etc/testbed/native").listdir()
        assert sorted(native) == [
            "01-link.ip",
            "02-address.ip",
            "03-route.ip",
            "04-kubelet.iptables",
            "05-kube-proxy.iptables",
            "06-flannel.iptables",
        ]


def test_what_pods_are_attached_by_makes_nodes_anew(make: Callable[..., Running]) -> None:
    """Another MTU or CIDR reaches bridge and pods, which do not follow by themselves."""
    from tests.live.conftest import bring_up

    live = make("flannel", nodes=2, pods_per_node=1)
    assert " mtu 1450 " in live.host("netexec-node1-1").check_output("ip link show eth0")
    again = bring_up(live.client, "flannel-host-gw", name=live.name, nodes=2, pods_per_node=1)
    assert again.outcome.report.ok, again.outcome.report.failures
    assert " mtu 1500 " in again.host("netexec-node1-1").check_output("ip link show eth0")
    moved = replace(
        again.cluster,
        cluster_cidr=IPv4Network("10.250.0.0/16"),
        nodes=tuple(
            replace(node, pod_cidrs=(IPv4Network(f"10.250.{node.index}.0/24"),))
            for node in again.cluster.nodes
        ),
    )
    outcome = lifecycle.up(moved, live.client, quiet)
    assert outcome.report.ok, outcome.report.failures
    assert {pod["ip"] for pod in outcome.status["pods"]} == {"10.250.0.2", "10.250.1.2"}


def test_a_network_that_was_removed_is_made_again(make: Callable[..., Running]) -> None:
    """``docker network prune`` while the nodes are stopped."""
    live = make("flannel", nodes=2, pods_per_node=1)
    for node in ("node1", "node2"):
        live.client.api.stop(live.container(node), timeout=5)
    live.client.api.remove_network(f"testbed-{live.name}")
    outcome = lifecycle.up(live.cluster, live.client, quiet)
    assert outcome.report.ok, outcome.report.failures


def test_a_check_of_what_does_not_answer_is_a_finding(make: Callable[..., Running]) -> None:
    """A paused node and one without tcpdump: the others are checked all the same."""
    live = make("flannel", nodes=3, pods_per_node=1)
    live.client.api.pause(live.container("node3"))
    live.host("node2").check_output("mv /usr/bin/tcpdump /usr/bin/tcpdump.away")
    outcome = lifecycle.check(live.client, live.name)
    details = {f.target: f.detail for f in outcome.report.failures if f.kind == "node"}
    assert details["node3"] == "the node is not running"
    assert "tcpdump did not start" in details["node2"]
    assert "Traceback" not in details["node2"]
    assert "node1" not in details
    assert existing.status(live.client, live.name)["nodes"][2]["state"] == "paused"
    live.host("node2").check_output("mv /usr/bin/tcpdump.away /usr/bin/tcpdump")
    assert lifecycle.up(live.cluster, live.client, quiet).report.ok


def test_a_pod_that_has_done_its_work_is_no_failure(
    make: Callable[..., Running], tmp_path: Path
) -> None:
    """``restartPolicy: Never`` and exit code 0: Succeeded, and the check does not ask it."""
    path = tmp_path / "job.yaml"
    path.write_text(
        "x-testbed:\n  cni: flannel\n  default_pods: 1\n  manifests:\n"
        "    - apiVersion: v1\n      kind: Pod\n      metadata: {name: job}\n"
        "      spec:\n        nodeName: node1\n        restartPolicy: Never\n"
        "        containers: [{name: c, image: busybox, command: [echo, done]}]\n"
        "services: {node1: {image: testbed-node}, node2: {image: testbed-node}}\n"
    )
    live = make(str(path))
    eventually(lambda: live.pod("job")["state"] == "Succeeded")
    outcome = lifecycle.check(live.client, live.name)
    assert outcome.report.ok, outcome.report.failures
    assert outcome.report.counts()["wire"] == (2, 2)
    assert lifecycle.up(live.cluster, live.client, quiet).report.ok


def test_pods_come_and_go(pair: Running) -> None:
    """A topology without a pod removes its sandbox, lease and cache; the other stays."""
    without = replace(pair.cluster, pods=tuple(pod for pod in pair.cluster.pods if pod.name != POD))
    kept = running(pair, "netexec-node1-2")
    assert lifecycle.up(without, pair.client, quiet).report.ok
    node = pair.host("node1")
    assert len(node.file("/var/run/netns").listdir()) == 1
    assert running(pair, "netexec-node1-2") == kept
    caches = node.check_output("ls /var/lib/cni/results")
    assert len([name for name in caches.split() if name.endswith("-eth0")]) == 1
    assert lifecycle.up(pair.cluster, pair.client, quiet).report.ok
    assert len(node.file("/var/run/netns").listdir()) == 2


def test_what_testbed_did_not_install_is_left_alone(pair: Running) -> None:
    """A route, a rule and a neighbour of the user's survive a sync."""
    host = pair.host("node1")
    host.check_output(
        "ip route add 198.51.100.0/24 dev flannel.1; "
        "iptables -A FLANNEL-FWD -s 198.51.100.0/24 -j DROP; "
        "iptables -N MINE; iptables -A FORWARD -j MINE"
    )
    lifecycle.up(pair.cluster, pair.client, quiet)
    assert "198.51.100.0/24" in host.check_output("ip route")
    assert "-A FORWARD -j MINE" in host.check_output("iptables -S FORWARD")
    # A rule inside testbed's own chain is not the user's: the chain is put right.
    assert "198.51.100.0" not in host.check_output("iptables -S FLANNEL-FWD")
    host.check_output("ip route del 198.51.100.0/24; iptables -D FORWARD -j MINE; iptables -X MINE")
