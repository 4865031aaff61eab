"""Tracing to Services from outside: node ports, load balancers, external IPs, and their breaking.

A client on the underlay asks, and so do pods and nodes, which reach the same addresses another way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testbed.dataplane.features import Features
from testbed.verify.trace.model import Trace
from tests.live.conftest import Cli, Lasting, Running
from tests.live.walks import (
    NODE1,
    Rules,
    after_dnat,
    announcer,
    asked,
    broken,
    on,
    seen,
    service,
    told,
    trace,
    wanted,
)

CASES = [(cni, mode) for cni in ("flannel", "calico") for mode in ("iptables", "nftables", "ipvs")]
CALLER, CLIENT = "caller", "client"


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def cluster(lasting: Lasting, able: Features, request: pytest.FixtureRequest) -> Iterator[Running]:
    """Three nodes with Services and a client, the same for all traces of one mode."""
    cni, mode = request.param
    if mode == "ipvs" and not able.ip_vs:
        pytest.skip("this kernel has no ip_vs")
    with lasting(f"services-{cni}", f"trace-out-{cni}-{mode}", proxy=mode) as found:
        for node in found.nodes:
            on(found, node, "sysctl -w net.ipv4.icmp_ratelimit=0")
        via = found.nodes["node3"].ip
        on(found, CLIENT, f"ip route add {service(found, 'outside').external_ips[0]} via {via}")
        yield found


WAYS = [
    (CLIENT, "svc/balanced", "load-balancer", "", "far"),
    (CLIENT, "balancer of balanced", "load-balancer", "", "far"),
    (CLIENT, "svc/kept", "load-balancer", "", ""),
    (CLIENT, "svc/outside", "external-ip", "node3", "far"),
    (CLIENT, "far at node1", "node-port", "node1", "far"),
    (CLIENT, "far at node2", "node-port", "node2", "far"),
    (CLIENT, "local at node1", "node-port", "node1", "near"),
    (CALLER, "balancer of balanced", "load-balancer", "node1", "far"),
    (CALLER, "balancer of kept", "load-balancer", "node1", ""),
    (CALLER, "near at node1", "node-port", "node1", "near"),
    (CALLER, "far at node2", "node-port", "node2", "far"),
    (CALLER, "near at node2", "node-port", "node2", "near"),
    (CALLER, "far at node3", "node-port", "node3", "far"),
    ("third", "local at node3", "node-port", "node3", ""),
    (NODE1, "balancer of balanced", "load-balancer", "node1", "far"),
    (NODE1, "balancer of kept", "load-balancer", "node1", ""),
    (NODE1, "near at node1", "node-port", "node1", "near"),
    (NODE1, "near at node3", "node-port", "node3", "near"),
    (NODE1, "local at node2", "node-port", "node2", "far"),
]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("source", "target", "kind", "entered", "place"), WAYS, ids=lambda each: each or "any"
)
def test_a_service_is_walked_through_the_node_that_translates(
    cluster: Running,
    source: str,
    target: str,
    kind: str,
    entered: str,
    place: str,
    protocol: str,
) -> None:
    """No hop missing there and back, DNAT and its undoing on that node, its conntrack entry."""
    where, probe = asked(cluster, target, protocol)
    found = trace(cluster, source, where, **probe)
    assert found.ok, (found.error, found.diagnosis, seen(found), wanted(found))
    assert seen(found) == wanted(found)
    served = found.service
    assert served is not None
    assert served.chosen is not None
    assert served.kind == kind
    assert served.entered == (entered or served.entered)
    assert not place or found.target.place == f"default/{place}"
    changes = told(found)
    address, endpoint = served.address, str(served.chosen)
    at_home = {served.entered, found.source.place if found.source.node == served.entered else ""}
    for words in (f"DNATed {address} to {endpoint}", f"DNAT reversed {endpoint} to {address}"):
        (done,) = [each for each in changes if words in each]
        assert done.partition(": ")[0] in at_home
    (entry,) = found.conntrack
    assert f"dst={served.ip} " in entry
    assert f"src={found.target.ip} " in entry


def masqueraded(found: Trace) -> bool:
    """Whether the endpoint saw another client than the one that asked."""
    last = found.request.observed[-1].event.packet
    return str(last.source) != found.source.ip


@pytest.mark.parametrize(
    ("source", "target", "changed"),
    [
        (CLIENT, "svc/balanced", True),
        (CLIENT, "svc/kept", False),
        (CLIENT, "local at node2", False),
        (CALLER, "balancer of balanced", True),
        (CALLER, "balancer of kept", False),
        (CALLER, "svc/balanced", False),
    ],
)
def test_policy_local_keeps_the_senders_address(
    cluster: Running, source: str, target: str, changed: bool
) -> None:
    """And policy Cluster masquerades whoever asks at an address for outside, also pods."""
    where, probe = asked(cluster, target)
    found = trace(cluster, source, where, **probe)
    assert found.ok, found.diagnosis
    assert masqueraded(found) is changed


@pytest.mark.parametrize("source", [CALLER, CLIENT])
def test_addresses_are_whoever_has_them(cluster: Running, source: str) -> None:
    """A node's is that node; a pod's the pod, which a client without routes does not reach."""
    node = str(cluster.nodes["node2"].ip)
    found = trace(cluster, source, node)
    assert found.ok, found.diagnosis
    assert (found.target.place, found.service) == ("node2", None)
    if source == CALLER:
        found = trace(cluster, source, cluster.ip("far"), protocol="tcp")
        assert found.ok, found.diagnosis
        assert (found.target.place, found.probe.port) == ("default/far", 8080)


@pytest.mark.parametrize(
    ("source", "target", "more", "cause", "said"),
    [
        (CLIENT, "local at node3", {}, "no-local-endpoints", "externalTrafficPolicy"),
        (NODE1, "local at node3", {}, "no-local-endpoints", "externalTrafficPolicy"),
        (CLIENT, "empty at node1", {}, "no-endpoints", "node1 rejects"),
        (CALLER, "empty at node2", {}, "no-endpoints", "node2 rejects"),
        (CLIENT, "svc/fenced", {}, "rule", "loadBalancerSourceRanges"),
        (CALLER, "balancer of fenced", {}, "rule", "loadBalancerSourceRanges"),
        (NODE1, "balancer of fenced", {}, "rule", "loadBalancerSourceRanges"),
        (CLIENT, "svc/balanced", {"port": 81}, "no-port", "has no port 81/tcp"),
        (CLIENT, "svc/balanced", {"protocol": "icmp"}, "no-port", "answered itself"),
    ],
)
def test_what_nobody_answers_says_why_and_where(
    cluster: Running, source: str, target: str, more: dict[str, Any], cause: str, said: str
) -> None:
    """On the node that it entered, whoever asked."""
    where, probe = asked(cluster, target)
    found = trace(cluster, source, where, **(probe | more))
    assert not found.ok
    assert found.answered is (more.get("protocol") == "icmp")
    assert found.service is not None
    assert found.diagnosis is not None
    assert (found.diagnosis.cause, found.diagnosis.leg) == (cause, "request")
    assert found.diagnosis.place == found.service.entered
    assert said in found.diagnosis.summary
    assert found.request.divergence is None


@pytest.mark.parametrize("which", ["service", "endpoint"])
@pytest.mark.parametrize("source", [CLIENT, "third"])
def test_missing_rules_are_named_on_the_node_that_was_asked(
    cluster: Running, source: str, which: str
) -> None:
    """By the chain that leads nowhere."""
    rules = Rules(cluster)
    chain = rules.service if which == "service" else rules.endpoint
    fault = broken(cluster, source, "far at node1", "no-dnat", NODE1, chain)
    with fault as judge, rules.flushed(chain):
        judge()


def test_rules_that_were_not_synced_are_named_on_the_node_that_was_asked(cluster: Running) -> None:
    """They lead to a pod that is no endpoint."""
    rules, old = Rules(cluster), f"{cluster.ip('web-2')}:8080"
    fault = broken(cluster, CLIENT, "far at node1", "stale-endpoint", NODE1, old)
    with fault as judge, rules.flushed(rules.endpoint, rules.dnat(old)):
        judge()


def test_what_is_not_masqueraded_is_named(cluster: Running) -> None:
    """The endpoint then answers past the node. flannel masquerades such packets by itself."""
    if cluster.cluster.cni == "flannel":
        pytest.skip("flannel masquerades whatever comes from outside")
    mark = "mark-for-masquerade" if cluster.cluster.proxy == "nftables" else "KUBE-MARK-MASQ"
    rules = Rules(cluster)
    fault = broken(cluster, CLIENT, "far at node1", "no-snat", NODE1)
    with fault as judge, rules.flushed(mark):
        judge()


def test_a_rule_that_drops_after_dnat_is_named(cluster: Running) -> None:
    """On the node that was asked, though it is for the endpoint's address."""
    rule = f"{after_dnat(cluster)} -d {cluster.ip('far')} -j DROP"
    with broken(cluster, CLIENT, "far at node1", "rule", NODE1, "DROP") as judge:
        on(cluster, NODE1, f"iptables -I {rule}")
        try:
            judge()
        finally:
            on(cluster, NODE1, f"iptables -D {rule}")


def test_a_reply_that_its_node_does_not_let_out_is_named(cluster: Running) -> None:
    """Policy Local: the endpoint answers the client itself, by the node that it came by."""
    client = cluster.clients[CLIENT].ip
    with broken(cluster, CLIENT, "local at node2", "blackhole", "node2", str(client)) as judge:
        on(cluster, "node2", f"ip route add blackhole {client}/32")
        try:
            assert judge().request.complete
        finally:
            on(cluster, "node2", f"ip route del blackhole {client}/32")


def test_a_stale_neighbour_entry_is_named(cluster: Running) -> None:
    """The client sends to a node that does not have the address, which answers all the same."""
    address, holder = service(cluster, "balanced").load_balancer_ip, announcer(cluster, "balanced")
    other = next(node for node in cluster.nodes if node != holder)
    mac = on(cluster, other, "cat /sys/class/net/eth0/address").strip()
    with broken(cluster, CLIENT, "svc/balanced", "no-neighbour", CLIENT, other) as judge:
        on(cluster, CLIENT, f"ip neigh replace {address} lladdr {mac} dev eth0 nud permanent")
        try:
            assert judge().answered
        finally:
            on(cluster, CLIENT, f"ip neigh del {address} dev eth0")


def test_arp_that_the_announcer_does_not_answer_is_named(cluster: Running) -> None:
    """It has the address, but says nothing."""
    address, holder = service(cluster, "balanced").load_balancer_ip, announcer(cluster, "balanced")
    with broken(cluster, CLIENT, "svc/balanced", "arp-unanswered", "", str(address)) as judge:
        before = on(cluster, holder, "sysctl -n net.ipv4.conf.eth0.arp_ignore").strip()
        on(cluster, holder, "sysctl -w net.ipv4.conf.eth0.arp_ignore=8")
        on(cluster, CLIENT, f"ip neigh flush to {address}")
        try:
            assert not judge().request.observed
        finally:
            on(cluster, holder, f"sysctl -w net.ipv4.conf.eth0.arp_ignore={before}")
            on(cluster, CLIENT, f"ip neigh flush to {address}")


def test_an_address_that_no_node_announces_is_named(cluster: Running) -> None:
    """keepalived stands still everywhere."""
    address, holder = service(cluster, "balanced").load_balancer_ip, announcer(cluster, "balanced")
    said = f"no node has load balancer address {address}"
    with broken(cluster, CLIENT, "svc/balanced", "arp-unanswered", "", said) as judge:
        for node in cluster.nodes:
            on(cluster, node, "pkill -STOP keepalived")
        on(cluster, holder, f"ip address del {address}/32 dev eth0")
        on(cluster, CLIENT, f"ip neigh flush to {address}")
        try:
            judge()
        finally:
            for node in cluster.nodes:
                on(cluster, node, "pkill -CONT keepalived")


def test_a_missing_route_to_an_external_ip_is_named(cluster: Running) -> None:
    """Nobody announces those, so whoever asks needs one."""
    route = f"{service(cluster, 'outside').external_ips[0]} via {cluster.nodes['node3'].ip}"
    with broken(cluster, CLIENT, "svc/outside", "no-route", CLIENT, "external IPs") as judge:
        on(cluster, CLIENT, f"ip route del {route}")
        try:
            judge()
        finally:
            on(cluster, CLIENT, f"ip route add {route}")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("192.0.2.1", "nothing is sent elsewhere"),
        ("svc/near", "testbed trace client NODE --proto tcp --port"),
        ("svc/web-4", "services: "),
    ],
)
def test_what_leads_nowhere_is_refused(cluster: Running, cli: Cli, target: str, said: str) -> None:
    """With what does; nothing is sent."""
    done = cli("trace", CLIENT, target, "--name", cluster.name)
    assert done.returncode == 2
    assert said in done.stderr


def test_the_command_and_the_api_say_the_same(cluster: Running, cli: Callable[..., Any]) -> None:
    """Which address, and by which node it came in."""
    name, balanced = ("--name", cluster.name), service(cluster, "balanced")
    answer = json.loads(cli("trace", CLIENT, "svc/balanced", "-o", "json", *name).stdout)["service"]
    client = cluster.clients[CLIENT]
    for target in (balanced, "svc/balanced", balanced.load_balancer_ip):
        assert target is not None
        api = cluster.trace(client, target, tcp=80)
        assert api.ok, api.diagnosis
        assert api.service is not None
        assert (api.service.ip, api.service.kind) == (answer["address"], answer["kind"])
        assert api.service.entered == answer["entered"]
    reach = client.reaches(balanced, tcp=80, timeout=0.3)
    assert f"Trace to {balanced.load_balancer_ip}, which is" in reach.explanation
    text = cli("trace", CLIENT, "svc/balanced", *name).stdout
    assert f"load balancer, entered by {answer['entered']}): default/far" in text
    assert f"conntrack on {answer['entered']}:" in text
