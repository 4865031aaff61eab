"""Sync: from a new spec to the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from testbed.agent.desired import Desired
from testbed.agent.errors import AgentError
from testbed.agent.loop import EventLoop
from testbed.agent.supervisor import Supervisor
from testbed.agent.sync import Syncs, install, union
from tests.unit.agent.fakes import FakeLoop, FakeQueue, FakeRuntime, pod_spec


class World:
    """Syncs among fakes."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.spec = place / "etc" / "spec.json"
        self.network = FakeQueue()
        self.containers = FakeQueue()
        self.runtime = FakeRuntime()
        self.supervisor = Supervisor(
            cast(EventLoop, FakeLoop()),
            self.runtime,
            self.network,
            self.containers,
            lambda: self.syncs.look(),
        )
        self.reconciled: list[tuple[dict[str, Any], dict[str, Any] | None]] = []
        self.refuse = ""
        self.installed: list[tuple[Desired, dict[str, str] | None]] = []
        self.syncs = Syncs(
            self.network,
            self.supervisor,
            self.note,
            lambda: None,
            self.reconcile,
            str(self.spec),
        )
        self.syncs.open(None)

    def note(self, wanted: Desired, error: dict[str, str] | None) -> list[str]:
        """What the node would do with a new spec: nothing of its own."""
        self.installed.append((wanted, error))
        return []

    def reconcile(self, spec: dict[str, Any], previous: dict[str, Any] | None) -> list[str]:
        """Note the call."""
        self.reconciled.append((spec, previous))
        if self.refuse:
            raise AgentError("refused", "ip -batch", self.refuse)
        return ["link flannel.1 created"] if previous is None else []

    def sync(self, *pods: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
        """Sync to a spec with ``pods``; the replies."""
        path = self.place / "new.json"
        path.write_text(json.dumps({"testbed": "t", "node": "n", "pods": list(pods), **more}))
        return self.request(str(path))

    def request(self, path: str) -> list[dict[str, Any]]:
        """Sync to the spec at ``path``; the replies."""
        replies: list[dict[str, Any]] = []
        self.syncs.request(path, replies.append)
        while self.network.step() or self.containers.step():
            pass
        return replies


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A fresh world."""
    return World(tmp_path)


def test_changes_are_reported(world: World) -> None:
    """First the network's, then the pods'; the spec is in its place."""
    assert world.sync(pod_spec("a"))[-1] == {
        "ok": True,
        "changes": ["link flannel.1 created", "pod default/a created"],
    }
    assert json.loads(world.spec.read_text())["pods"][0]["name"] == "a"
    assert not (world.place / "new.json").exists()
    assert not world.syncs.busy


def test_a_second_identical_sync_changes_nothing(world: World) -> None:
    """The previous spec is given to the network part."""
    world.sync(pod_spec("a"))
    assert world.sync(pod_spec("a")) == [{"ok": True, "changes": []}]
    spec, previous = world.reconciled[-1]
    assert spec == previous


def test_a_bad_spec_touches_nothing(world: World) -> None:
    """Neither the file nor the network; the error says why."""
    (world.place / "bad.json").write_text('{"testbed": "t"}')
    [reply] = world.request(str(world.place / "bad.json"))
    assert reply["error"]["why"] == "missing key 'node'"
    assert not world.spec.exists()
    assert (world.reconciled, world.installed) == ([], [])
    [reply] = world.request(str(world.place / "none.json"))
    assert reply["error"]["what"] == "cannot read the node's spec"


def test_a_network_that_refuses(world: World) -> None:
    """Pods are left alone; the next sync knows that both specs may be in the kernel."""
    first = [{"path": "/a"}]
    world.sync(files=first)
    world.refuse = "RTNETLINK answers: File exists"
    [reply] = world.sync(pod_spec("a"), files=[{"path": "/b"}])
    assert reply["error"] == {
        "what": "refused",
        "where": "ip -batch",
        "why": "RTNETLINK answers: File exists",
    }
    assert world.supervisor.ordered() == []
    assert world.installed[-1][1] == reply["error"]
    world.refuse = ""
    assert world.sync()[-1]["ok"] is True
    previous = world.reconciled[-1][1]
    assert previous is not None
    assert previous["files"] == [{"path": "/a"}, {"path": "/b"}]


def test_a_pod_that_does_not_come_up(world: World) -> None:
    """The answer is its error."""
    world.runtime.fail["attach"] = "no address left"
    reply = world.sync(pod_spec("a"))[-1]
    assert reply["error"]["where"] == "default/a"
    assert "no address left" in reply["error"]["why"]


def test_requests_wait_for_each_other_and_for_the_boot(world: World) -> None:
    """One at a time, in order."""
    world.syncs._open = False
    replies: list[dict[str, Any]] = []
    for name in ("a", "b"):
        path = world.place / f"{name}.json"
        path.write_text(json.dumps({"testbed": "t", "node": name, "pods": []}))
        world.syncs.request(str(path), replies.append)
    assert not world.network.jobs
    world.syncs.open(None)
    assert len(world.network.jobs) == 1
    while world.network.step():
        pass
    assert [reply["ok"] for reply in replies if "ok" in reply] == [True, True]
    assert [wanted.spec["node"] for wanted, _ in world.installed] == ["a", "b"]


def test_the_nodes_own_spec_can_be_synced(world: World) -> None:
    """The file stays where it is."""
    world.sync()
    assert world.request(str(world.spec))[-1]["ok"] is True
    assert world.spec.exists()


def test_progress_is_passed_on_while_a_sync_is_under_way(world: World) -> None:
    """Lines about pods and the network; none without a sync."""
    world.syncs.progress({"step": "pod"})
    replies: list[dict[str, Any]] = []
    (world.place / "x.json").write_text('{"testbed": "t", "node": "n"}')
    world.syncs.request(str(world.place / "x.json"), replies.append)
    world.syncs.progress({"step": "pod", "message": "attached"})
    world.syncs.progress({"step": "cni", "message": "noise"})
    assert replies == [{"step": "pod", "message": "attached"}]


def test_union_has_each_item_once() -> None:
    """Older items come first."""
    held = union({"files": [1, 2]}, {"node": "n", "files": [2, 3], "objects": [4]})
    assert held == {"node": "n", "files": [1, 2, 3], "objects": [4], "rulesets": [], "tunnels": []}


def test_a_file_system_that_refuses(tmp_path: Path) -> None:
    """The error names the target."""
    (tmp_path / "file").write_text("")
    (tmp_path / "new").write_text("{}")
    target = str(tmp_path / "file" / "spec.json")
    with pytest.raises(AgentError, match="cannot put the spec in place"):
        install(str(tmp_path / "new"), target)
