"""Which interfaces a user means, and the packets of several nodes as one sequence."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from testbed.agent import pcapng
from testbed.errors import NodeError, UsageError
from testbed.plan import cnis
from testbed.topology.load import load
from testbed.topology.model import Router
from testbed.verify import recording
from testbed.verify.capture import Source, capturing, sources
from testbed.verify.observed import Observed

CLUSTER = load(Path(__file__).parents[3] / "compose" / "flannel-pods.yaml", cnis=cnis())
ROUTED = replace(CLUSTER, routers=(Router("tor", 0, ("default",)),))
OBSERVED = Observed.of({"node1": "172.18.0.2", "node2": "172.18.0.3"}, {"node1": {}, "node2": {}})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["node1"], Source("node1/eth0", "node1", "eth0")),
        (["node1:flannel.1"], Source("node1/flannel.1", "node1", "flannel.1")),
        (["node2:all"], Source("node2/all", "node2", "all")),
        (["web"], Source("default/web/eth0", "node1", "eth0", "default/web")),
        (["default/web:lo"], Source("default/web/lo", "node1", "lo", "default/web")),
        (["tor:eth1"], Source("tor/eth1", "tor", "eth1")),
        (["web", "default/web:eth0"], Source("default/web/eth0", "node1", "eth0", "default/web")),
    ],
)
def test_words(words: list[str], expected: Source) -> None:
    """Nodes, routers and pods, with or without an interface; whatever is meant twice is one."""
    assert sources(ROUTED, OBSERVED, words) == (expected,)


def test_no_words_are_all_uplinks() -> None:
    """Of the nodes that run."""
    names = [each.name for each in sources(CLUSTER, OBSERVED, [])]
    assert names == ["node1/eth0", "node2/eth0"]
    with pytest.raises(UsageError, match="no node of testbed 'flannel-pods' runs"):
        sources(CLUSTER, Observed({}), [])


@pytest.mark.parametrize(
    ("word", "meant"), [("node1/eth0", "node1:eth0"), ("default/web/lo", "default/web:lo")]
)
def test_a_name_as_tables_print_it_is_told_how_to_be_written(word: str, meant: str) -> None:
    """With a colon, because a slash is what pods have behind their namespaces."""
    with pytest.raises(UsageError, match=f"; for an interface write {meant}\n"):
        sources(CLUSTER, OBSERVED, [word])


def test_every_wrong_word_at_once() -> None:
    """With what there is."""
    with pytest.raises(UsageError) as caught:
        sources(ROUTED, OBSERVED, ["nope:eth0", "node1:eth0:x", "node2:", "node3", "web:lo"])
    lines = str(caught.value).splitlines()
    assert lines[:6] == [
        "nope:eth0: there is no node, router, client or pod 'nope'",
        "node1:eth0:x: there is one colon too many",
        "node2:: an interface is missing after the colon",
        "node3: node3 does not run",
        "nodes: node1, node2, node3",
        "routers: tor",
    ]
    assert lines[6].startswith("pods: ")


class Agent:
    """A session with an agent whose answers a test decides."""

    def __init__(self, what: str, request: dict[str, Any]) -> None:
        self.what = what
        self.request = request
        self.output: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.errors = ""
        self.told: list[str] = []
        self.left = False

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *exception: object) -> None:
        self.left = True

    def chunks(self) -> Iterator[bytes]:
        """Until it is hung up on, or has said everything."""
        while chunk := self.output.get():
            yield chunk

    def send(self, line: str) -> None:
        """What it is told."""
        self.told.append(line)
        if line == "stop" and not self.errors:
            for number in range(len(self.request["interfaces"])):
                self.output.put(pcapng.statistics(number, 900, received=2, dropped=number))
            self.output.put(b"")

    def hang_up(self) -> None:
        """The end."""
        self.output.put(b"")

    def ready(self) -> None:
        """Every interface is captured."""
        self.output.put(pcapng.section("test"))
        for each in self.request["interfaces"]:
            self.output.put(pcapng.interface(each["name"], 1))
        self.output.put(pcapng.statistics(0, 1))

    def saw(self, time_ns: int, index: int = 0) -> None:
        """A packet."""
        self.output.put(pcapng.packet(index, time_ns, f"{time_ns}".encode(), 60))

    def complete(self, time_ns: int) -> None:
        """A watermark."""
        self.output.put(pcapng.statistics(0, time_ns))


class Agents(dict[str, Agent]):
    """Node → its agent, as soon as it has been asked; ``prepare`` is what each does at first."""

    def prepare(self, agent: Agent) -> None:
        """By default, be ready."""
        agent.ready()

    def session(self, client: object, container: str, argv: list[str]) -> Agent:
        """Instead of an exec."""
        del client
        agent = Agent(f"`{argv[1]}` on {container}", json.loads(argv[2].removeprefix("inline:")))
        self[container.rpartition("-")[2]] = agent
        self.prepare(agent)
        return agent


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Agents:
    """No engine is needed."""
    found = Agents()
    monkeypatch.setattr(recording, "Session", found.session)
    return found


CHOSEN = sources(CLUSTER, OBSERVED, ["node1", "node1:cni0", "node2"])
CLIENT = cast(Any, None)


def test_packets_of_all_nodes_in_the_order_of_time(agents: Agents) -> None:
    """With numbers of interfaces that hold for all of them, and what every interface counted."""
    with capturing(CLIENT, CLUSTER, CHOSEN, "icmp", snaplen=0) as found:
        for time_ns, index in ((10, 0), (30, 1), (50, 0)):
            agents["node1"].saw(time_ns, index)
        for time_ns in (20, 40):
            agents["node2"].saw(time_ns)
        found.stop()
        assert [(each.time_ns, each.index) for each in found.records] == [
            (10, 0),
            (20, 2),
            (30, 1),
            (40, 2),
            (50, 0),
        ]
        assert (found.captured, found.dropped) == (5, 1)
        assert [each.index for each in found.statistics] == [0, 1, 2]
    blocks = pcapng.Reader().feed(found.pcapng())
    described = [block.name for block in blocks if isinstance(block, pcapng.Interface)]
    assert described == ["node1/eth0", "node1/cni0", "node2/eth0"]
    assert [block.time_ns for block in blocks[3:8]] == [10, 20, 30, 40, 50]  # type: ignore[union-attr]
    assert all(agent.left for agent in agents.values())
    assert agents["node1"].request == {
        "interfaces": [
            {"name": "node1/eth0", "device": "eth0", "pod": ""},
            {"name": "node1/cni0", "device": "cni0", "pod": ""},
        ],
        "filter": "icmp",
        "snaplen": 0,
    }


def test_a_packet_waits_for_the_slowest_node(agents: Agents) -> None:
    """Until that has said that nothing older comes; then it is handed on without any stop."""
    with capturing(CLIENT, CLUSTER, CHOSEN, live=True) as found:
        batches = found.batches()
        agents["node1"].saw(10)
        agents["node1"].saw(30)
        agents["node1"].complete(100)
        agents["node2"].saw(20)
        agents["node2"].complete(25)
        taken: list[int] = []
        while len(taken) < 2:
            taken += [each.time_ns for each in next(batches)]
        assert taken == [10, 20]
        agents["node2"].complete(31)
        assert [each.time_ns for each in next(batches)] == [30]
        found.ask_to_stop()
        assert list(batches) == []


def test_enough_packets(agents: Agents) -> None:
    """The capture is asked to stop, and the file ends well."""
    with capturing(CLIENT, CLUSTER, CHOSEN, live=True) as found:
        for time_ns in range(10, 20):
            agents["node1"].saw(time_ns)
        for agent in agents.values():
            agent.complete(100)
        blocks = pcapng.Reader().feed(b"".join(found.stream(count=3)))
    records = [block.time_ns for block in blocks if isinstance(block, pcapng.Record)]
    assert (records, found.captured) == ([10, 11, 12], 3)
    assert agents["node2"].told == ["stop"]
    assert isinstance(blocks[-1], pcapng.Statistics)


def test_a_slow_reader_lets_the_agents_wait(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets do not pile up here; nothing is lost by that."""
    monkeypatch.setattr(recording, "_ROOM", 0)
    with capturing(CLIENT, CLUSTER, CHOSEN[:1], live=True) as found:
        for time_ns in range(10, 20):
            agents["node1"].saw(time_ns)
            agents["node1"].complete(time_ns)
        batches = found.batches()
        taken: list[int] = []
        while len(taken) < 10:
            taken += [each.time_ns for each in next(batches)]
        assert taken == list(range(10, 20))


def test_what_is_no_capture(agents: Agents) -> None:
    """Noise from a node is said, at the beginning and later; what came before is kept."""
    name = f"{CLUSTER.name}-node1"
    said = f"{name} sent what is no capture: not pcapng: "
    with capturing(CLIENT, CLUSTER, CHOSEN[:1]) as found:
        agents["node1"].saw(10)
        agents["node1"].output.put(bytes(100))
        with pytest.raises(NodeError, match=said):
            found.stop()
    agents.prepare = lambda agent: agent.output.put(b"panic: " * 10)  # type: ignore[method-assign]
    with pytest.raises(NodeError, match=said), capturing(CLIENT, CLUSTER, CHOSEN[:1]):
        pytest.fail("it did not begin")


def test_requests_that_cannot_be_met(agents: Agents) -> None:
    """Every problem of every node, the same one once; nothing runs."""

    def refuse(agent: Agent) -> None:
        problems = [
            {"what": "tcpdump refuses the filter", "where": "'foo'", "why": "syntax error"},
            {"what": "cannot capture there", "where": agent.what, "why": ""},
        ]
        agent.errors = "".join(json.dumps(problem) + "\n" for problem in problems)
        agent.output.put(b"")

    agents.prepare = refuse  # type: ignore[method-assign]
    with (
        pytest.raises(UsageError) as caught,
        capturing(CLIENT, CLUSTER, CHOSEN),
    ):
        pass
    assert str(caught.value).splitlines() == [
        "'foo': tcpdump refuses the filter: syntax error",
        "`capture` on flannel-pods-node1: cannot capture there",
        "`capture` on flannel-pods-node2: cannot capture there",
    ]
    assert all(agent.left for agent in agents.values())


def test_an_agent_that_fails(agents: Agents) -> None:
    """Its last words, or that it had none."""

    def fail(agent: Agent) -> None:
        agent.errors = "testbed-agent: broken" if "node1" in agent.what else ""
        agent.output.put(b"")

    agents.prepare = fail  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as caught, capturing(CLIENT, CLUSTER, CHOSEN):
        pass
    assert sorted(map(str, caught.value.exceptions)) == [
        "`capture` on flannel-pods-node2 did not end well: packets may be missing",
        "testbed-agent: broken",
    ]
    assert all(isinstance(error, NodeError) for error in caught.value.exceptions)


def test_a_node_that_stops_meanwhile(agents: Agents) -> None:
    """What it had is there, and that it may not be all is said."""
    with capturing(CLIENT, CLUSTER, CHOSEN) as found:
        agents["node2"].saw(10)
        agents["node2"].hang_up()
        with pytest.raises(NodeError, match="node2 did not end well"):
            found.stop()
        assert [each.time_ns for each in found.records] == [10]


def test_an_agent_that_does_not_stop(agents: Agents, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is hung up on."""
    monkeypatch.setattr(recording, "_STOP_SECONDS", 0.02)
    with capturing(CLIENT, CLUSTER, CHOSEN[:1]) as found:
        agents["node1"].errors = "busy"
        with pytest.raises(NodeError, match="busy"):
            found.stop()
