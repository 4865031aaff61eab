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


def telling(
    monkeypatch: pytest.MonkeyPatch, *nodes: tuple[str, int], where: str = "running"
) -> Kept:
    """What several nodes keep together; each was told of Services of its own."""

    def lines(container: str, path: str) -> list[bytes]:
        generation, serial = nodes[int(container)]
        if path.endswith("state.json"):
            return [json.dumps({"generation": generation, "serial": serial}).encode()]
        return [f'{{"d/{container}b":{{}}}}'.encode(), f'{{"d/{container}a":{{}}}}'.encode()]

    def run(_: object, container: str, argv: list[str], seconds: float) -> tuple[int, bytes, bytes]:
        return 0, b"\n".join(lines(container, argv[2].split()[1])) + b"\n", b""

    monkeypatch.setattr(services, "run", run)
    monkeypatch.setattr(archive, "read_all", lambda _, container, path: lines(container, path))
    listings = [cast(Any, {"Id": str(n), "State": where}) for n in range(len(nodes))]
    return services.latest(CLIENT, listings)


@pytest.mark.parametrize("where", ["running", "exited"])
def test_what_a_node_keeps(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A line for its state, then lines of what it was told; from archives if it stopped."""
    found = telling(monkeypatch, ("g1", 7), where=where)
    assert found == Kept("g1", {"d/0a": {}, "d/0b": {}}, 7)


def test_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no Services were ever delivered."""
    answering(monkeypatch, "")
    assert services.latest(CLIENT, [LISTING]) == Kept()


def test_the_node_that_was_told_last_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one did not run then."""
    found = telling(monkeypatch, ("g1", 1), ("g2", 2), ("g1", 1))
    assert (found.generation, set(found.inputs)) == ("g2", {"d/1a", "d/1b"})


def test_an_interruption_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a generation everything is sent again, but Services are still known."""
    found = telling(monkeypatch, ("", 1), ("", 1))
    assert (found.generation, set(found.inputs)) == ("", {"d/0a", "d/0b"})
    assert telling(monkeypatch, ("", 1), ("g1", 1)).generation == "g1"
