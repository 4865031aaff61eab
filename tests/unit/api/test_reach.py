"""Whether one end reaches another: what is asked, and how the answer is explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from testbed.api import reach
from testbed.api.asked import protocol_of
from testbed.api.reach import Reach, described
from testbed.api.testbed import Testbed
from testbed.errors import NodeError, UsageError
from testbed.packets import explanations
from testbed.topology.service import Service, ServicePort
from testbed.verify.trace.model import Diagnosis, Endpoint, ExpectedHop, Leg, Probe, Trace
from tests.unit.api.conftest import POD, THERE


class FakeAgent:
    """Answers every probe alike."""

    def __init__(self, **answer: Any) -> None:
        self.answer = {"answered": False, "error": "", "sent_ns": 1, **answer}
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.containers: Mapping[str, str] = {}

    def ask(self, node: str, question: Mapping[str, Any]) -> dict[str, Any]:
        """Remember what was asked."""
        self.asked.append((node, question))
        return self.answer

    @contextmanager
    def conversing(
        self, client: Any, containers: Mapping[str, str], ends: Sequence[Endpoint]
    ) -> Iterator[FakeAgent]:
        """Instead of the real one."""
        del client, ends
        self.containers = containers
        yield self


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> FakeAgent:
    """Instead of the agents of the nodes."""
    fake = FakeAgent()
    monkeypatch.setattr(reach, "conversing", fake.conversing)
    return fake


def trace(diagnosis: Diagnosis | None = None, *, answered: bool = False) -> Trace:
    """A trace that found nothing else."""
    ends = (Endpoint(POD, "node1", "10.244.0.2", True), Endpoint(THERE, "node2", "", True))
    leg = Leg((), (), None, complete=False)
    return Trace("made", *ends, Probe("tcp", ""), leg, leg, answered, "", (), diagnosis)


def test_the_source_s_node_alone_is_asked(made: Testbed, agent: FakeAgent) -> None:
    """One probe from the pod's network namespace."""
    agent.answer["answered"] = True
    found = made.pods[POD].reaches(made.pods[THERE], tcp=80, timeout=0.5)
    assert found
    assert agent.containers == {"node1": "made-node1"}
    node, question = agent.asked[0]
    wanted = {"space": POD, "protocol": "tcp", "ip": "10.244.1.2", "port": 80, "seconds": 0.5}
    assert node == "node1"
    assert {key: question[key] for key in wanted} == wanted
    assert repr(found) == f"<{POD} reaches {THERE} at TCP port 80: yes, answered>"


@pytest.mark.parametrize("name", ["node1", "default/on-the-node"])
def test_nodes_send_from_their_own_namespace(made: Testbed, agent: FakeAgent, name: str) -> None:
    """Pods with hostNetwork, too."""
    source = {**made.nodes, **made.pods}[name]
    assert not source.reaches(made.pods[THERE])
    assert agent.asked[0][1]["space"] == ""
    assert agent.asked[0][1]["protocol"] == "icmp"


def test_refused_is_not_silence(made: Testbed, agent: FakeAgent) -> None:
    """The socket's own words, or how long there were none."""
    agent.answer["error"] = "Connection refused (TCP reset)"
    pod = made.pods[POD]
    assert "at TCP port 81: no, Connection refused" in repr(pod.reaches("10.244.1.2", tcp=81))
    agent.answer["error"] = ""
    found = pod.reaches("10.244.1.2", udp=53, timeout=1)
    assert "at UDP port 53: no, no answer within 1 s" in repr(found)


def test_a_source_that_does_not_run_proves_nothing(made: Testbed, agent: FakeAgent) -> None:
    """`assert not pod.reaches(…)` must not pass because the pod is dead."""
    agent.answer |= {"sent_ns": 0, "error": "default/web does not run on node1"}
    with pytest.raises(NodeError, match="sent nothing: default/web does not run on node1"):
        made.pods["web"].reaches(made.pods[THERE])


def test_a_probe_is_of_one_protocol() -> None:
    """ICMP unless a port is given."""
    assert protocol_of(None, None) == ("icmp", 0)
    assert protocol_of(None, 53) == ("udp", 53)
    with pytest.raises(UsageError, match="one of them"):
        protocol_of(80, 53)


@pytest.mark.parametrize(
    "wrong", [{"tcp": "80"}, {"tcp": 0}, {"udp": 70000}, {"timeout": 0}, {"timeout": None}]
)
def test_what_cannot_be_sent_proves_nothing(
    made: Testbed, agent: FakeAgent, wrong: dict[str, Any]
) -> None:
    """`assert not pod.reaches(…)` must not pass because of a port that there is not."""
    with pytest.raises(UsageError, match=next(iter(wrong))):
        made.pods[POD].reaches(made.pods[THERE], **wrong)
    with pytest.raises(UsageError, match="`reaches` sends IPv4"):
        made.pods[POD].reaches("fd00::1")
    assert not agent.asked


def test_a_service_is_asked_at_its_ports(made: Testbed, agent: FakeAgent) -> None:
    """Its address answers no echo request, so that silence says nothing of it."""
    ports = (ServicePort(80), ServicePort(53, "UDP"))
    web = Service("default", "web", ports, cluster_ip=IPv4Address("10.96.0.1"))
    words = r"svc/default/web answers at its ports \(80/tcp, 53/udp\), not to echo requests: "
    with pytest.raises(UsageError, match=f"{words}give one as tcp"):
        made.pods[POD].reaches(web)
    with pytest.raises(UsageError, match=f"{words}use `reaches`"):
        made.pods[POD].ping(web)  # type: ignore[arg-type]
    assert not agent.asked
    assert not made.pods[POD].reaches(web, tcp=80)


def test_the_trace_is_made_when_the_explanation_is_read() -> None:
    """Not for every truth value; and not at all where the answer came."""
    made: list[str] = []

    def traced() -> Trace:
        made.append("trace")
        return trace(Diagnosis("rule", "request", "node2/eth0", "", "node2", "node2 dropped it"))

    assert Reach("a reaches b", True, "answered", traced)
    assert explanations.last() == "a reaches b: yes, answered"
    assert not Reach("a reaches b", False, "no answer", traced)
    assert not made
    assert "traced afterwards (rule): node2 dropped it" in explanations.last()
    assert made == ["trace"]
    explanations.clear()


def test_a_diagnosis_in_words() -> None:
    """Where it was lost, what proves it, what to do."""
    found = Diagnosis(
        "no-route", "request", "node1/cni0", "node1/flannel.1", "node1", "no route", ("ip r",), "do"
    )
    assert described(trace(found)) == (
        "traced afterwards (no-route): no route\n"
        "the request was last seen at node1/cni0, expected next at node1/flannel.1\n"
        "  ip r\n"
        "do"
    )
    assert "is so no longer" in described(trace(answered=True))
    assert "no reason that is known" in described(trace())


def test_a_refusal_was_not_lost() -> None:
    """The path there and back was as it must be: nothing was expected next."""
    refused = Diagnosis("no-listener", "reply", "here/eth0", "there/eth0", "there", "nobody")
    hop = ExpectedHop("there", "node2", "eth0", "in")
    leg = Leg((hop,), (), None, complete=True)
    walked = replace(trace(refused), request=leg, reply=leg)
    assert described(walked) == "traced afterwards (no-listener): nobody"
    astray = replace(walked, reply=replace(leg, divergence=0))
    assert "last seen at here/eth0, expected next at there/eth0" in described(astray)


def test_an_explanation_never_raises() -> None:
    """It is read when a test has failed for another reason."""

    def fails() -> Trace:
        raise NodeError("node1 is gone")

    found = Reach("a reaches b", False, "no answer", fails)
    assert found.explanation.endswith("it could not be traced: node1 is gone")
