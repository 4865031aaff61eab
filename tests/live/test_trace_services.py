"""Tracing to Services: every kind of pair, and every way of breaking kube-proxy's rules.

The gateway of node1 is made a MAC address that nobody has, so that what is not translated leaves by
the uplink, where it is seen, and goes no further. Its ICMP errors are not limited: with Calico a
pod that calls itself is sent a redirect, and for a second afterwards nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testbed.dataplane.features import Features
from testbed.verify.trace.model import Trace
from tests.live.conftest import Cli, Lasting, Running
from tests.live.walks import NODE1, Rules, after_dnat, on, seen, told, trace, wanted

CASES = [(cni, mode) for cni in ("flannel", "calico") for mode in ("iptables", "nftables", "ipvs")]
CALLER = "caller"


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def cluster(lasting: Lasting, able: Features, request: pytest.FixtureRequest) -> Iterator[Running]:
    """Three nodes with Services, the same for all traces of one mode."""
    cni, mode = request.param
    if mode == "ipvs" and not able.ip_vs:
        pytest.skip("this kernel has no ip_vs")
    with lasting(f"services-{cni}", f"trace-svc-{cni}-{mode}", proxy=mode) as found:
        gateway = on(found, NODE1, "ip -4 route show default").split()[2]
        on(found, NODE1, f"ip neigh replace {gateway} lladdr 02:00:00:00:00:99 dev eth0")
        on(found, NODE1, "sysctl -w net.ipv4.icmp_ratelimit=0")
        yield found


PAIRS = [
    pytest.param(CALLER, "svc/far", "default/far", id="pod to another node"),
    pytest.param(CALLER, "service/default/near", "default/near", id="pod to its own node"),
    pytest.param(CALLER, "svc/itself", "default/caller", id="pod to itself"),
    pytest.param(NODE1, "svc/far", "default/far", id="node to another node"),
    pytest.param(NODE1, "svc/near", "default/near", id="node to its own pod"),
    pytest.param("third", "svc/web", "", id="any of three endpoints"),
    pytest.param(CALLER, "svc/inside", "default/near", id="internal policy Local"),
]


@pytest.mark.parametrize("port", [80, 90], ids=["tcp", "udp"])
@pytest.mark.parametrize(("source", "target", "place"), PAIRS)
def test_a_service_is_walked_to_its_endpoint_and_back(
    cluster: Running, source: str, target: str, place: str, port: int
) -> None:
    """DNAT and its undoing on the client's node, no hop missing, and the conntrack entry."""
    found = trace(cluster, source, target, port=port)
    assert found.ok, (found.error, found.diagnosis, seen(found))
    assert seen(found) == wanted(found)
    assert found.diagnosis is None
    assert found.service is not None
    assert found.service.chosen is not None
    assert found.target.place == (place or found.target.place)
    service, endpoint = found.service.address, str(found.service.chosen)
    changes = told(found)
    client = {found.source.node, found.source.place}
    assert {each.partition(": ")[0] for each in changes} <= client
    assert sum(f"DNATed {service} to {endpoint}" in each for each in changes) == 1
    assert sum(f"DNAT reversed {endpoint} to {service}" in each for each in changes) == 1
    masqueraded = source == NODE1 or target == "svc/itself"
    assert any("SNATed" in each for each in changes) == masqueraded
    (entry,) = found.conntrack
    assert f"dst={found.service.cluster_ip} " in entry
    assert f"src={found.target.ip} " in entry


@pytest.mark.parametrize("target", ["svc/near", "svc/itself"])
def test_a_first_packet_after_a_while_is_walked_as_well(cluster: Running, target: str) -> None:
    """The bridge then asks for the endpoint's MAC by its own device, where the packet is seen."""
    on(cluster, NODE1, f"ip neigh flush to {cluster.cluster.node(NODE1).pod_cidr}")
    first = trace(cluster, CALLER, target)
    assert first.ok, (first.error, first.diagnosis, seen(first))
    if cluster.cluster.cni == "flannel":
        assert "node1/cni0 out" in seen(first)[0]
    assert trace(cluster, CALLER, target).ok


def test_the_uplink_never_carries_the_cluster_ip(cluster: Running) -> None:
    """Neither there nor back; the reply is translated on the client's node alone."""
    found = trace(cluster, CALLER, "svc/far")
    assert found.service is not None
    for leg in (found.request, found.reply):
        for hop in leg.observed:
            inner = hop.event.packet.innermost
            ends = {str(inner.source), str(inner.destination)}
            if hop.event.interface == "eth0" and hop.event.place == hop.event.node:
                assert found.service.cluster_ip not in ends
            if hop.event.node == "node2":
                assert found.service.cluster_ip not in ends


@pytest.mark.parametrize(
    ("source", "target", "probe", "cause"),
    [
        (CALLER, "svc/empty", {}, "no-endpoints"),
        (NODE1, "svc/empty", {"protocol": "udp"}, "no-endpoints"),
        (CALLER, "svc/waiting", {}, "no-endpoints"),
        ("third", "svc/inside", {}, "no-local-endpoints"),
        ("node3", "svc/inside", {}, "no-local-endpoints"),
        (CALLER, "svc/far", {"port": 81}, "no-port"),
        (CALLER, "svc/far", {"protocol": "icmp"}, "no-port"),
        (NODE1, "svc/far", {"protocol": "tcp", "port": 90}, "no-port"),
    ],
)
def test_what_nobody_answers_says_why(
    cluster: Running, source: str, target: str, probe: dict[str, Any], cause: str
) -> None:
    """No endpoints, none that is local, no such port, and ping.

    With IPVS the node has the address, and Felix accepts what its pods send to it.
    """
    found = trace(cluster, source, target, **probe)
    own = (cluster.cluster.cni, cluster.cluster.proxy) == ("calico", "ipvs")
    assert found.answered is (own and probe.get("protocol") == "icmp")
    assert not found.ok
    assert found.diagnosis is not None
    assert (found.diagnosis.cause, found.diagnosis.leg) == (cause, "request")
    assert found.diagnosis.place == found.source.node
    if cause == "no-endpoints":
        assert "port unreachable" in found.error


def broken(live: Running, source: str, cause: str, words: str) -> Trace:
    """A trace to ``far`` that is not answered, and is told why."""
    found = trace(live, source, "svc/far")
    assert not found.ok
    assert found.diagnosis is not None
    assert found.diagnosis.cause == cause, found.diagnosis
    assert words in f"{found.diagnosis.summary} {found.diagnosis.evidence}"
    return found


@pytest.mark.parametrize("source", [CALLER, NODE1])
@pytest.mark.parametrize("which", ["service", "endpoint"])
def test_missing_rules_are_named(cluster: Running, source: str, which: str) -> None:
    """The Service's chain flushed, the endpoint's DNAT rule gone.

    iptables lets the packet leave as it was; in nftables mode kube-proxy rejects what is still for
    a cluster IP when it is to be forwarded.
    """
    rules = Rules(cluster)
    chain = rules.service if which == "service" else rules.endpoint
    with rules.flushed(chain):
        found = broken(cluster, source, "no-dnat", chain)
        assert found.diagnosis is not None
        assert found.diagnosis.place == NODE1
        assert found.request.divergence is not None
        assert found.service is not None
        left = any(
            hop.event.interface == "eth0"
            and str(hop.event.packet.innermost.destination) == found.service.cluster_ip
            for hop in found.request.observed
            if hop.event.place == NODE1
        )
        assert left is (rules.mode == "iptables")
        rejected = rules.nft or (rules.mode == "ipvs" and which == "endpoint")
        assert ("port unreachable" in found.error) is rejected
    assert trace(cluster, source, "svc/far").ok


@pytest.mark.parametrize("source", [CALLER, NODE1])
def test_rules_that_were_not_synced_are_named(cluster: Running, source: str) -> None:
    """They lead to an address that no endpoint has, though a pod there answers."""
    rules = Rules(cluster)
    old = f"{cluster.ip('web-2')}:8080"
    with rules.flushed(rules.endpoint, rules.dnat(old)):
        found = broken(cluster, source, "stale-endpoint", old)
        assert found.answered
    assert trace(cluster, source, "svc/far").ok


def test_an_endpoint_that_is_gone_is_named_with_its_service(cluster: Running) -> None:
    """The pod's link is down: the usual cause, and what led there."""
    pods = json.loads(on(cluster, "node2", "testbed-agent status"))["pods"]
    veth = next(pod["host_interface"] for pod in pods if pod["name"] == "far")
    routes = on(cluster, "node2", f"ip -4 route show dev {veth}").strip()
    on(cluster, "node2", f"ip link set {veth} down")
    try:
        broken(cluster, CALLER, "interface-down", "svc/default/far")
    finally:
        on(cluster, "node2", f"ip link set {veth} up")
        if routes:
            on(cluster, "node2", f"ip route replace {routes} dev {veth}")
    assert trace(cluster, CALLER, "svc/far").ok


def test_a_rule_that_drops_after_dnat_is_named(cluster: Running) -> None:
    """The rule is for the pod's address, which the packet has only by then."""
    rule = f"{after_dnat(cluster)} -d {cluster.ip('far')} -j DROP"
    on(cluster, NODE1, f"iptables -I {rule}")
    try:
        broken(cluster, CALLER, "rule", "DROP")
    finally:
        on(cluster, NODE1, f"iptables -D {rule}")


def test_a_bridge_that_passes_netfilter_by_is_named(cluster: Running) -> None:
    """Without bridge-nf-call-iptables the reply of a pod on the same bridge stays as it is."""
    if cluster.cluster.cni != "flannel":
        pytest.skip("Calico has no bridge")
    name = "net.bridge.bridge-nf-call-iptables"
    on(cluster, NODE1, f"sysctl -w {name}=0")
    try:
        found = trace(cluster, CALLER, "svc/near")
        assert not found.ok
        assert found.diagnosis is not None
        assert found.diagnosis.cause == "no-undnat", found.diagnosis
        assert name in found.diagnosis.summary
    finally:
        on(cluster, NODE1, f"sysctl -w {name}=1")


def test_the_command_and_the_api_say_the_same(cluster: Running, cli: Callable[..., Any]) -> None:
    """JSON with the Service and its entry; text that shows DNAT, its undoing, and the entry."""
    name = ("--name", cluster.name)
    answer = json.loads(cli("trace", CALLER, "svc/far", "-o", "json", *name).stdout)
    api = cluster.trace(CALLER, "svc/far", tcp=80)
    assert api.service is not None
    assert answer["service"]["translated"] == api.service.translated
    assert answer["service"]["cluster_ip"] == api.service.cluster_ip
    assert len(answer["conntrack"]) == 1
    text = cli("trace", CALLER, "svc/far", *name).stdout
    assert f"to   svc/default/far ({api.service.address}): default/far" in text
    assert f"DNATed {api.service.address} to {api.service.translated}" in text
    assert "DNAT reversed" in text
    assert "conntrack on node1:" in text


@pytest.mark.parametrize(
    ("target", "said"), [("svc/headless", "has no cluster IP"), ("svc/nobody", "services: ")]
)
def test_what_cannot_be_traced_is_refused(
    cluster: Running, cli: Cli, target: str, said: str
) -> None:
    """A headless Service has nothing to translate; an unknown one is answered with those known."""
    done = cli("trace", CALLER, target, "--name", cluster.name)
    assert done.returncode == 2
    assert said in done.stderr
