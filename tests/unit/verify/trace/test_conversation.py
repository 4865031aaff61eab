"""Talking with all nodes' agents: what each answers, and those that do not."""

from __future__ import annotations

from testbed.verify.trace.case import Question
from testbed.verify.trace.conversation import Conversation, Sent
from testbed.verify.trace.model import Endpoint, Facts, Probe
from tests.unit.verify.trace.fake_agents import FakeLine, collected, ready

PROBE = Probe("udp", "10.244.1.2", 8081, 100, dont_fragment=True, marker="abc")
POD = Endpoint("default/a", "node1", "10.244.0.2", pod=True)
NODE = Endpoint("node1", "node1", "172.18.0.2", pod=False)


def test_all_are_greeted_and_collected_from() -> None:
    """Facts before and after, and every node's frames in the order of the nodes."""
    first = FakeLine(ready({"": {"n": 1}}), collected(b"one", {"": {"n": 3}}, 1))
    second = FakeLine(ready({"": {"n": 2}}), collected(b"two", {"": {"n": 4}}, 2))
    nodes = Conversation({"node1": first, "node2": second})
    nodes.greet()
    assert nodes.facts["node1"] == Facts({"": {"n": 1}}, {})
    sent = Sent(answered=False, error="", sent_ns=5, patterns=("616263",))
    assert nodes.collect(sent, [51820], facts=True) == [b"one", b"two"]
    assert nodes.facts["node2"] == Facts({"": {"n": 2}}, {"": {"n": 4}})
    assert nodes.dropped == 3
    assert (
        first.heard
        == second.heard
        == [{"do": "collect", "patterns": ["616263"], "since_ns": 5, "udp": [51820], "facts": True}]
    )


def test_the_source_sends() -> None:
    """In its own namespace; the node's is the empty one."""
    answer = {"answered": True, "error": "", "local_port": 4, "sent_ns": 9, "patterns": ["61"]}
    answer |= {"sequence": 5}
    line = FakeLine(answer, answer)
    nodes = Conversation({"node1": line})
    assert nodes.send(PROBE, POD) == Sent(True, "", 9, ("61",), 4, 5)
    nodes.send(PROBE, NODE)
    assert line.heard[0] == {
        "do": "probe",
        "space": "default/a",
        "protocol": "udp",
        "ip": "10.244.1.2",
        "port": 8081,
        "size": 100,
        "dont_fragment": True,
        "marker": "abc",
        "seconds": 0.5,
    }
    assert line.heard[1]["space"] == ""


def test_a_node_that_does_not_run_cannot_send() -> None:
    """That is what went wrong, and no exception."""
    sent = Conversation({}).send(PROBE, POD)
    assert sent == Sent(answered=False, error="node1 cannot be asked: it does not run")


def test_an_agent_that_ends_is_left_out_afterwards() -> None:
    """The others are asked all the same; why it ended is kept."""
    other = FakeLine(ready({}), collected(b"two", {}))
    nodes = Conversation({"node1": FakeLine(), "node2": other})
    nodes.greet()
    assert list(nodes.lines) == ["node2"]
    assert list(nodes.facts) == ["node2"]
    assert nodes.collect(Sent(False, ""), (), facts=False) == [b"two"]
    sent = nodes.send(PROBE, POD)
    assert sent.error == "node1 cannot be asked: `testbed-agent trace` on t-node1 ended: killed"


def test_what_is_no_json_is_no_answer() -> None:
    """As from a tool that printed where it should not."""
    nodes = Conversation({"node1": FakeLine(b"Traceback")})
    nodes.greet()
    assert nodes.problems["node1"].startswith("the agent of node1 says b'Traceback': ")


def test_routes_are_asked_for() -> None:
    """A node that is gone has none, and says why."""
    question = Question("node1", "", "10.244.1.2", "10.244.0.2", "cni0")
    line = FakeLine({"route": [{"dev": "eth0"}], "error": ""})
    assert Conversation({"node1": line}).route(question) == {
        "route": [{"dev": "eth0"}],
        "error": "",
    }
    assert line.heard == [
        {"do": "route", "space": "", "to": "10.244.1.2", "from": "10.244.0.2", "iif": "cni0"}
    ]
    gone = Conversation({}, problems={"node1": "paused"}).route(question)
    assert gone == {"route": [], "error": "node1 cannot be asked: paused"}


def test_conntrack_of_a_node_that_is_gone_is_empty() -> None:
    """Of one that answers, it is what that lists."""
    line = FakeLine({"entries": ["tcp 6 9 src=a dst=b"], "error": ""})
    nodes = Conversation({"node1": line})
    assert nodes.conntrack("node1", ("-d", "b")) == ("tcp 6 9 src=a dst=b",)
    assert line.heard == [{"do": "conntrack", "arguments": ["-d", "b"]}]
    assert nodes.conntrack("node1", ("-d", "b")) == ()
