"""Talking with the agents of all nodes at once while a packet is traced.

The other end is ``testbed-agent trace``. A node that does not run, or whose agent does not answer,
is missing from what is known; the others are asked all the same.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from testbed.errors import NodeError
from testbed.node import archive
from testbed.node.parallel import each
from testbed.node.session import Session
from testbed.verify.trace.case import Question
from testbed.verify.trace.model import Endpoint, Facts, Probe

if TYPE_CHECKING:
    import docker

__all__ = ["Conversation", "Line", "Sent", "conversing", "marked", "sending"]

_SECONDS = 0.5
"""How long an answer to the probe is waited for."""
_PATIENCE = 30.0
"""Seconds for an agent's own answer, which takes milliseconds where the machine is not busy."""
_STOPPED = "it does not run"


class Line(Protocol):
    """What is needed of a :class:`testbed.node.session.Session`."""

    def line(self, seconds: float) -> bytes:
        """What the agent says next."""

    def send(self, line: str) -> None:
        """Say something to it."""


def marked(protocol: str, ip: str, port: int, size: int, *, dont_fragment: bool = False) -> Probe:
    """A probe with a marker of its own."""
    return Probe(protocol, ip, port, size, dont_fragment, secrets.token_hex(8))


def sending(probe: Probe, source: Endpoint, seconds: float) -> dict[str, Any]:
    """What an agent is asked for it to send a probe, and to wait so long for the answer."""
    return {
        "do": "probe",
        "space": source.place if source.pod else "",
        "protocol": probe.protocol,
        "ip": probe.ip,
        "port": probe.port,
        "size": probe.size,
        "dont_fragment": probe.dont_fragment,
        "marker": probe.marker,
        "seconds": seconds,
    }


@dataclass(frozen=True, slots=True)
class Sent:
    """What the sender's socket told, and by what the probe is recognized."""

    answered: bool
    error: str
    sent_ns: int = 0
    patterns: tuple[str, ...] = ()
    """In hexadecimal: bytes of which each of its frames holds some."""
    local_port: int = 0
    """Of the sender's socket; 0 for ICMP."""
    sequence: int = 0
    """TCP's initial sequence number; 0 for other protocols."""


@dataclass(slots=True)
class Conversation:
    """The agents that answer, and what each node said of its kernel."""

    lines: dict[str, Line]
    before: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    after: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    """Node → why it cannot be asked."""
    dropped: int = 0
    """How many frames the kernel had no room for."""

    def greet(self) -> None:
        """Wait until every agent's taps are open; what was before is read then, too."""
        self.before = {node: answer["facts"] for node, answer in self._all(self._heard)}

    def send(self, probe: Probe, source: Endpoint) -> Sent:
        """Let the source send the probe, and wait for its answer."""
        try:
            answer = self.ask(source.node, sending(probe, source, _SECONDS))
        except NodeError as error:
            return Sent(answered=False, error=str(error))
        told = (answer["answered"], answer["error"], answer["sent_ns"])
        return Sent(*told, tuple(answer["patterns"]), answer["local_port"], answer["sequence"])

    def collect(self, sent: Sent, udp: Sequence[int], *, facts: bool) -> list[bytes]:
        """Every node's frames of the probe; ``facts`` also reads what is after it."""
        question = {
            "do": "collect",
            "patterns": sent.patterns,
            "since_ns": sent.sent_ns,
            "udp": udp,
            "facts": facts,
        }
        answers = self._all(lambda node: self.ask(node, question))
        self.dropped = sum(answer["dropped"] for _, answer in answers)
        if facts:
            self.after = {node: answer["facts"] for node, answer in answers}
        return [base64.b64decode(answer["pcapng"]) for _, answer in answers]

    @property
    def facts(self) -> dict[str, Facts]:
        """What each node that runs said of its kernel."""
        return {node: Facts(said, self.after.get(node, {})) for node, said in self.before.items()}

    def route(self, question: Question) -> Mapping[str, Any]:
        """What a node's kernel says to a question for a route; nothing where it is gone."""
        asked = {"do": "route", "space": question.space, "to": question.to}
        asked |= {"from": question.source, "iif": question.interface}
        try:
            return self.ask(question.node, asked)
        except NodeError as error:
            return {"route": [], "error": str(error)}

    def conntrack(self, node: str, arguments: Sequence[str]) -> tuple[str, ...]:
        """The connections that a node tracks, as ``conntrack -L`` with ``arguments`` lists them."""
        try:
            answer = self.ask(node, {"do": "conntrack", "arguments": list(arguments)})
        except NodeError:
            return ()
        return tuple(answer["entries"])

    def ask(self, node: str, question: Mapping[str, Any]) -> dict[str, Any]:
        """One question, one answer.

        Raises:
            NodeError: the agent is gone, or says nothing.
        """
        if node not in self.lines:
            raise NodeError(f"{node} cannot be asked: {self.problems.get(node, _STOPPED)}")
        self.lines[node].send(json.dumps(question))
        return self._heard(node)

    def _heard(self, node: str) -> dict[str, Any]:
        said = self.lines[node].line(_PATIENCE)
        try:
            return dict(json.loads(said))
        except ValueError as error:
            raise NodeError(f"the agent of {node} says {said[:80]!r}: {error}") from error

    def _all(self, ask: Callable[[str], dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
        """Every agent's answer; one that gives none is not asked again."""

        def one(node: str) -> dict[str, Any] | None:
            try:
                return ask(node)
            except NodeError as error:
                self.problems[node] = str(error)
                return None

        answers = zip(list(self.lines), each(one, self.lines), strict=True)
        found = [(node, answer) for node, answer in answers if answer is not None]
        for node in self.problems:
            self.lines.pop(node, None)
        return found


@contextmanager
def conversing(
    client: docker.DockerClient,
    containers: Mapping[str, str],
    ends: Sequence[Endpoint],
) -> Iterator[Conversation]:
    """Open taps on every node, and in the pods at the ends of the path."""
    with ExitStack() as stack:

        def open_line(item: tuple[str, str]) -> tuple[str, Line | None, str]:
            node, container = item
            pods = dict.fromkeys(end.place for end in ends if end.pod and end.node == node)
            request = json.dumps({"node": node, "pods": list(pods)})
            try:
                word = archive.deliver(client, container, request)
                argv = ["testbed-agent", "trace", word]
                return node, stack.enter_context(Session(client, container, argv)), ""
            except NodeError as error:
                return node, None, str(error)

        opened = each(open_line, containers.items())
        conversation = Conversation({node: line for node, line, _ in opened if line is not None})
        conversation.problems |= {node: why for node, line, why in opened if line is None}
        conversation.greet()
        yield conversation
