"""Load balancer addresses from outside: who has them, and what happens when that node is gone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testbed.announce import layer2 as announce
from testbed.node import inventory
from testbed.services.kept import with_services
from testbed.topology.service import Service
from tests.live import asking
from tests.live.conftest import SLOWNESS, Lasting, Running

PODS = {"one": "node1", "two": "node2", "three": "node3"}
_PROBE = """\
while [ ! -e /tmp/enough ]; do
  curl -s -o /dev/null -m 0.25 http://$1/hostname && date +%s.%N || echo failed
  sleep 0.02
done
"""


@pytest.fixture(scope="module")
def layer2(lasting: Lasting) -> Iterator[Running]:
    """Flannel; addresses are announced by ARP."""
    with lasting("load-balancer", "balancer") as found:
        yield found


@pytest.fixture(scope="module")
def bgp(lasting: Lasting) -> Iterator[Running]:
    """Calico; addresses are announced by BGP."""
    with lasting("load-balancer-bgp", "balancer-bgp") as found:
        yield found


def service(testbed: Running, name: str) -> Service:
    """A Service as the nodes keep it, with its address."""
    listings = inventory.containers(testbed.client, testbed.name)
    kept = with_services(testbed.client, testbed.cluster, listings)
    return next(each for each in kept.services if each.name == name)


def until(what: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds * SLOWNESS
    while not what():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.1)


def holders(testbed: Running, address: object) -> list[str]:
    """The nodes on whose uplink an address is."""
    found = []
    for name, node in testbed.nodes.items():
        listed = node.run("ip", "-j", "-4", "address", "show", "eth0", check=False)
        for link in json.loads(listed.stdout or "[]"):
            found += [name for each in link["addr_info"] if each["local"] == str(address)]
    return found


def elected(testbed: Running, found: Service, *nodes: str) -> str:
    """The node that is to have it, once it has, and no other; by default any may be."""
    assert found.load_balancer_ip
    may = [node for node in testbed.cluster.nodes if node.name in (nodes or testbed.nodes)]
    chosen = announce.elected(may, found.load_balancer_ip)[0].name
    until(lambda: holders(testbed, found.load_balancer_ip) == [chosen])
    return chosen


def elsewhere(testbed: Running) -> tuple[Service, str]:
    """A Service with its node, and its only pod on another node; there are six to choose from."""
    for pod, node in PODS.items():
        for letter in "ab":
            found = service(testbed, f"{pod}-{letter}")
            holder = elected(testbed, found)
            if holder != node:
                return found, holder
    pytest.fail("all addresses are on the nodes of their pods")


class Asking:
    """Requests of the client, one after the other, while something happens."""

    def __init__(self, testbed: Running, address: object) -> None:
        self._client = testbed.clients["client"]
        self._client.run("rm", "-f", "/tmp/enough")
        self._answers: list[float] = []
        self.failures = 0
        self._thread = threading.Thread(target=self._ask, args=(str(address),))

    def _ask(self, address: str) -> None:
        done = self._client.run("bash", "-c", _PROBE, "probe", address, seconds=120)
        lines = done.stdout.split()
        self._answers = [float(line) for line in lines if line != "failed"]
        self.failures = lines.count("failed")

    def __enter__(self) -> Asking:
        self._thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.run("touch", "/tmp/enough")
        self._thread.join()

    @property
    def outage(self) -> float:
        """The longest time between two answers."""
        pairs = zip(self._answers, self._answers[1:], strict=False)
        return max(later - earlier for earlier, later in pairs)


def test_one_node_answers_for_an_address(layer2: Running) -> None:
    """Who asks by ARP hears one MAC: that of the node which has the address."""
    client, found = layer2.clients["client"], service(layer2, "one-a")
    holder = elected(layer2, found)
    client.run("ip", "neigh", "flush", "dev", "eth0")
    with layer2.capture("client") as packets:
        assert asking.tcp(client, found.load_balancer_ip, 80).outcome == "answered"
    said = [each.arp for each in packets.arp() if each.arp and each.arp.operation == 2]
    macs = {each.sender_mac for each in said if each.sender == found.load_balancer_ip}
    (link,) = json.loads(layer2.nodes[holder].run("ip", "-j", "link", "show", "eth0").stdout)
    assert macs == {link["address"]}


def test_without_endpoints_nobody_answers(layer2: Running) -> None:
    """A Service that nobody could serve is not announced."""
    assert holders(layer2, service(layer2, "nobody").load_balancer_ip) == []


def test_policy_local_keeps_the_clients_address(layer2: Running) -> None:
    """The node that has the address has an endpoint, which sees who asked."""
    client, found = layer2.clients["client"], service(layer2, "local")
    elected(layer2, found, "node1", "node2")
    answer = asking.tcp(client, found.load_balancer_ip, 80)
    assert (answer.outcome, answer.client) == ("answered", str(client.ip))


def test_health_checks_tell_where_endpoints_are(layer2: Running) -> None:
    """200 with their number where there are some, and 503 elsewhere; kube-proxy itself is well."""
    client, found = layer2.clients["client"], service(layer2, "local")
    seen = {}
    for name, node in layer2.nodes.items():
        url = f"http://{node.ip}:{found.health_check_node_port}/"
        done = client.run("curl", "-s", "-w", "\\n%{http_code}", url)
        body, _, code = done.stdout.rpartition("\n")
        assert json.loads(body)["service"] == {"namespace": "default", "name": "local"}
        seen[name] = (int(code), json.loads(body)["localEndpoints"])
        healthy = client.run("curl", "-sf", f"http://{node.ip}:10256/healthz")
        assert json.loads(healthy.stdout)["nodeEligible"]
    assert seen == {"node1": (200, 1), "node2": (200, 1), "node3": (503, 0)}


@pytest.mark.parametrize(("how", "most"), [("kill", 2.5), ("stop", 1.5)])
def test_another_node_takes_over(layer2: Running, client: Any, how: str, most: float) -> None:
    """Within VRRP's three advertisements, by gratuitous ARP; and the elected gets it back."""
    found, holder = elsewhere(layer2)
    address, container = found.load_balancer_ip, layer2.container(holder)
    try:
        with layer2.capture("client", filter="arp") as packets, Asking(layer2, address) as asked:
            getattr(client.api, how)(container)
            time.sleep(3 * SLOWNESS)
        print(f"outage: {round(asked.outage, 2)} s, failures: {asked.failures}")
        assert asked.outage < most * SLOWNESS
        gratuitous = [
            each.arp
            for each in packets.arp()
            if each.arp and each.arp.sender == each.arp.target == address
        ]
        assert gratuitous
    finally:
        client.api.start(container)
        layer2.refresh()
    until(lambda: holders(layer2, address) == [holder], 30)
    assert asking.tcp(layer2.clients["client"], address, 80).outcome == "answered"


def test_another_process_with_the_old_id_stops_nobody(layer2: Running, client: Any) -> None:
    """PID files do not outlive a boot: the first start of keepalived is the only one."""
    pids = "/run/testbed/announce/keepalived.pid"
    container = layer2.container("node1")
    try:
        layer2.nodes["node1"].run("sh", "-c", f"echo 1 >{pids}")
        client.api.kill(container)
    finally:
        client.api.start(container)
        layer2.refresh()
    until(lambda: [each["state"] for each in daemons(layer2, "keepalived")] == ["running"] * 3)
    assert [each["restarts"] for each in daemons(layer2, "keepalived")] == [0] * 3


LATER = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "later"},
    "spec": {"type": "LoadBalancer", "selector": {"app": "one"}, "ports": [{"port": 80}]},
}


def test_a_later_service_is_announced_and_withdrawn(layer2: Running) -> None:
    """keepalived takes and releases addresses while it runs, and keeps the others."""
    other = service(layer2, "one-a")
    began = daemons(layer2, "keepalived")
    layer2.apply(LATER)
    found = service(layer2, "later")
    elected(layer2, found)
    layer2.delete(LATER)
    until(lambda: holders(layer2, found.load_balancer_ip) == [])
    elected(layer2, other)
    assert daemons(layer2, "keepalived") == began


def daemons(testbed: Running, name: str) -> list[dict[str, Any]]:
    """What every node tells of a daemon."""
    words = ("testbed-agent", "process", "list")
    said = [node.run(*words).stdout.splitlines() for node in testbed.nodes.values()]
    rows = [json.loads(line) for lines in said for line in lines]
    return [row for row in rows if row["name"] == name]


def test_bgp_announces_and_withdraws_a_later_service(bgp: Running) -> None:
    """BIRD reads its routes again; its sessions stay."""
    bgp.apply(LATER)
    address = service(bgp, "later").load_balancer_ip
    until(lambda: len(routes(bgp, address)) == 3)
    bgp.delete(LATER)
    until(lambda: not routes(bgp, address))


def routes(testbed: Running, address: object) -> set[str]:
    """The next hops of the client's route to an address, as names of nodes."""
    text = testbed.clients["client"].run("ip", "-j", "route", "show", f"{address}/32").stdout
    names = {str(node.ip): name for name, node in testbed.nodes.items()}
    hops = [hop for row in json.loads(text) for hop in row.get("nexthops", [row])]
    return {names[hop["gateway"]] for hop in hops}


def test_bgp_spreads_over_nodes(bgp: Running) -> None:
    """Every node has a route to it under policy Cluster; under Local, those with endpoints do."""
    until(lambda: len(routes(bgp, service(bgp, "one-a").load_balancer_ip)) == 3)
    assert routes(bgp, service(bgp, "local").load_balancer_ip) == {"node1", "node2"}
    assert routes(bgp, service(bgp, "nobody").load_balancer_ip) == set()


def test_bgp_policy_local_keeps_the_clients_address(bgp: Running) -> None:
    """Whichever way a connection takes, its endpoint sees who asked."""
    client, address = bgp.clients["client"], service(bgp, "local").load_balancer_ip
    answers = [asking.tcp(client, address, 80) for _ in range(20)]
    assert {each.client for each in answers} == {str(client.ip)}
    assert {each.host for each in answers} == {"one", "two"}


def test_bgp_nodes_reach_it_themselves(bgp: Running) -> None:
    """BIRD's blackhole is not in the kernel, so that packets of nodes and pods are translated."""
    address = service(bgp, "one-a").load_balancer_ip
    for source in (bgp.nodes["node1"], bgp.nodes["node3"], bgp.pods["two"]):
        assert asking.tcp(source, address, 80).host == "one"


@pytest.mark.parametrize(("how", "most"), [("kill", 2), ("stop", 2), ("pause", 5)])
def test_bgp_goes_around_a_dead_node(bgp: Running, client: Any, how: str, most: float) -> None:
    """Where its session ends, routes go at once; where it is only silent, after the hold time."""
    address, container = service(bgp, "one-a").load_balancer_ip, bgp.container("node3")
    until(lambda: len(routes(bgp, address)) == 3, 30)
    try:
        with Asking(bgp, address) as asked:
            began = time.monotonic()
            getattr(client.api, how)(container)
            left = {str(bgp.nodes[name].ip) for name in ("node1", "node2")}
            until(lambda: hops(bgp, address) == left)
            print(f"withdrawn: {round(time.monotonic() - began, 2)} s")
            time.sleep(1)
        print(f"outage: {round(asked.outage, 2)} s, failures: {asked.failures}")
        assert asked.outage < most * SLOWNESS
    finally:
        (client.api.unpause if how == "pause" else client.api.start)(container)
        bgp.refresh()
    until(lambda: len(routes(bgp, address)) == 3, 30)


def hops(testbed: Running, address: object) -> set[str]:
    """The next hops of the client's route, also while nodes do not run."""
    text = testbed.clients["client"].run("ip", "-j", "route", "show", f"{address}/32").stdout
    return {hop["gateway"] for row in json.loads(text) for hop in row.get("nexthops", [row])}
