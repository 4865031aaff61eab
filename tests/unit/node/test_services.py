"""Delivering Services to a node, and reading what it keeps."""

from __future__ import annotations

import json
from typing import Any, cast

import docker
import pytest

from testbed.errors import ApplyError
from testbed.node import archive, services
from testbed.node.services import Kept

CLIENT = cast(docker.DockerClient, None)
LISTING = cast(Any, {"Id": "1", "State": "running"})


def answering(monkeypatch: pytest.MonkeyPatch, out: str, err: str = "") -> list[list[str]]:
    """Have the node answer; the commands that it was given."""
    asked: list[list[str]] = []

    def run(_: object, container: str, argv: list[str], seconds: float) -> tuple[int, bytes, bytes]:
        asked.append(argv)
        return 0, out.encode(), err.encode()

    monkeypatch.setattr(services, "run", run)
    return asked


@pytest.mark.parametrize(
    "answer", [{"ok": True, "changes": ["-A X"]}, {"ok": False, "stale": "g0"}]
)
def test_an_answer_is_returned(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]) -> None:
    """Also that the node holds something else than the document is about."""
    asked = answering(monkeypatch, json.dumps(answer) + "\n")
    assert services.deliver(CLIENT, "t-node1", {"mode": "iptables"}) == answer
    assert asked == [["testbed-agent", "services", 'inline:{"mode":"iptables"}']]


def test_a_refusal_names_node_line_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tool's words."""
    error = {"what": "iptables-restore refused the rules", "where": "-A X -j Y", "why": "no chain"}
    answering(monkeypatch, json.dumps({"ok": False, "error": error}))
    with pytest.raises(ApplyError) as raised:
        services.deliver(CLIENT, "t-node1", {})
    assert str(raised.value) == (
        "t-node1: Services could not be applied: "
        "iptables-restore refused the rules: -A X -j Y: no chain"
    )


def test_no_answer_shows_what_was_printed_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent of an older image does not know the verb."""
    answering(monkeypatch, "", "testbed-agent: unknown verb 'services'\n")
    with pytest.raises(ApplyError, match="unknown verb 'services'"):
        services.deliver(CLIENT, "t-node1", {})


def state(generation: str, serial: int) -> str:
    """The first line of what a node keeps."""
    return json.dumps({"generation": generation, "serial": serial})


def test_what_a_node_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for its state, then parts of what it was told."""
    lines = [state("g1", 7), '{"d/b":{"spec":{}}}', '{"d/a":{"spec":{}}}']
    answering(monkeypatch, "\n".join(lines) + "\n")
    inputs: dict[str, Any] = {"d/a": {"spec": {}}, "d/b": {"spec": {}}}
    assert services.latest(CLIENT, [LISTING]) == Kept("g1", inputs, 7)


def test_what_a_stopped_node_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, from archives."""
    files = {"state.json": state("g1", 7).encode(), "inputs": b'{"d/a":{"spec":{}}}'}

    def read(_: object, container: str, path: str) -> list[bytes]:
        return [files[path.rpartition("/")[2]]]

    monkeypatch.setattr(archive, "read", lambda *words: read(*words)[0])
    monkeypatch.setattr(archive, "read_all", read)
    stopped = cast(Any, {"Id": "1", "State": "exited"})
    assert services.latest(CLIENT, [stopped]) == Kept("g1", {"d/a": {"spec": {}}}, 7)


def test_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no Services were ever delivered."""
    answering(monkeypatch, "")
    assert services.latest(CLIENT, [LISTING]) == Kept()


def told(monkeypatch: pytest.MonkeyPatch, *states: tuple[str, int]) -> Kept:
    """What several nodes keep together; each was told of a Service of its own."""
    texts = {
        str(number): [state(*each).encode(), f'{{"d/{number}":{{}}}}'.encode()]
        for number, each in enumerate(states)
    }
    monkeypatch.setattr(services, "_texts", lambda _, listing: texts[listing["Id"]])
    return services.latest(CLIENT, [cast(Any, {"Id": key}) for key in texts])


def test_the_node_that_was_told_last_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one did not run then."""
    assert told(monkeypatch, ("g1", 1), ("g2", 2), ("g1", 1)) == Kept("g2", {"d/1": {}}, 2)


def test_an_interruption_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a generation everything is sent again, but Services are still known."""
    assert told(monkeypatch, ("", 1), ("", 1)) == Kept("", {"d/0": {}}, 1)
    assert told(monkeypatch, ("", 1), ("g1", 1)) == Kept("g1", {"d/1": {}}, 1)
