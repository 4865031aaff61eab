"""Which leg is lost where the request came to the last interface, and a pod that asks itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.verify.trace.model import Event
from tests.unit.verify.trace.world import (
    FILTER,
    ICMP_PROBE,
    LATER,
    NODE2,
    PATH,
    TCP_PROBE,
    A,
    B,
    World,
    at,
    echo,
    hop,
    link,
    reply,
    request,
    rule,
    segment,
    travel,
    verdict,
)

LO = (hop(A.place, "lo", "out", node="node1"), hop(A.place, "lo", "in", node="node1"))
SELF = {"source": A, "target": A, "path": (LO, LO)}
HOOKED = """table inet broken {{
	chain c {{
		type filter hook {0} priority filter - 5; policy accept;
		{1}
	}}
}}
"""


@pytest.mark.parametrize(
    ("text", "leg"),
    [
        ("-A INPUT -p icmp -j DROP", "request"),
        ("-A OUTPUT -p icmp -j DROP", "reply"),
        (f"-A OUTPUT -d {A.ip}/32 -j DROP", "reply"),
        (f"-A MINE -s {A.ip}/32 -j DROP", "request"),
        (f"-A MINE -d {A.ip}/32 -j DROP", "reply"),
    ],
)
def test_a_rule_behind_the_last_interface(text: str, leg: str) -> None:
    """On its way in it dropped the request, on its way out the reply."""
    world = World()
    world.count("node2", "", rule(text, 1), space=B.place)
    found = verdict(world, request(10))
    assert (found.cause, found.place, found.leg) == ("rule", B.place, leg)


@pytest.mark.parametrize(("hook", "leg"), [("input", "request"), ("output", "reply")])
@pytest.mark.parametrize("body", ["counter packets {0} bytes 84 drop", "meta l4proto icmp drop"])
def test_nftables_by_their_hook(hook: str, leg: str, body: str) -> None:
    """With a counter or without."""
    world = World()
    texts = [HOOKED.format(hook, body.format(each)) for each in (0, 1)]
    world.count("node2", *texts, space=B.place, key="nft")
    found = verdict(world, request(10))
    assert (found.cause, found.place, found.leg) == ("rule", B.place, leg)


def test_a_reset_that_a_rule_made() -> None:
    """The reply arrived, but what was lost is the request."""
    world = World(TCP_PROBE)
    text = "-A INPUT -p tcp -j REJECT --reject-with tcp-reset"
    world.count("node2", "", rule(text, 1), space=B.place)
    events = request(10, segment("S"))
    events += travel(PATH[1], segment("R.", reply=True), begin=LATER, reply=True)
    found = verdict(world, events, error="Connection refused")
    assert (found.cause, found.place, found.leg) == ("rule", B.place, "request")


def test_a_rule_behind_the_replys_last_interface() -> None:
    """The sender's own drops what came back to it."""
    world = World()
    text = f"-A INPUT -s {B.ip}/32 -j DROP"
    world.count("node1", "", rule(text, 1), space=A.place)
    found = verdict(world, reply(10))
    assert (found.cause, found.place, found.leg) == ("rule", A.place, "reply")


def test_the_reverse_path_filter_of_the_last_interface() -> None:
    """It dropped the request."""
    world = World()
    world.node("node2")["counters"]["TcpExt.IPReversePathFilter"] = 1
    to_node2 = (hop("node1", "eth0", "out"), hop("node2", "eth0", "in"))
    events = [at(each, echo(), 1_000_000 + count) for count, each in enumerate(to_node2)]
    found = verdict(world, events, target=NODE2, path=(to_node2, ()))
    assert (found.cause, found.place, found.leg) == ("rp-filter", "node2", "request")
    world.answers[A.ip] = {"route": [], "error": "RTNETLINK answers: Network is unreachable"}
    found = verdict(world, events, target=NODE2, path=(to_node2, ()))
    assert (found.cause, found.place, found.leg) == ("no-route", "node2", "request")
    assert found.summary.endswith(f"eth0 is on, and there is no route back to {A.ip}")


@pytest.mark.parametrize(("protocol", "cause"), [("bird", "no-route"), ("boot", "blackhole")])
def test_a_rule_that_checks_the_reverse_path_finds_none(protocol: str, cause: str) -> None:
    """Calico's own drops what a pod sends whose route is missing: that is the cause."""
    world = World()
    blackhole = {"type": "blackhole", "dst": "10.244.0.0/26", "protocol": protocol}
    world.node("node1")["routes"].append(blackhole)
    text = "-A cali-PREROUTING -m rpfilter --validmark --invert -j DROP"
    world.count("node1", FILTER, rule(text, 1))
    found = verdict(world, request(2))
    assert (found.cause, found.place) == (cause, "node1")
    assert found.summary.endswith(f"there is no route back to {A.ip}")


def test_a_pod_without_its_address() -> None:
    """What came to its eth0 is not for it any more."""
    world = World()
    world.after["node2"][B.place]["addresses"] = [{"ifname": "lo", "addr_info": []}]
    found = verdict(world, request(10))
    assert (found.cause, found.place, found.leg) == ("pod-gone", B.place, "request")


def test_a_masqueraded_reply_is_forwarded_to_the_pod() -> None:
    """Rules of FORWARD see the pod's address, those before the node's, as the uplink did."""
    there = (hop("node1", "vetha", "in"), hop("node1", "eth0", "out"), hop("node2", "eth0", "in"))
    back = (hop("node2", "eth0", "out"), hop("node1", "eth0", "in"), hop("node1", "vetha", "out"))
    events = [at(each, echo(), 1_000_000 + count) for count, each in enumerate(there)]
    masked = echo(reply=True)._replace(
        source=World().nodes["node2"], destination=World().nodes["node1"]
    )
    events += [at(each, masked, LATER + count) for count, each in enumerate(back[:2])]
    for text in (
        f"-A FORWARD -s 172.18.0.3/32 -d {A.ip}/32 -j DROP",
        "-A PREROUTING -s 172.18.0.3/32 -d 172.18.0.2/32 -j DROP",
    ):
        world = World()
        world.answers["172.18.0.2"] = {"route": [{"dst": "172.18.0.2", "dev": "lo"}]}
        world.count("node1", FILTER, rule(text, 1))
        found = verdict(world, events, target=NODE2, path=(there, back))
        assert (found.cause, found.place, found.leg) == ("rule", "node1", "reply")


def own(**after: object) -> World:
    """Pod a, which had a local route to itself."""
    world = World(replace(ICMP_PROBE, ip=A.ip))
    world.answers[A.ip] = {"route": [{"type": "local", "dst": A.ip, "dev": "lo"}]}
    facts = {
        "links": [link("lo", "LOOPBACK", "UP"), link("eth0")],
        "routes": [
            {"dst": "default", "gateway": "169.254.1.1", "dev": "eth0"},
            {"type": "local", "dst": A.ip, "dev": "eth0", "table": "local"},
        ],
    }
    world.before["node1"][A.place] |= facts
    world.after["node1"][A.place] |= facts | after
    return world


def test_a_rule_of_its_own_that_counts_nothing() -> None:
    """That the default route would be another way is nothing new: packets to itself stay."""
    text = HOOKED.format("output", f"ip daddr {A.ip} drop")
    found = verdict(own(nft=text), [], **SELF)
    assert (found.cause, found.place, found.leg) == ("rule", A.place, "request")


def test_no_local_route() -> None:
    """The packet leaves and is sent back, but that is not for the pod any more."""
    world = own(routes=[{"dst": "10.244.0.0/24", "gateway": "10.244.0.1", "dev": "eth0"}])
    world.answers[A.ip] = {"route": [{"dst": A.ip, "gateway": "10.244.0.1", "dev": "eth0"}]}
    packet = echo()._replace(destination=echo().source)
    sights = [replace(LO[0], interface="eth0"), replace(LO[1], interface="eth0")]
    events: list[Event] = [at(each, packet, 1_000_000 + n) for n, each in enumerate(sights)]
    found = verdict(world, events, **SELF)
    assert (found.cause, found.place, found.leg) == ("wrong-route", A.place, "request")


def test_a_policy_that_refuses_ones_own_packets() -> None:
    """The kernel says of them what it says where there is no route; but there is one."""
    world = own(rules=[{"priority": 5, "src": "all", "dst": A.ip, "action": "unreachable"}])
    world.answers[A.ip] = {"route": [], "error": "RTNETLINK answers: Network is unreachable"}
    found = verdict(world, [], **SELF)
    assert (found.cause, found.place) == ("blackhole", A.place)
    assert found.summary.endswith(f"refuses packets to {A.ip}")


def test_a_filter_that_has_no_counter_of_its_own() -> None:
    """clsact, which holds it, queues nothing: its drops are the filter's."""
    qdisc = {"kind": "clsact", "handle": "ffff:", "dev": "lo"}
    filters = (
        "dev lo egress\nfilter protocol ip pref 9 bpf chain 0 \nfilter protocol ip pref 9 bpf"
        " chain 0 handle 0x1 bytecode '1,6 0 0 2' direct-action \n"
    )
    world = own(qdiscs=[qdisc | {"drops": 1}], filters=filters)
    world.before["node1"][A.place]["qdiscs"] = [qdisc | {"drops": 0}]
    found = verdict(world, [], **SELF)
    assert (found.cause, found.place) == ("rule", A.place)
    assert "the tc filter on lo egress" in found.summary
    assert found.advice.startswith("`tc filter del dev lo egress pref 9`")
