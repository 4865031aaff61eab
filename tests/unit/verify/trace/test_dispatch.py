"""What kube-proxy did wrong, or was right not to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from testbed.packets.packet import Packet
from testbed.verify.trace.case import Case
from testbed.verify.trace.diagnosis import CAUSES, diagnose
from testbed.verify.trace.model import (
    Diagnosis,
    Endpoint,
    Event,
    ExpectedHop,
    Leg,
    Probe,
    Service,
    ServiceEndpoint,
)
from tests.unit.verify.trace.test_chains import IPTABLES
from tests.unit.verify.trace.world import (
    LATER,
    MARKER,
    NODE1,
    PATH,
    A,
    B,
    World,
    at,
    echo,
    hop,
    rule,
    segment,
    travel,
)

TCP_PROBE = Probe("tcp", "10.96.0.10", 80, marker=MARKER, sequence=1000)
SERVICE = Service(
    *("default/web", "10.96.0.10", "tcp", 80),
    known=True,
    ports=("80/tcp",),
    mode="iptables",
    local=False,
    endpoints=(ServiceEndpoint(B, 8080, ready=True, usable=True),),
    entered="node1",
)
CHOSEN = replace(SERVICE, translated="10.244.1.2:8080")
ENTRY = (
    "tcp 6 119 ESTABLISHED src=10.244.0.2 dst=10.96.0.10 sport=40000 dport=80 "
    "src=10.244.1.2 dst=10.244.0.2 sport=8080 dport=40000 [ASSURED] mark=0 use=1"
)
NOBODY = Endpoint("svc/default/web", "node1", "10.96.0.10", pod=False)
UP_TO_NODE: tuple[tuple[ExpectedHop, ...], tuple[ExpectedHop, ...]] = (PATH[0][:3], ())
ADDRESSED = tuple(
    replace(each, destination=B.ip if number >= 3 else "") for number, each in enumerate(PATH[0])
)


def asked() -> Packet:
    """The first segment as the client sends it."""
    return segment("S")._replace(destination=IPv4Address("10.96.0.10"), destination_port=80)


def judged(
    service: Service,
    events: Sequence[Event],
    *,
    world: World | None = None,
    answered: bool = False,
    source: Endpoint = A,
) -> Diagnosis:
    """The diagnosis of a packet to a Service."""
    world = world or World()
    world.probe = replace(TCP_PROBE, protocol=service.protocol, port=service.port)
    world.answers = {}
    expecting = service.known and service.usable and service.mode != "none"
    path = (ADDRESSED, PATH[1]) if expecting else UP_TO_NODE
    if not source.pod:
        path = (path[0][3:], path[1][:7])
    target = B if expecting else NOBODY
    case: Case = world.case(events, answered=answered, source=source, target=target, path=path)
    if not service.served:
        short: Leg = replace(case.walk.request, complete=False)
        case = replace(case, walk=replace(case.walk, request=short))
    found = diagnose(replace(case, service=service))
    assert found is not None
    assert found.cause in CAUSES
    return found


SENT = travel(PATH[0], asked(), hops=3)
"""As far as the node's bridge, as it was."""
NOT_READY = (ServiceEndpoint(B, 8080, ready=False, usable=False),)
ELSEWHERE = (ServiceEndpoint(B, 8080, ready=True, usable=False),)


@pytest.mark.parametrize(
    ("how", "cause", "said"),
    [
        ({"endpoints": ()}, "no-endpoints", "has no ready endpoints"),
        ({"endpoints": NOT_READY}, "no-endpoints", "kube-proxy on node1 rejects"),
        ({"endpoints": ELSEWHERE, "local": True}, "no-local-endpoints", "is Local"),
        (
            {"known": False, "port": 81},
            "no-port",
            "has no port 81/tcp: kube-proxy translates 80/tcp",
        ),
        ({"known": False, "port": 0, "protocol": "icmp"}, "no-port", "ICMP has none"),
        ({"mode": "none"}, "no-dnat", "node1 runs no kube-proxy"),
    ],
)
@pytest.mark.parametrize("source", [A, NODE1], ids=["pod", "node"])
def test_what_nobody_is_to_answer(
    source: Endpoint, how: dict[str, Any], cause: str, said: str
) -> None:
    """It ends on the client's node, whether any interface saw it or not."""
    ping = echo()._replace(destination=IPv4Address("10.96.0.10"))
    sent = travel(PATH[0], ping, hops=3) if how.get("protocol") == "icmp" else SENT
    if how.get("port"):
        sent = travel(PATH[0], asked()._replace(destination_port=how["port"]), hops=3)
    found = judged(replace(SERVICE, **how), sent if source.pod else [], source=source)
    assert (found.cause, found.place, found.leg) == (cause, "node1", "request")
    assert said in found.summary
    assert found.advice


def test_the_rule_that_rejects_is_evidence() -> None:
    """With its counter; and the endpoints that there are."""
    world = World()
    text = "-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j REJECT"
    world.count("node1", rule(text, 0), rule(text, 1))
    found = judged(replace(SERVICE, endpoints=NOT_READY), SENT, world=world)
    assert found.cause == "no-endpoints"
    assert found.evidence[0].endswith("-j REJECT: 0 → 1 packets")
    assert found.evidence[1] == "endpoint 10.244.1.2:8080 (default/b, on node2): not ready"


def test_a_packet_that_never_reached_its_node_is_no_matter_of_the_service() -> None:
    """Its veth is down."""
    world = World()
    world.node("node1")["links"][3]["flags"] = ["BROADCAST"]
    assert judged(SERVICE, SENT[:1], world=world).cause == "interface-down"
    assert judged(replace(SERVICE, endpoints=()), SENT[:1], world=world).cause == "interface-down"


def test_what_leaves_as_it_was_is_not_translated() -> None:
    """By the default route."""
    left = at(hop("node1", "eth0", "out"), asked(), 1_060_000)
    found = judged(SERVICE, [*SENT, left])
    assert (found.cause, found.place) == ("no-dnat", "node1")
    assert "node1/eth0 out: still to 10.96.0.10" in found.evidence


def test_a_gap_in_the_rules_is_enough() -> None:
    """Where nothing was seen to leave, as the gateway does not answer ARP."""
    world = World()
    world.count("node1", "", "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n")
    found = judged(SERVICE, SENT, world=world)
    assert found.cause == "no-dnat"
    assert found.summary.endswith(": nat PREROUTING has no jump to KUBE-SERVICES")
    assert found.evidence[0] == "node1: nat PREROUTING has no jump to KUBE-SERVICES"


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("endpoints", [SERVICE.endpoints, (), NOT_READY])
def test_a_translation_to_no_endpoint(
    answered: bool, endpoints: tuple[ServiceEndpoint, ...]
) -> None:
    """The rules are old, whoever answers there, and whether there is any endpoint now."""
    service = replace(SERVICE, endpoints=endpoints, translated="10.244.1.99:8080")
    found = judged(service, SENT, answered=answered)
    assert (found.cause, found.place) == ("stale-endpoint", "node1")
    assert "to 10.244.1.99:8080, which is no endpoint of it" in found.summary
    assert "node1: svc/default/web 10.96.0.10:80: DNAT to 10.244.1.99:8080" in found.evidence


def test_other_causes_name_the_service() -> None:
    """A link of the endpoint's node is down: not its doing, but what led there."""
    world = World()
    world.node("node2")["links"][3]["flags"] = ["BROADCAST"]
    events = [*SENT, *travel(PATH[0], segment("S"), hops=8)[3:]]
    found = judged(CHOSEN, events, world=world)
    assert (found.cause, found.place) == ("interface-down", "node2")
    assert "node1: svc/default/web 10.96.0.10:80: DNAT to 10.244.1.2:8080" in found.evidence


def test_the_services_own_dnat_is_no_surprise() -> None:
    """One by another rule is."""
    events = [*SENT, *travel(PATH[0], segment("S"), hops=8)[3:]]
    assert judged(CHOSEN, events).cause != "nat"
    other = segment("S")._replace(destination=IPv4Address("10.244.1.3"))
    assert judged(CHOSEN, [*events, at(PATH[0][8], other, 1_090_000)]).cause == "nat"


def test_a_rule_for_the_endpoint_is_found_though_no_interface_saw_it_translated() -> None:
    """Where veths are routed, DNAT and FORWARD follow each other unseen."""
    world = World()
    text = "-A FORWARD -d 10.244.1.2/32 -j DROP"
    world.count("node1", IPTABLES + rule(text, 0), IPTABLES + rule(text, 1))
    found = judged(SERVICE, SENT, world=world)
    assert (found.cause, found.place) == ("rule", "node1")


def test_nobody_listens_on_the_endpoints_port() -> None:
    """Which is not the Service's."""
    events = replied("10.96.0.10", "R.")
    assert "TCP port 8080 of default/b" in judged(CHOSEN, events).summary


def replied(source: str, flags: str = "S.") -> list[Event]:
    """There, and back with the endpoint's own address or the Service's."""
    there = [*SENT, *travel(PATH[0], segment("S"))[3:]]
    back = segment(flags, reply=True)
    events = travel(PATH[1], back, begin=LATER, reply=True)
    last = back._replace(source=IPv4Address(source), source_port=80)
    return [
        *there,
        *events[:7],
        *(at(PATH[1][each], last, LATER + each * 10_000) for each in (7, 8, 9)),
    ]


@pytest.mark.parametrize("setting", ["0", "1"])
def test_a_reply_that_is_not_translated_back(setting: str) -> None:
    """The client resets it; often the bridge does not ask netfilter."""
    world = World()
    name = "net.bridge.bridge-nf-call-iptables"
    world.node("node1")["sysctls"][name] = setting
    found = judged(CHOSEN, replied("10.244.1.2"), world=world)
    assert (found.cause, found.place) == ("no-undnat", "node1")
    assert (f"{name} is 0" in found.summary) is (setting == "0")
    assert judged(CHOSEN, replied("10.96.0.10"), world=world).cause != "no-undnat"
