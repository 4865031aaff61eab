"""Packets from outside that came to no node, and those that the wrong rules met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from testbed.packets.packet import Packet
from testbed.verify.observed import Observed
from testbed.verify.trace.case import Case
from testbed.verify.trace.diagnosis import CAUSES, diagnose
from testbed.verify.trace.model import (
    EXTERNAL_IP,
    LOAD_BALANCER,
    NODE_PORT,
    Diagnosis,
    Endpoint,
    Entrance,
    Event,
    ExpectedHop,
    Facts,
    Probe,
    Service,
    ServiceEndpoint,
)
from testbed.verify.trace.walk import follow
from tests.unit.verify.trace.world import (
    MARKER,
    NODES,
    B,
    at,
    echo,
    hop,
    link,
    node_facts,
    pod_facts,
    segment,
)

BALANCER = "172.18.255.200"
CLIENT = Endpoint("client", "client", "172.18.255.250", pod=False)
NOBODY = Endpoint("svc/default/web", "client", BALANCER, pod=False)
MACS = {"client": "02:42:00:00:00:c1", "node1": "02:42:00:00:00:01", "node2": "02:42:00:00:00:02"}
THERE = (
    hop("client", "eth0", "out"),
    hop("node1", "eth0", "in"),
    replace(hop("node1", "flannel.1", "out"), destination=B.ip, masqueraded=CLIENT.ip),
    hop("default/b", "eth0", "in", node="node2"),
)
SERVED = Service(
    *("default/web", "10.96.0.10", "tcp", 80),
    known=True,
    ports=("80/tcp",),
    mode="iptables",
    local=False,
    endpoints=(ServiceEndpoint(B, 8080, ready=True, usable=True),),
    kind=LOAD_BALANCER,
    other_ip=BALANCER,
    entrances=(Entrance("node1", (f"{B.ip}:8080",), keeps=False),),
    entered="node1",
)
UNSERVED = replace(SERVED, entrances=(), entered="", endpoints=())


def segment_to(ip: str = BALANCER, *, mac: str = "node1", source: str = CLIENT.ip) -> Packet:
    """The first segment as the client sends it."""
    return segment("S")._replace(
        source=IPv4Address(source),
        destination=IPv4Address(ip),
        destination_port=8080 if ip == B.ip else 80,
        destination_mac=MACS[mac],
    )


def facts(holder: str = "node1", **of_client: Any) -> dict[str, Facts]:
    """Of the client and both nodes; one of them has the balancer's address."""
    found: dict[str, dict[str, Any]] = {
        "client": {
            "links": [link("eth0", mtu=1500, address=MACS["client"])],
            "routes": [
                {"dst": "default", "gateway": "172.18.0.1", "dev": "eth0"},
                {"dst": "172.18.0.0/16", "dev": "eth0"},
            ],
            "neighbours": [{"dst": BALANCER, "dev": "eth0", "lladdr": MACS["node1"]}],
            **of_client,
        },
        "node1": node_facts("node1", "node2", 0),
        "node2": node_facts("node2", "node1", 1),
    }
    for name, each in found.items():
        each["links"][0]["address"] = MACS[name]
    if holder:
        found[holder]["addresses"].append({"ifname": "eth0", "addr_info": [{"local": BALANCER}]})
    spaces = {name: {"": each, B.place: pod_facts()} for name, each in found.items()}
    return {name: Facts(each, each) for name, each in spaces.items()}


def judged(
    service: Service,
    events: Sequence[Event],
    known: dict[str, Facts],
    path: Sequence[ExpectedHop] = THERE,
    **how: Any,
) -> Diagnosis:
    """The verdict about a packet of the client."""
    probe = Probe(service.protocol, service.ip, service.port, marker=MARKER, sequence=1000)
    target = B if service.usable else NOBODY
    walk = follow(
        *(events, probe, (tuple(path), ()), CLIENT, target), delivered=bool(service.usable)
    )
    pods = {B.place: {"ip": B.ip, "host_interface": "vethb"}}
    observed = Observed({**NODES, "client": IPv4Address(CLIENT.ip)}, pods)
    case = Case(probe, CLIENT, target, walk, observed, known, service=service, **how)
    found = diagnose(case)
    assert found is not None
    assert found.cause in CAUSES
    return found


SENT = [at(THERE[0], segment_to(), 1000)]
CAME = [*SENT, at(THERE[1], segment_to(), 2000)]


def test_nobody_announces_what_nobody_answers() -> None:
    """Without endpoints; nothing is seen, as ARP is not answered."""
    found = judged(UNSERVED, [], facts(""), ())
    assert (found.cause, found.place) == ("no-endpoints", "client")
    assert f"so no node announces {BALANCER}" in found.summary


def test_a_client_without_bgp_is_told_nothing() -> None:
    """The endpoints are there, and ready."""
    found = judged(replace(UNSERVED, endpoints=SERVED.endpoints), [], facts(""), ())
    assert (found.cause, found.place) == ("no-route", "client")
    assert "speaks no BGP" in found.summary


def test_an_address_that_is_on_no_node() -> None:
    """keepalived does not run."""
    found = judged(SERVED, [], facts(""))
    assert (found.cause, found.place) == ("arp-unanswered", "node1")
    assert found.evidence[0] == f"node1: {BALANCER} is not on eth0"


def test_a_neighbour_entry_that_leads_to_another_node() -> None:
    """Which may even answer: the diagnosis is about the way."""
    wrong = [at(THERE[0], segment_to(mac="node2"), 1000)]
    stale = [{"dst": BALANCER, "dev": "eth0", "lladdr": MACS["node2"]}]
    for answered in (False, True):
        found = judged(SERVED, wrong, facts(neighbours=stale), answered=answered)
        assert (found.cause, found.place) == ("no-neighbour", "client")
        assert f"(node2), but node1 has {BALANCER}" in found.summary
    assert judged(SERVED, SENT, facts()).cause != "no-neighbour"


def test_an_announcer_with_the_endpoint_gets_it_from_the_node_that_was_asked_instead() -> None:
    """Which is not how it had to come there."""
    wrong = [at(THERE[0], segment_to(mac="node2"), 1000)]
    sent_on = at(hop("node1", "eth0", "in"), segment_to(B.ip, source="10.244.0.0"), 3000)
    stale = [{"dst": BALANCER, "dev": "eth0", "lladdr": MACS["node2"]}]
    found = judged(SERVED, [*wrong, sent_on], facts(neighbours=stale), answered=True)
    assert (found.cause, found.place) == ("no-neighbour", "client")


@pytest.mark.parametrize(
    ("kind", "said", "advice"),
    [
        (LOAD_BALANCER, "none of the nodes that may (node1) announces it", "BIRD on node1"),
        (EXTERNAL_IP, "nobody announces external IPs", "ip route add 203.0.113.7 via 172.18.0.2"),
    ],
)
@pytest.mark.parametrize(
    "routes", [[], [{"dst": "default", "gateway": "172.18.0.1", "dev": "eth0"}]]
)
def test_no_route_but_the_default_one(
    kind: str, said: str, advice: str, routes: list[dict[str, Any]]
) -> None:
    """BGP tells none, or nobody is to."""
    service = replace(SERVED, kind=kind, other_ip="203.0.113.7")
    found = judged(service, [], facts("", routes=routes))
    assert (found.cause, found.place) == ("no-route", "client")
    assert said in found.summary
    assert advice in found.advice


def test_what_came_to_its_node_is_no_matter_of_announcing() -> None:
    """Nor is a node port, which is asked by the node's own address."""
    assert judged(SERVED, CAME, facts("")).cause == "no-dnat"
    port = replace(SERVED, kind=NODE_PORT, other_ip="172.18.0.2", port=30080)
    assert judged(port, [], facts("")).cause not in ("arp-unanswered", "no-endpoints")


def test_the_firewall_of_a_balancer_drops_who_is_not_in_its_ranges() -> None:
    """The rule that counted it is evidence."""
    shut = replace(
        SERVED,
        endpoints=(replace(SERVED.endpoints[0], usable=False),),
        entrances=(Entrance("node1", (), keeps=None, firewalled=True),),
    )
    known = facts()
    text = f"-A KUBE-PROXY-FIREWALL -d {BALANCER}/32 -p tcp -m tcp --dport 80 -j DROP"
    known["node1"] = Facts(
        {"": {**known["node1"].before[""], "iptables": f"*filter\n[0:0] {text}\n"}},
        {"": {**known["node1"].after[""], "iptables": f"*filter\n[1:60] {text}\n"}},
    )
    found = judged(shut, CAME, known, THERE[:2])
    assert (found.cause, found.place) == ("rule", "node1")
    assert f"do not have {CLIENT.ip} (client)" in found.summary
    assert any("0 → 1 packets" in line for line in found.evidence)


@pytest.mark.parametrize(
    ("kind", "policy"), [(NODE_PORT, "externalTrafficPolicy"), (LOAD_BALANCER, "externalTraffic")]
)
def test_policy_local_without_an_endpoint_is_told_of_the_node_that_dropped_it(
    kind: str, policy: str
) -> None:
    """Not of the client."""
    none = replace(
        SERVED, kind=kind, endpoints=(replace(SERVED.endpoints[0], usable=False),), entrances=()
    )
    found = judged(none, CAME, facts(), THERE[:2])
    assert (found.cause, found.place) == ("no-local-endpoints", "node1")
    assert policy in found.summary
    assert "elsewhere" in found.evidence[0]


def test_what_was_not_masqueraded_is_named() -> None:
    """The endpoint would answer past the node."""
    chosen = replace(SERVED, translated=f"{B.ip}:8080")
    kept = at(THERE[2], segment_to(B.ip), 3000)
    found = judged(chosen, [*CAME, kept], facts())
    assert (found.cause, found.place) == ("no-snat", "node1")
    assert f"node1/flannel.1 out: from {CLIENT.ip}" in found.evidence
    masqueraded = at(THERE[2], segment_to(B.ip, source="10.244.0.0"), 3000)
    assert judged(chosen, [*CAME, masqueraded], facts()).cause != "no-snat"


def test_a_balancer_that_answers_ping_answers_for_itself() -> None:
    """The node that has the address; kube-proxy has no part in it."""
    ping = replace(SERVED, protocol="icmp", port=0, known=False, endpoints=())
    seen = [at(each, segment_to()._replace(protocol=1, icmp_type=8), 1000) for each in THERE[:2]]
    marked = [
        replace(each, packet=each.packet._replace(payload=MARKER.encode() * 4)) for each in seen
    ]
    found = judged(ping, marked, facts(), THERE[:2], answered=True)
    assert (found.cause, found.place) == ("no-port", "node1")
    assert "node1 answered itself" in found.summary
    assert "at a load balancer" in judged(ping, marked, facts(), THERE[:2]).summary


def test_a_client_that_was_told_nothing_of_pods() -> None:
    """Without BGP no way is demanded, and none is there."""
    probe = Probe("icmp", B.ip, marker=MARKER)
    walk = follow([], probe, ((), ()), CLIENT, B)
    observed = Observed(NODES, {B.place: {"ip": B.ip, "host_interface": "vethb"}})
    found = diagnose(Case(probe, CLIENT, B, walk, observed, facts()))
    assert found is not None
    assert (found.cause, found.place) == ("no-route", "client")
    assert f"has no route to {B.ip} but its default route" in found.summary
    assert "via 172.18.0.3` on client" in found.advice


def test_a_client_that_got_it_from_a_pod_that_it_cannot_answer() -> None:
    """Nobody masqueraded, as the topology says, so the reply has no way: the gateway is no clue."""
    probe = Probe("icmp", CLIENT.ip, marker=MARKER)
    there = (hop("node2", "eth0", "out"), hop("client", "eth0", "in"))
    ping = echo()._replace(source=IPv4Address(B.ip), destination=IPv4Address(CLIENT.ip))
    events = [at(each, ping, when) for when, each in enumerate(there)]
    walk = follow(events, probe, (there, ()), B, CLIENT)
    observed = Observed(NODES, {B.place: {"ip": B.ip, "host_interface": "vethb"}})
    found = diagnose(Case(probe, B, CLIENT, walk, observed, facts()))
    assert found is not None
    assert (found.cause, found.place, found.leg) == ("no-route", "client", "reply")
    assert f"has no route to {B.ip} but its default route" in found.summary
    assert "nat_outgoing: true" in found.advice
