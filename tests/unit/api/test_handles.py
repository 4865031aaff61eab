"""Nodes and pods as handles: names, addresses, interfaces, commands."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from types import SimpleNamespace

import pytest

from testbed import applying
from testbed.api.ping import NoReplyError
from testbed.api.place import CommandError, address_of
from testbed.api.testbed import Testbed
from testbed.errors import NodeError, UsageError
from testbed.packets import explanations
from tests.unit.api.conftest import POD, Engine, Reading

ANSWERED = b"""\
PATTERN: 0x7e57bed0
PING 10.244.1.2 (10.244.1.2) 56(84) bytes of data.
64 bytes from 10.244.1.2: icmp_seq=1 ttl=62 time=0.146 ms

--- 10.244.1.2 ping statistics ---
1 packets transmitted, 1 received, 0% packet loss, time 0ms
"""
LOST = b"""\
From 10.244.0.1 icmp_seq=1 Destination Host Unreachable

--- 10.244.1.2 ping statistics ---
1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms
"""


def test_pods_have_short_and_long_names(made: Testbed) -> None:
    """Those of namespace default need no namespace; each is there once."""
    pod = made.pods["netexec-node1-1"]
    assert pod is made.pods[POD]
    assert (pod.name, pod.namespace, pod.key, str(pod)) == (
        "netexec-node1-1",
        "default",
        POD,
        POD,
    )
    assert len(made.pods) == len(list(made.pods)) == len(made.cluster.pods)
    assert POD in made.pods
    assert "netexec-node1-1" in made.pods
    assert pod.node is made.nodes["node1"]


def test_changes_are_seen_by_whoever_has_the_pods(
    made: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the fixture `pods`, which lives as long as the testbed."""
    pods, fewer = made.pods, made.cluster.pods[1:]
    gone = made.cluster.pods[0].key
    assert gone in pods
    change = SimpleNamespace(cluster=replace(made.cluster, pods=fewer))
    monkeypatch.setattr(applying, "delete", lambda *_: change)
    made.delete({"kind": "Pod"})
    assert list(pods) == [pod.key for pod in fewer]
    assert made.pods is pods


def test_a_wrong_name_is_answered_by_those_that_there_are(made: Testbed) -> None:
    """As on the command line."""
    with pytest.raises(KeyError, match="there is no node 'node9'; there is node1, node2, node3"):
        made.nodes["node9"]
    with pytest.raises(KeyError, match="there is no router 'tor'; there is none"):
        made.routers["tor"]
    assert "other/netexec-node1-1" not in made.pods


def test_interfaces_are_named_as_in_captures(made: Testbed) -> None:
    """By their place, and they know their node and network namespace."""
    node, pod = made.nodes["node1"], made.pods["netexec-node1-1"]
    assert str(node.uplink) == "node1/eth0"
    assert str(node["flannel.1"]) == "node1/flannel.1"
    assert str(pod.eth0) == f"{POD}/eth0"
    assert (pod.eth0.node, pod.eth0.pod) == ("node1", POD)
    assert pod.veth == node["veth1"]
    assert pod.veth.pod == ""


def test_a_host_network_pod_has_its_node_s_interfaces(made: Testbed) -> None:
    """And its addresses, but no veth."""
    pod = made.pods["on-the-node"]
    assert pod.eth0 == made.nodes["node3"].uplink
    assert pod.addresses == made.nodes["node3"].addresses
    with pytest.raises(UsageError, match="has no veth"):
        pod.veth  # noqa: B018 - asking is what raises


def test_addresses(made: Testbed, engine: Engine) -> None:
    """A node's are those from which it may send, read once; a pod's is its own."""
    node = made.nodes["node1"]
    assert node.ip == IPv4Address("172.18.0.2")
    assert node.addresses == {IPv4Address("172.18.0.2"), IPv4Address("10.244.0.0")}
    assert node.addresses
    assert engine.ran == [("made-node1", ["ip", "-j", "address"])]
    assert made.pods["netexec-node1-1"].addresses == {IPv4Address("10.244.0.2")}


def test_addresses_are_read_anew_when_asked_to(made: Testbed, reading: Reading) -> None:
    """A restarted pod may have another; until then, one reading serves all."""
    for _ in range(2):
        assert made.pods["netexec-node1-1"].ip
    assert reading.times == 1
    made.refresh()
    assert made.nodes["node1"].ip
    assert reading.times == 2


def test_a_pod_without_an_address_says_why(made: Testbed, reading: Reading) -> None:
    """After one more look, because it may just have got one."""
    with pytest.raises(NodeError, match="pod default/web of testbed made has no address: it is"):
        made.pods["web"].ip  # noqa: B018 - asking is what raises
    assert reading.times == 2


def test_a_command_runs_in_the_pod(made: Testbed, engine: Engine) -> None:
    """Through the agent of its node; a container can be chosen."""
    engine.answers = [(0, b"out\n", b"err\n"), (0, b"", b"")]
    done = made.pods["web"].run("hostname", "-f")
    assert (done.code, done.stdout, done.stderr) == (0, "out\n", "err\n")
    made.pods["web"].container("side").run("true")
    agent = ["testbed-agent", "exec"]
    assert engine.ran == [
        ("made-node1", [*agent, "default/web", "--", "hostname", "-f"]),
        ("made-node1", [*agent, "default/web:side", "--", "true"]),
    ]


def test_a_failed_command_is_a_failed_assertion(made: Testbed, engine: Engine) -> None:
    """With what it printed, unless it may fail."""
    engine.answers = [(2, b"", b"no such thing\n")] * 2
    with pytest.raises(CommandError, match=r"(?s)`ip x` in node1 failed \(2\):.*no such thing"):
        made.nodes["node1"].run("ip", "x")
    assert made.nodes["node1"].run("ip", "x", check=False).code == 2


def test_ping_returns_what_became_of_it(made: Testbed, engine: Engine) -> None:
    """The real ping, with a pattern; its options are ping's own."""
    engine.answers = [(0, ANSWERED, b"")]
    here, there = made.pods["netexec-node1-1"], made.pods["netexec-node2-1"]
    found = here.ping(there, 1, size=100, df=True, timeout=0.5)
    assert (found.sent, found.received) == (1, 1)
    assert "icmp_seq=1 ttl=62" in found.text
    words = " ".join(engine.ran[0][1])
    assert words.endswith("ping -n -c 1 -i 0.05 -W 0.5 -p 7e57bed0 -s 100 -M do 10.244.1.2")


def test_ping_without_reply_fails_in_its_own_words(made: Testbed, engine: Engine) -> None:
    """And leaves an explanation, which never raises: here nothing can be traced."""
    engine.answers = [(1, LOST, b"")]
    with pytest.raises(NoReplyError, match=r"(?s)got no reply.*Destination Host Unreachable"):
        made.pods["netexec-node1-1"].ping(made.pods["netexec-node2-1"])
    assert "it could not be traced" in explanations.last()
    explanations.clear()


def test_a_target_is_a_handle_or_an_address(made: Testbed) -> None:
    """Anything else is told."""
    assert address_of(made.nodes["node2"]) == IPv4Address("172.18.0.3")
    assert address_of("10.244.1.7") == IPv4Address("10.244.1.7")
    with pytest.raises(
        UsageError, match="'web' is neither a node, a pod or a Service, nor an address"
    ):
        address_of("web")
    for wrong in (80, b"\x0a\xf4\x00\x01", None):
        with pytest.raises(UsageError, match="neither a node"):
            address_of(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"count": 0}, {"size": -1}, {"size": 65508}, {"timeout": 0}])
def test_a_ping_that_cannot_be_sent_is_no_lost_ping(
    made: Testbed, engine: Engine, wrong: dict[str, int]
) -> None:
    """An error of another kind than that which tests expect of a broken network."""
    with pytest.raises(UsageError, match=next(iter(wrong))):
        made.pods[POD].ping(made.nodes["node2"], **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="size=-1: use a number from 0 to 65507"):
        made.trace(POD, "node2", size=-1)
    assert not engine.ran


def test_a_place_is_no_collection(made: Testbed) -> None:
    """Python would ask for its interfaces 0, 1, 2 and so on for ever."""
    for place in (made.nodes["node1"], made.pods[POD]):
        with pytest.raises(TypeError, match="not iterable"):
            list(place)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match=r"not iterable|not a container"):
            assert "eth0" in place  # type: ignore[operator]
