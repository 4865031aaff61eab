"""Testbeds that tests share: their names, and when they are removed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from testbed import existing, lifecycle
from testbed.api.shared import Asked, NotAsPlannedError, Use, unique
from testbed.api.testbed import Testbed
from testbed.errors import NodeError, UsageError
from testbed.node import engine, inventory
from testbed.plan import cnis
from testbed.topology.load import Overrides, find, load
from testbed.topology.model import Cluster
from testbed.verify.report import Finding, Report


def cluster(nodes: int = 2) -> Cluster:
    """flannel's own topology."""
    return load(find("flannel"), Overrides(name="made", nodes=nodes), cnis=cnis())


@dataclass
class FakeEngine:
    """Testbeds that come and go by name."""

    there: dict[str, Cluster] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)
    findings: tuple[Finding, ...] = (Finding("icmp", "a", "b", ok=True),)
    error: BaseException | None = None

    def close(self) -> None:
        """The connection ends."""
        self.said.append("close")

    def up(self, wanted: Cluster, *, client: Any) -> Testbed:
        """Instead of :meth:`Testbed.up`."""
        self.said.append(f"up {wanted.name}")
        if self.error:
            raise self.error
        self.there[wanted.name] = wanted
        outcome: Any = SimpleNamespace(report=Report(self.findings, ""))
        return Testbed(client, wanted, outcome)

    def down(self, client: Any, name: str, tell: Any) -> None:
        """Instead of :func:`existing.down`."""
        del client, tell
        self.there.pop(name, None)
        self.said.append(f"down {name}")

    def containers(self, client: Any, name: str) -> dict[str, Any]:
        """Instead of :func:`inventory.containers`."""
        del client
        found = self.there.get(name)
        state = "exited" if name in self.stopped else "running"
        return {node.name: {"State": state} for node in found.nodes} if found else {}

    def cluster_of(self, client: Any, name: str, listings: Any) -> Cluster:
        """Instead of :func:`existing.cluster_of`."""
        del client
        if not listings:
            raise UsageError("none")
        return self.there[name]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """No Docker."""
    made = FakeEngine()
    monkeypatch.setattr(engine, "connect", lambda: made)
    monkeypatch.setattr(Testbed, "up", made.up)
    monkeypatch.setattr(existing, "down", made.down)
    monkeypatch.setattr(existing, "cluster_of", made.cluster_of)
    monkeypatch.setattr(inventory, "containers", made.containers)
    return made


def test_names_are_nobody_else_s() -> None:
    """They have the process in them, and fit into a host's name together with a node's."""
    name = unique("flannel")
    assert name.startswith(f"flannel-{os.getpid()}-")
    assert name != unique("flannel")
    assert len(unique("x" * 63)) <= 53
    assert "--" not in unique(f"{'x' * 39}-y")


def test_the_same_is_asked_for_in_any_order() -> None:
    """And its words are short: they are part of a test's name."""
    asked = Asked.of("compose/calico.test.yaml", {"nodes": 2, "ipip": "ebpf"})
    assert asked == Asked.of("compose/calico.test.yaml", {"ipip": "ebpf", "nodes": 2})
    assert str(asked) == "calico,ipip=ebpf,nodes=2"
    assert str(Asked.of("flannel", {})) == "flannel"


def test_a_wrong_override_is_told() -> None:
    """With those that there are."""
    with pytest.raises(UsageError, match="node: there is name, nodes, pods_per_node, ipip"):
        Asked.of("flannel", {"node": 2}).load()


def test_it_is_removed_afterwards(fake: FakeEngine) -> None:
    """Under the unique name that it was given."""
    use = Use(cluster())
    with use() as found:
        assert found.name == use.name
        assert use.name in fake.there
    assert use.name.startswith("made-")
    assert fake.said == [f"up {use.name}", f"down {use.name}", "close"]


@pytest.mark.parametrize("error", [NodeError("refused"), KeyboardInterrupt()])
def test_what_a_failed_or_interrupted_up_made_is_removed(
    fake: FakeEngine, error: BaseException
) -> None:
    """It leaves what it made; nobody asked to keep it."""
    fake.error = error
    use = Use(cluster())
    with pytest.raises(type(error)), use():
        pass
    assert fake.said == [f"up {use.name}", f"down {use.name}", "close"]


def test_the_connection_ends_also_when_removal_fails(
    fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is told."""

    def refuse(*_: Any) -> None:
        raise NodeError("cannot be removed")

    monkeypatch.setattr(existing, "down", refuse)
    with pytest.raises(NodeError, match="cannot be removed"), Use(cluster())():
        pass
    assert fake.said[-1] == "close"


def test_a_failed_up_leaves_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it was the caller's own."""
    own = FakeEngine()

    def fail(*_: Any) -> None:
        raise NodeError("refused")

    monkeypatch.setattr(engine, "connect", lambda: own)
    monkeypatch.setattr(lifecycle, "up", fail)
    given: Any = FakeEngine()
    for client in (None, given):
        with pytest.raises(NodeError, match="refused"):
            Testbed.up(cluster(), client=client)
    assert (own.said, given.said) == (["close"], [])


def test_a_failed_check_fails_the_test(fake: FakeEngine) -> None:
    """In the words of every failure."""
    fake.findings = (Finding("icmp", "a", "b", ok=False, detail="no echo reply"),)
    with pytest.raises(NotAsPlannedError, match=r"(?s)is not as planned:.*icmp a b: no echo"):
        Use(cluster())().__enter__()
    assert not fake.there


def test_one_that_failed_is_kept_if_asked_to(fake: FakeEngine) -> None:
    """Whether a test failed or its bringing up; an interrupt is no failure."""
    use = Use(cluster(), keep=True)
    with use():
        use.failed = True
    assert use.stays
    assert use.name in fake.there
    fake.error = NodeError("refused")
    broken = Use(cluster(), keep=True)
    with pytest.raises(NodeError), broken():
        pass
    assert broken.stays
    good = Use(cluster(), keep=True)
    fake.error = None
    with good():
        pass
    assert good.name not in fake.there


def test_one_that_runs_is_used_and_left(fake: FakeEngine) -> None:
    """It is neither brought up nor removed, whichever driver it found for IP-in-IP."""
    fake.there["made"] = replace(cluster(), ipip="ebpf")
    with Use(cluster(), reuse=True)() as found:
        assert found.name == "made"
        assert found.cluster.ipip == "ebpf"
    assert fake.said == ["close"]


def test_one_that_does_not_run_is_brought_up_and_left(fake: FakeEngine) -> None:
    """For the next time; also one that is stopped."""
    for _ in range(2):
        with Use(cluster(), reuse=True)():
            pass
    fake.stopped.add("made")
    with Use(cluster(), reuse=True)():
        pass
    assert fake.said == ["up made", "close", "close", "up made", "close"]
    assert "made" in fake.there


def test_one_with_another_topology_is_not_touched(fake: FakeEngine) -> None:
    """It may be somebody's work."""
    fake.there["made"] = cluster(nodes=1)
    with pytest.raises(UsageError, match=r"another topology.*testbed down made"):
        Use(cluster(), reuse=True)().__enter__()
    assert fake.said == ["close"]
