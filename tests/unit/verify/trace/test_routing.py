"""Routes, the reverse path filter, ARP, and where tunnels lead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.verify.trace.case import Question
from testbed.verify.trace.diagnosis import diagnose, questions
from tests.unit.verify.trace.world import (
    PATH,
    VTEP,
    A,
    B,
    World,
    at,
    echo,
    error,
    hop,
    reply,
    request,
    travel,
    verdict,
    vxlan,
)


def test_a_missing_route_lets_the_default_route_take_it() -> None:
    """It leaves plain by eth0; that there is a default route does not make it wrong-route."""
    world = World(
        answers={B.ip: {"route": [{"dst": B.ip, "gateway": "172.18.0.1", "dev": "eth0"}]}}
    )
    del world.node("node1")["routes"][2]
    plain = at(hop("node1", "eth0", "out"), echo(ttl=63), 1_040_000)
    case = world.case([*request(3), plain])
    assert questions(case) == (
        Question("node1", "", B.ip, A.ip, "cni0"),
        Question("node1", "", A.ip),
    )
    found = verdict(world, [*request(3), plain])
    assert (found.cause, found.leg, found.place) == ("no-route", "request", "node1")
    assert (found.last, found.expected) == ("node1/eth0", "node1/flannel.1")
    assert found.summary == (
        "node1 has no route to 10.244.1.2: its default route took it, by eth0 to 172.18.0.1"
    )
    assert found.evidence == (
        "node1: ip route get 10.244.1.2: 10.244.1.2 via 172.18.0.1 dev eth0",
        "node1: default via 172.18.0.1 dev eth0",
    )
    assert "testbed up" in found.advice


def test_no_route_at_all() -> None:
    """Without a default route the kernel counts it and says so."""
    world = World(
        answers={B.ip: {"route": [], "error": "RTNETLINK answers: Network is unreachable"}}
    )
    del world.node("node1")["routes"][2]
    del world.node("node1")["routes"][0]
    world.node("node1")["counters"]["IpExt.InNoRoutes"] = 1
    sent = error(0)
    found = verdict(world, [*request(3), at(hop("node1", "vetha", "out"), sent, 1_050_000)])
    assert (found.cause, found.place) == ("no-route", "node1")
    assert "node1: IpExt.InNoRoutes 0 → 1" in found.evidence
    assert found.evidence[-1] == ("node1/vetha saw ICMP network unreachable (3/0) from 10.244.0.1")


def test_a_wrong_route() -> None:
    """A route of its own leads elsewhere."""
    world = World(
        answers={B.ip: {"route": [{"dst": B.ip, "gateway": "172.18.0.3", "dev": "eth0"}]}}
    )
    world.node("node1")["routes"][2] |= {"gateway": "172.18.0.3", "dev": "eth0"}
    found = verdict(world, request(3))
    assert (found.cause, found.place) == ("wrong-route", "node1")
    assert found.summary == "node1 sent it by eth0 to node2 (172.18.0.3), not by flannel.1"
    assert "node1: 10.244.1.0/24 via 172.18.0.3 dev eth0" in found.evidence


def test_a_wrong_route_of_a_packet_that_arrives() -> None:
    """Answered, but not encapsulated: the trace is not what the topology demands."""
    world = World(
        answers={B.ip: {"route": [{"dst": B.ip, "gateway": "172.18.0.3", "dev": "eth0"}]}}
    )
    world.node("node1")["routes"][2] |= {"gateway": "172.18.0.3", "dev": "eth0"}
    plain = [
        at(replace(each, encapsulation=None), echo(ttl=63), 1_040_000) for each in PATH[0][4:6]
    ]
    events = [*request(3), *plain, *travel(PATH[0], echo())[7:]]
    found = verdict(world, events, answered=True)
    assert (found.cause, found.leg) == ("wrong-route", "request")


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
def test_a_refusing_route(kind: str) -> None:
    """What ip route get says of a blackhole is no help; the route is."""
    world = World(answers={B.ip: {"route": [], "error": "RTNETLINK answers: Invalid argument"}})
    world.node("node1")["routes"].insert(0, {"type": kind, "dst": "10.244.1.0/25"})
    found = verdict(world, request(3))
    assert (found.cause, found.place) == ("blackhole", "node1")
    assert f"its {kind} route 10.244.1.0/25" in found.summary


def test_a_missing_forwarding_entry() -> None:
    """It entered flannel.1, and nothing left."""
    world = World()
    world.node("node1")["fdb"] = []
    found = verdict(world, request(4))
    assert (found.cause, found.place) == ("no-fdb", "node1")
    assert (found.last, found.expected) == ("node1/flannel.1", "node1/eth0")
    assert VTEP["node2"] in found.summary


def test_a_wrong_forwarding_entry() -> None:
    """It went to node3, which saw it."""
    world = World()
    world.node("node1")["fdb"][0]["dst"] = "172.18.0.4"
    outer = vxlan(echo(ttl=63), "node1", "node3")
    strays = [
        at(PATH[0][4], outer, 1_040_000),
        at(hop("node3", "eth0", "in"), outer, 1_050_000),
    ]
    found = verdict(world, [*request(4), *strays])
    assert (found.cause, found.place) == ("wrong-fdb", "node1")
    assert found.last == "node3/eth0"
    assert found.summary == (
        "node1 sent it to node3: flannel.1's forwarding entry for 9e:00:00:00:00:02 names"
        " 172.18.0.4, not 172.18.0.3 (node2)"
    )


def test_a_wrong_neighbour_of_the_tunnel() -> None:
    """The inner frame names another node's device."""
    world = World()
    events = request(3)
    frame = echo(ttl=63)._replace(destination_mac=VTEP["node3"])
    events.append(at(PATH[0][3], frame, 1_030_000))
    world.node("node1")["fdb"].append(
        {"mac": VTEP["node3"], "ifname": "flannel.1", "dst": "172.18.0.4"}
    )
    found = verdict(world, events)
    assert (found.cause, found.place) == ("no-neighbour", "node1")


def test_a_missing_neighbour_of_the_tunnel() -> None:
    """flannel installs it; nobody answers ARP there."""
    world = World(
        answers={B.ip: {"route": [{"dst": B.ip, "gateway": "10.244.1.0", "dev": "flannel.1"}]}}
    )
    world.node("node1")["neighbours"] = [
        {"dst": "10.244.1.0", "dev": "flannel.1", "state": ["INCOMPLETE"]}
    ]
    found = verdict(world, request(3))
    assert (found.cause, found.place) == ("no-neighbour", "node1")
    assert "10.244.1.0 on flannel.1" in found.summary


def test_arp_unanswered() -> None:
    """The pod's address is asked for on the bridge of its node."""
    world = World(answers={B.ip: {"route": [{"dst": B.ip, "dev": "cni0"}]}})
    world.node("node2")["neighbours"].append({"dst": B.ip, "dev": "cni0", "state": ["FAILED"]})
    found = verdict(world, request(7))
    assert (found.cause, found.place) == ("arp-unanswered", "node2")
    assert found.evidence == ("node2: 10.244.1.2 dev cni0 FAILED",)


def test_the_reverse_path_filter() -> None:
    """The request came in by flannel.1, and the way back leaves by eth0."""
    world = World(
        answers={
            B.ip: {"route": [], "error": "RTNETLINK answers: Invalid cross-device link"},
            A.ip: {"route": [{"dst": A.ip, "gateway": "172.18.0.2", "dev": "eth0"}]},
        }
    )
    world.node("node2")["counters"]["TcpExt.IPReversePathFilter"] = 1
    world.node("node2")["sysctls"]["net.ipv4.conf.flannel/1.rp_filter"] = "1"
    world.node("node2")["sysctls"]["net.ipv4.conf.all.rp_filter"] = "0"
    found = verdict(world, request(7))
    assert (found.cause, found.place) == ("rp-filter", "node2")
    assert found.summary == (
        "node2 dropped it: the reverse path filter of flannel.1 is on, and the route back to"
        " 10.244.0.2 leaves by eth0"
    )
    assert found.evidence == (
        "node2: TcpExt.IPReversePathFilter 0 → 1",
        "node2: net.ipv4.conf.all.rp_filter = 0",
        "node2: net.ipv4.conf.flannel/1.rp_filter = 1",
        "node2: ip route get 10.244.0.2: 10.244.0.2 via 172.18.0.2 dev eth0",
    )


def test_forwarding_off() -> None:
    """The kernel counts what is not its own as an address error."""
    world = World()
    world.node("node1")["sysctls"]["net.ipv4.ip_forward"] = "0"
    world.node("node1")["counters"]["Ip.InAddrErrors"] = 1
    found = verdict(world, request(3))
    assert (found.cause, found.place) == ("forwarding-off", "node1")
    assert found.evidence == ("node1: Ip.InAddrErrors 0 → 1",)


def test_no_way_back() -> None:
    """The pod lost its default route."""
    world = World(
        answers={A.ip: {"route": [], "error": "RTNETLINK answers: Network is unreachable"}}
    )
    world.after["node2"][B.place]["counters"] = {"Ip.OutNoRoutes": 1}
    found = verdict(world, request(10))
    assert (found.cause, found.place, found.leg) == ("no-route", B.place, "reply")
    assert "default/b: Ip.OutNoRoutes 0 → 1" in found.evidence


def test_the_reply_is_lost() -> None:
    """The same causes, on the way back."""
    world = World()
    world.node("node2")["fdb"] = []
    found = verdict(world, reply(4))
    assert (found.cause, found.leg, found.place) == ("no-fdb", "reply", "node2")
    assert (found.last, found.expected) == ("node2/flannel.1", "node2/eth0")


def test_plain_routing_to_the_wrong_node() -> None:
    """host-gw: everything looks as it must, but the next hop is another node."""
    path = (
        (
            hop(A.place, "eth0", "out", node="node1"),
            hop("node1", "vetha", "in"),
            hop("node1", "cni0", "in"),
            hop("node1", "eth0", "out"),
            hop("node2", "eth0", "in"),
            hop("node2", "cni0", "out"),
            hop(B.place, "eth0", "in", node="node2"),
        ),
        (),
    )
    world = World()
    world.node("node1")["routes"][2] = {
        "dst": "10.244.1.0/24",
        "gateway": "172.18.0.4",
        "dev": "eth0",
    }
    events = [at(each, echo(), 1000 + count) for count, each in enumerate(path[0][:4])]
    found = diagnose(world.case(events, path=path))
    assert found is not None
    assert (found.cause, found.place) == ("wrong-route", "node1")
    assert found.summary == "node1 sent it by eth0 to node3 (172.18.0.4), not to node2"


def test_the_kernels_routing_is_asked_about_the_outer_packet_too() -> None:
    """Where it is to be encapsulated."""
    assert questions(World().case(request(4))) == (Question("node1", "", "172.18.0.3"),)
    assert questions(World().case(request(2))) == (Question("node1", "", A.ip),)
    assert questions(World().case([])) == (Question("node1", A.place, B.ip),)


@pytest.mark.parametrize("prefix", ["default", "10.244.0.0/16"])
def test_plain_routing_by_a_shorter_prefix(prefix: str) -> None:
    """The interface is the right one, but the gateway is not the next node."""
    path = (
        (
            hop(A.place, "eth0", "out", node="node1"),
            hop("node1", "vetha", "in"),
            hop("node1", "eth0", "out"),
            hop("node2", "eth0", "in"),
        ),
        (),
    )
    world = World(
        answers={B.ip: {"route": [{"dst": B.ip, "gateway": "172.18.0.1", "dev": "eth0"}]}}
    )
    world.node("node1")["routes"][2] = {"dst": prefix, "gateway": "172.18.0.1", "dev": "eth0"}
    world.node("node1")["neighbours"] = [{"dst": "172.18.0.1", "dev": "eth0", "state": ["FAILED"]}]
    found = diagnose(world.case(request(2), path=path))
    assert found is not None
    assert found.cause == ("no-route" if prefix == "default" else "wrong-route")
    assert found.place == "node1"


@pytest.mark.parametrize(
    ("earlier", "cause"),
    [
        ([{"dst": "default", "gateway": "172.18.0.1", "dev": "eth0"}], "no-route"),
        ([{"dst": "172.18.0.0/16", "dev": "eth0"}], "no-route"),
        ([{"dst": "10.244.1.0/24", "type": "blackhole"}], "blackhole"),
        ([{"dst": "10.244.1.0/24", "gateway": "172.18.0.3", "dev": "eth0"}], "wrong-route"),
    ],
)
def test_what_was_repaired_meanwhile(earlier: list[dict[str, str]], cause: str) -> None:
    """BIRD puts a route back in a moment, but the packet had none."""
    way = {"dst": B.ip, "gateway": "10.244.1.0", "dev": "flannel.1"}
    world = World(answers={B.ip: {"route": [way]}})
    world.before["node1"][""]["routes"] = earlier
    found = verdict(world, request(3))
    assert (found.cause, found.place) == (cause, "node1")
    assert found.evidence[-1] == ("node1: since then: 10.244.1.0/24 via 10.244.1.0 dev flannel.1")


def test_a_route_that_hides_the_right_one() -> None:
    """What was typed must go; nothing has to be put back."""
    astray = {"dst": B.ip, "gateway": "172.18.0.4", "dev": "eth0"}
    world = World(answers={B.ip: {"route": [astray]}})
    world.node("node1")["routes"].append(astray)
    found = verdict(world, request(3))
    assert (found.cause, found.place) == ("wrong-route", "node1")
    assert found.advice == (
        "`ip route del 10.244.1.2 via 172.18.0.4 dev eth0` on node1:"
        " `10.244.1.0/24 via 10.244.1.0 dev flannel.1` is behind it"
    )


def test_a_rule_for_packets_with_a_mark() -> None:
    """The kernel, asked without the mark, names the right way."""
    right = {"dst": B.ip, "gateway": "10.244.1.0", "dev": "flannel.1"}
    world = World(answers={B.ip: {"route": [right]}})
    world.node("node1")["rules"] = [
        {"priority": 99, "src": "all", "fwmark": "0x5", "action": "unreachable"}
    ]
    world.node("node1")["counters"]["IpExt.InNoRoutes"] = 1
    found = verdict(world, request(3))
    assert (found.cause, found.place) == ("blackhole", "node1")
    assert "packets with a mark" in found.summary
    assert any("fwmark 0x5" in line for line in found.evidence)


def test_the_gateway_of_a_pod_does_not_answer() -> None:
    """Its next machine is its node, not the target's."""
    route = {"dst": B.ip, "gateway": "10.244.0.1", "dev": "eth0"}
    world = World(answers={B.ip: {"route": [route]}})
    pod = world.after["node1"][A.place]
    pod["routes"] = [{"dst": "default", "gateway": "10.244.0.1", "dev": "eth0"}]
    pod["neighbours"] = [{"dst": "10.244.0.1", "dev": "eth0", "state": ["INCOMPLETE"]}]
    found = verdict(world, [])
    assert (found.cause, found.place) == ("arp-unanswered", A.place)
