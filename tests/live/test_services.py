"""Services on the wire, for every mode of kube-proxy, on flannel and on Calico.

What an endpoint sees as its client is the table of kube-proxy's documentation and of everybody who
has debugged it: masqueraded to the address of the interface towards the endpoint, or untouched.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from testbed.dataplane.features import Features
from tests.live import asking
from tests.live.asking import Addresses, Answer
from tests.live.conftest import SLOWNESS, Lasting, Running

CASES = [
    pytest.param((cni, mode), id=f"{cni}-{mode}")
    for cni in ("flannel", "calico")
    for mode in ("iptables", "nftables", "ipvs")
]
HTTP, UDP = 80, 90


class Served(NamedTuple):
    """A testbed with Services."""

    testbed: Running
    mode: str
    cni: str
    whose: Addresses

    def service(self, name: str) -> dict[str, Any]:
        """A Service's entry of ``status -o json``."""
        return next(each for each in self.testbed.status()["services"] if each["name"] == name)

    def ask(self, source: str, address: object, port: int, *options: str) -> Answer:
        """Ask over TCP; the answer's client by its name."""
        return self.named(asking.tcp(self.place(source), address, port, *options))

    def ask_udp(self, source: str, address: object, port: int) -> Answer:
        """The same over UDP."""
        return self.named(asking.udp(self.place(source), address, port))

    def place(self, name: str) -> Any:
        """A node, a client or a pod."""
        testbed = self.testbed
        for known in (testbed.nodes, testbed.clients):
            if name in known:
                return known[name]
        return testbed.pods[name]

    def named(self, answer: Answer) -> Answer:
        """With the name of whose address it is that the endpoint saw."""
        return Answer(answer.outcome, answer.host, self.whose.get(answer.client, answer.client))

    def cluster_ip(self, name: str) -> str:
        """A Service's own address."""
        return str(self.service(name)["cluster_ip"])

    def node_port(self, name: str, port: str = "http") -> int:
        """What a Service's port is on every node."""
        ports = self.service(name)["ports"]
        return int(next(each["node_port"] for each in ports if each["name"] == port))

    def masqueraded(self, node: str, pod: str) -> str:
        """Whose address a node takes towards a pod."""
        testbed = self.testbed
        return self.whose[asking.towards(testbed.nodes[node], testbed.pods[pod].ip)]


@pytest.fixture(scope="module", params=CASES)
def served(request: pytest.FixtureRequest, lasting: Lasting, able: Features) -> Iterator[Served]:
    """Three nodes, a client outside, and every kind of Service."""
    cni, mode = request.param
    if mode == "ipvs" and not able.ip_vs:
        pytest.skip("this kernel has no ip_vs")
    with lasting(f"services-{cni}", f"svc-{cni}-{mode}", proxy=mode) as testbed:
        testbed.clients["client"].run(
            *("ip", "route", "add", str(testbed.cluster.service_cidr)),
            *("via", str(testbed.nodes["node1"].ip)),
        )
        for node in testbed.nodes.values():  # a kernel tells the same peer so much only each second
            node.run("sysctl", "-w", "net.ipv4.icmp_ratelimit=0")
        yield Served(testbed, mode, cni, Addresses(testbed))


def row(
    name: str, source: str, where: Callable[[Served], tuple[object, int]], host: str, seen: str
) -> Any:
    """A row of the table; ``seen`` is whom the endpoint sees: a name, or :data:`MASQUERADED`."""
    return pytest.param(source, where, host, seen, id=name)


def at_service(name: str) -> Callable[[Served], tuple[object, int]]:
    """Its cluster IP."""
    return lambda served: (served.cluster_ip(name), HTTP)


def at_node(node: str, name: str) -> Callable[[Served], tuple[object, int]]:
    """Its port on a node."""
    return lambda served: (served.testbed.nodes[node].ip, served.node_port(name))


MASQUERADED = "masqueraded"
"""The request reaches the endpoint from the address of node1's interface towards it."""

TABLE = [
    row(
        "pod-to-pod",
        "caller",
        lambda served: (served.testbed.pods["far"].ip, 8080),
        "far",
        "caller",
    ),
    row("pod-to-cluster-ip-elsewhere", "caller", at_service("far"), "far", "caller"),
    row("node-to-cluster-ip-elsewhere", "node1", at_service("far"), "far", MASQUERADED),
    row("outside-to-node-port-elsewhere", "client", at_node("node1", "far"), "far", MASQUERADED),
    row("outside-to-cluster-ip", "client", at_service("far"), "far", MASQUERADED),
    row("pod-to-own-nodes-node-port", "caller", at_node("node1", "far"), "far", MASQUERADED),
    row("outside-to-node-port-here", "client", at_node("node1", "near"), "near", MASQUERADED),
    row("hairpin", "caller", at_service("itself"), "caller", MASQUERADED),
    row("pod-to-neighbour", "caller", at_service("near"), "near", "caller"),
    row("node-to-cluster-ip-here", "node1", at_service("near"), "near", MASQUERADED),
    row(
        "pod-to-another-nodes-address",
        "caller",
        lambda served: (served.testbed.nodes["node2"].ip, 8080),
        "",
        "",
    ),
    row("outside-local-policy", "client", at_node("node1", "local"), "near", "client"),
]


@pytest.mark.parametrize(("source", "where", "host", "seen"), TABLE)
def test_what_an_endpoint_sees_as_its_client(
    served: Served,
    source: str,
    where: Callable[[Served], tuple[object, int]],
    host: str,
    seen: str,
) -> None:
    """Every row of the table, over TCP."""
    address, port = where(served)
    answer = served.ask(source, address, port)
    if not host:  # nobody listens there: it is the node that must see who asks, not an endpoint
        with served.testbed.capture("node2") as packets:
            assert served.ask(source, address, port).outcome == "refused"
        opened = [each for each in packets if each.tcp and each.tcp.flags == "S"]
        assert {served.whose[str(each.source)] for each in opened} == {"node1"}
        return
    expected = served.masqueraded("node1", host) if seen == MASQUERADED else seen
    assert answer == Answer("answered", host, expected)


@pytest.mark.parametrize("source", ["caller", "near", "node1", "node3", "client"])
@pytest.mark.parametrize("name", ["far", "near"])
def test_udp(served: Served, source: str, name: str) -> None:
    """UDP goes the ways of TCP: to a cluster IP, and to a node port."""
    address, port = served.cluster_ip(name), UDP
    answers = [served.ask_udp(source, address, port)]
    answers.append(
        served.ask_udp(source, served.testbed.nodes["node1"].ip, served.node_port(name, "udp"))
    )
    assert {(each.outcome, each.host) for each in answers} == {("answered", name)}


@pytest.mark.parametrize("node", ["node1", "node2", "node3"])
def test_node_ports_are_on_every_node(served: Served, node: str) -> None:
    """Wherever the endpoint is."""
    answer = served.ask("client", served.testbed.nodes[node].ip, served.node_port("far"))
    assert (answer.outcome, answer.host) == ("answered", "far")


def test_node_port_on_localhost(served: Served) -> None:
    """Only with iptables, where ``route_localnet`` lets it out."""
    answer = served.ask("node1", "127.0.0.1", served.node_port("near"))
    if served.mode == "iptables":
        assert answer == Answer("answered", "near", served.masqueraded("node1", "near"))
    else:
        assert answer.outcome == "refused"


@pytest.mark.parametrize("source", ["caller", "node1", "client"])
@pytest.mark.parametrize("name", ["empty", "waiting"])
def test_no_endpoints(served: Served, source: str, name: str) -> None:
    """Nobody, or nobody who is ready: refused at once, by ICMP."""
    tcp = served.ask(source, served.cluster_ip(name), HTTP)
    udp = served.ask_udp(source, served.cluster_ip(name), UDP)
    assert {tcp.outcome, udp.outcome} == {"refused"}
    if name == "empty":
        node = served.testbed.nodes["node1"].ip
        assert served.ask(source, node, served.node_port(name)).outcome == "refused"


def test_not_ready_addresses_are_published_where_wanted(served: Served) -> None:
    """``publishNotReadyAddresses`` gives traffic to a pod that is not ready."""
    assert served.ask("caller", served.cluster_ip("early"), HTTP).host == "gated"


def test_local_policies_without_a_local_endpoint(served: Served) -> None:
    """Dropped, where another node would have answered; there it is answered."""
    outside = {
        node: served.ask("client", served.testbed.nodes[node].ip, served.node_port("local")).outcome
        for node in ("node1", "node2", "node3")
    }
    assert (outside["node1"], outside["node2"]) == ("answered", "answered")
    if served.mode != "ipvs":  # which falls back to the endpoints of other nodes
        assert outside["node3"] == "silence"
    inside = {
        source: served.ask(source, served.cluster_ip("inside"), HTTP)
        for source in ("caller", "third")
    }
    assert inside["caller"].host == "near"
    # With ipvs there is a virtual server without servers, and a rule that refuses.
    assert inside["third"].outcome == ("refused" if served.mode == "ipvs" else "silence")


def test_pods_reach_local_only_services_everywhere(served: Served) -> None:
    """Within the cluster, externalTrafficPolicy counts nothing: not by the node port, either."""
    third = served.testbed.nodes["node3"].ip
    assert served.ask("third", served.cluster_ip("local"), HTTP).outcome == "answered"
    assert served.ask("third", third, served.node_port("local")).outcome == "answered"
    assert served.ask("node3", third, served.node_port("local")).outcome == "answered"


def test_unused_port_of_a_cluster_ip(served: Served) -> None:
    """nftables refuses it; with iptables it goes towards the default route; ipvs is the host's."""
    outcome = served.ask("caller", served.cluster_ip("far"), 81).outcome
    wanted = {"iptables": "silence", "nftables": "refused", "ipvs": "refused"}
    if served.mode == "iptables":
        assert outcome in ("silence", "exit code 7", "refused")
        assert not _arrived_anywhere(served)
    else:
        assert outcome == wanted[served.mode]


def _arrived_anywhere(served: Served) -> bool:
    """Whether a packet to an unused port of a cluster IP reaches another node."""
    with served.testbed.capture("node2", "node3") as packets:
        served.ask("caller", served.cluster_ip("far"), 81)
        served.place("client").ping(served.testbed.nodes["node2"])
    assert packets, "the capture saw nothing at all"
    return any(str(each.innermost.destination) == served.cluster_ip("far") for each in packets)


def test_ping_to_a_cluster_ip(served: Served) -> None:
    """Nobody answers; with ipvs the address is the node's own, but rules refuse it since 1.27."""
    ping = ("ping", "-c", "1", "-W", "1")
    assert served.place("caller").run(*ping, str(served.testbed.pods["far"].ip)).code == 0
    done = served.place("caller").run(*ping, served.cluster_ip("far"), check=False)
    assert done.code == 1
    assert ("Unreachable" in done.stdout) == (served.mode != "iptables")


def test_external_ips(served: Served) -> None:
    """Whoever routes that address to a node is served, masqueraded."""
    client = served.place("client")
    client.run(
        "ip", "route", "replace", "198.51.100.7", "via", str(served.testbed.nodes["node1"].ip)
    )
    assert served.ask("client", "198.51.100.7", HTTP) == Answer(
        "answered", "far", served.masqueraded("node1", "far")
    )
    assert served.ask("caller", "198.51.100.7", HTTP).host == "far"


def test_source_ranges(served: Served) -> None:
    """A load balancer's address answers its source ranges only, and pods as any other client."""
    address = served.service("fenced")["load_balancer_ip"]
    client = served.place("client")
    assert served.ask("client", address, HTTP).outcome == "silence"
    client.run("ip", "address", "add", "203.0.113.9/32", "dev", "lo")
    try:
        for node in served.testbed.nodes.values():
            node.run("ip", "route", "add", "203.0.113.9", "via", str(client.ip))
        inside = served.ask("client", address, HTTP, "--interface", "203.0.113.9")
        assert (inside.outcome, inside.host) == ("answered", "far")
    finally:
        client.run("ip", "address", "delete", "203.0.113.9/32", "dev", "lo")
        for node in served.testbed.nodes.values():
            node.run("ip", "route", "delete", "203.0.113.9")


def test_load_balancer(served: Served) -> None:
    """The client is masqueraded under policy Cluster and seen as it is under Local."""
    balanced = served.ask("client", served.service("balanced")["load_balancer_ip"], HTTP)
    assert (balanced.outcome, balanced.host) == ("answered", "far")
    assert balanced.client != "client"
    kept = served.ask("client", served.service("kept")["load_balancer_ip"], HTTP)
    assert (kept.outcome, kept.client) == ("answered", "client")


def test_three_endpoints_share_alike(served: Served) -> None:
    """3,000 connections from a pod; chi-square with two degrees of freedom, p > 0.001."""
    count = 3000 if SLOWNESS == 1 else 600
    counts = _dialled(served, "caller", served.cluster_ip("web"), HTTP, count)
    assert set(counts) == {"web-1", "web-2", "web-3"}
    assert sum(counts.values()) == count
    expected = count / 3
    if served.mode == "ipvs":
        assert max(counts.values()) - min(counts.values()) <= 1  # round robin
    assert sum((each - expected) ** 2 / expected for each in counts.values()) < 13.82


def test_affinity_sticks(served: Served) -> None:
    """One client, one endpoint; several clients are spread over several."""
    address = served.cluster_ip("sticky")
    each = {
        source: set(_dialled(served, source, address, HTTP, 20))
        for source in ("caller", "near", "far", "third", "web-1", "web-2")
    }
    assert all(len(hosts) == 1 for hosts in each.values()), each


def _dialled(served: Served, source: str, address: str, port: int, count: int) -> Counter[str]:
    """Let a pod's netexec connect so often, one after the other; who answered how often."""
    found: Counter[str] = Counter()
    url = "http://127.0.0.1:8080/dial?host={}&port={}&request=hostname&protocol=http&tries={}"
    while (left := count - sum(found.values())) > 0:
        words = ["curl", "-s", "-m", str(60 * SLOWNESS), url.format(address, port, min(left, 500))]
        answer = json.loads(served.place(source).run(*words, seconds=90 * SLOWNESS).stdout)
        assert not answer.get("errors"), answer["errors"][:3]
        found.update(answer["responses"])
    return found


def test_no_cluster_ip_on_the_wire(served: Served) -> None:
    """Behind node1, nobody sees the Service's address; the reply is translated back only there."""
    address = served.cluster_ip("far")
    with served.testbed.capture("caller", "node1", "node2", "far") as packets:
        assert served.ask("caller", address, HTTP).host == "far"
    ends = {
        place: {
            str(end)
            for each in packets
            if str(each.interface).startswith(place)
            for end in (each.innermost.source, each.innermost.destination)
        }
        for place in ("default/caller", "node1", "node2", "default/far")
    }
    assert address in ends["default/caller"]
    far = str(served.testbed.pods["far"].ip)
    assert far not in ends["default/caller"]
    assert all(far in ends[place] and address not in ends[place] for place in ("node2", "node1"))
    assert address not in ends["default/far"]


def test_headless_services_have_no_rules(served: Served) -> None:
    """They are names for endpoints and nothing else."""
    entry = served.service("headless")
    assert entry["cluster_ip"] == "None"
    assert {each["pod"] for each in entry["endpoints"]} == {
        "default/web-1",
        "default/web-2",
        "default/web-3",
    }
