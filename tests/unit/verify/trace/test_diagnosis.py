"""What is left when no rule, route or link stopped the packet."""

from __future__ import annotations

from testbed.verify.trace.diagnosis import CAUSES, diagnose, questions
from testbed.verify.trace.model import Endpoint, Probe
from tests.unit.verify.trace.world import (
    LATER,
    MARKER,
    NODE2,
    PATH,
    TCP_PROBE,
    UDP_PROBE,
    A,
    B,
    World,
    at,
    datagram,
    echo,
    error,
    hop,
    reply,
    request,
    segment,
    travel,
    verdict,
)


def test_all_well_is_no_diagnosis() -> None:
    """Answered, and every hop as expected; nothing to ask either."""
    case = World().case(reply(10), answered=True)
    assert diagnose(case) is None
    assert questions(case) == ()


def test_no_listener_by_reset() -> None:
    """The connection was refused."""
    world = World(TCP_PROBE)
    events = travel(PATH[0], segment("S"))
    events += travel(PATH[1], segment("R.", reply=True), begin=LATER, reply=True)
    found = verdict(world, events, error="Connection refused")
    assert (found.cause, found.place, found.leg) == ("no-listener", B.place, "reply")
    assert found.summary == (
        "nobody listens on TCP port 8080 of default/b: it answered with a reset"
    )


def test_no_listener_by_icmp() -> None:
    """UDP: port unreachable, from the target."""
    world = World(UDP_PROBE)
    refused = error(3, source=B.ip)._replace(quoted=datagram())
    events = [*request(10, datagram()), at(hop(B.place, "eth0", "out"), refused, LATER)]
    found = verdict(world, events, error="Connection refused")
    assert (found.cause, found.place) == ("no-listener", B.place)


def test_no_answer() -> None:
    """Delivered, and nothing came back."""
    found = verdict(World(), request(10))
    assert (found.cause, found.leg, found.place) == ("no-answer", "reply", B.place)
    assert (found.last, found.expected) == ("default/b/eth0", "default/b/eth0")


def test_no_answer_to_an_echo_that_is_ignored() -> None:
    """The setting is named."""
    world = World()
    world.after["node2"][B.place]["sysctls"] = {"net.ipv4.icmp_echo_ignore_all": "1"}
    found = verdict(world, request(10))
    assert (found.cause, found.place) == ("no-answer", B.place)
    assert found.advice == "`sysctl -w net.ipv4.icmp_echo_ignore_all=0` on default/b"


def test_no_answer_to_a_datagram() -> None:
    """An application may be silent: the advice says so, and what netexec answers."""
    found = verdict(World(UDP_PROBE), request(10, datagram()))
    assert found.cause == "no-answer"
    assert found.advice.endswith("may stay silent on UDP, and netexec answers from 6 bytes on")


def test_ttl_exceeded_in_a_loop() -> None:
    """Two nodes send to each other."""
    events = request(5)
    events += [at(PATH[0][3], echo(ttl=ttl), 1_100_000 - ttl * 1000) for ttl in (60, 58, 56)]
    events.append(at(hop("node1", "vetha", "out"), error(0, 11), 1_200_000))
    found = verdict(World(), events)
    assert (found.cause, found.place) == ("ttl-exceeded", "node1")
    assert found.evidence[0] == "seen 4 times on node1/flannel.1 out"


def test_unknown_tells_what_was_counted() -> None:
    """Nothing that was read says why."""
    world = World()
    world.node("node1")["counters"]["Ip.OutDiscards"] = 2
    found = verdict(world, request(4))
    assert (found.cause, found.place) == ("unknown", "node1")
    assert found.summary == (
        "node1/flannel.1 saw it, node1/eth0 did not, and nothing that was read says why"
    )
    assert found.evidence == ("node1: Ip.OutDiscards 0 → 2",)


def test_nothing_is_known_of_anything() -> None:
    """A node that answers nothing makes no exception."""
    world = World(after={"node1": {}, "node2": {}}, before={"node1": {}, "node2": {}})
    for hops in range(11):
        assert verdict(world, request(hops), target=NODE2).cause in CAUSES
    probe = Probe("udp", B.ip, 1, marker=MARKER)
    assert diagnose(World(probe).case([], source=Endpoint("x", "x", "", False))) is not None


def test_a_command_for_a_pod_is_run_from_its_node() -> None:
    """A pod may not change its own network namespace."""
    world = World()
    world.pods[A.place]["netns"] = "/var/run/netns/cni-1"
    world.after["node1"][A.place]["links"][1]["flags"] = []
    found = verdict(world, [])
    assert found.place == A.place
    assert found.advice.endswith("`testbed exec node1 -- ip netns exec cni-1 …`")
