"""The life of pods, with a runtime that exists only in the test."""

from __future__ import annotations

from typing import Any, cast

import pytest

from testbed.agent.loop import EventLoop
from testbed.agent.pods import Pod
from testbed.agent.supervisor import Supervisor
from tests.unit.agent.fakes import FakeLoop, FakeQueue, FakeRuntime, container_spec, pod_spec


class World:
    """A supervisor among fakes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = FakeLoop()
        self.runtime = FakeRuntime()
        self.network = FakeQueue()
        self.containers = FakeQueue()
        self.asked: list[int] = []
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        ask = staticmethod(self.asked.append)
        monkeypatch.setattr("testbed.agent.stopping.Terminator.ask", ask)
        self.supervisor = Supervisor(
            cast(EventLoop, self.loop),
            self.runtime,
            self.network,
            self.containers,
            lambda: None,
        )

    def settle(self) -> None:
        """Run jobs until there are none; network jobs first."""
        while self.network.step() or self.containers.step():
            pass

    def up(self, *specs: dict[str, Any]) -> list[Pod]:
        """Want pods and let everything happen."""
        self.supervisor.apply(specs)
        self.settle()
        return self.supervisor.ordered()

    def end(self, pid: int | None, code: int) -> None:
        """A process ends."""
        assert pid is not None
        self.supervisor.process_ended(pid, code)
        self.settle()

    def end_asked(self) -> None:
        """What was asked to end does."""
        while self.asked:
            self.end(self.asked.pop(0), 137)

    def later(self, seconds: float) -> None:
        """Let time pass, and fire every timer that is due once."""
        self.now += seconds
        timers, self.loop.timers = self.loop.timers, []
        for _, callback in timers:
            callback()
        self.settle()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A fresh world."""
    return World(monkeypatch)


def test_addresses_are_given_in_the_order_of_the_spec(world: World) -> None:
    """CNI before pause before containers; CNI jobs in order."""
    pods = world.up(pod_spec("a"), pod_spec("b"))
    assert [pod.ip for pod in pods] == ["10.244.1.2", "10.244.1.3"]
    starts = ["start a:app 0", "start b:app 0"]
    assert world.runtime.log == ["attach a", "attach b", "pause a", "pause b", *starts]
    assert [pod.state for pod in pods] == ["Running", "Running"]
    assert world.supervisor.settled


def test_a_container_that_ends_keeps_its_sandbox(world: World) -> None:
    """The first restart is immediate; the address stays; the old container is forgotten."""
    [pod] = world.up(pod_spec("a"))
    before = pod.as_dict()
    world.end(pod.containers[0].pid, 1)
    after = pod.as_dict()
    assert after["sandbox_id"] == before["sandbox_id"]
    assert after["ip"] == before["ip"]
    assert after["containers"][0]["restarts"] == 1
    assert after["state"] == "Running"
    assert world.runtime.log[-2:] == ["remove 1", "start a:app 1"]


def test_crash_loop_back_off(world: World) -> None:
    """The second end waits 10 s; meanwhile the pod says why."""
    [pod] = world.up(pod_spec("a"))
    world.end(pod.containers[0].pid, 3)
    world.end(pod.containers[0].pid, 3)
    assert pod.state == "CrashLoopBackOff"
    assert pod.containers[0].as_dict()["exit_code"] == 3
    assert pod.settled
    world.later(9.9)
    assert pod.state == "CrashLoopBackOff"
    world.loop.timers.append((0, lambda: world.supervisor._changed(pod)))
    world.later(0.2)
    assert pod.state == "Running"
    assert pod.containers[0].restarts == 2


def test_a_process_that_ends_before_its_start_is_reported(world: World) -> None:
    """The reaper may be faster than the worker: the end is not lost."""
    world.supervisor.apply([pod_spec("a", restart_policy="Never")])
    assert world.network.step()
    assert world.containers.step()
    world.runtime.ends_at_once = lambda pid: world.supervisor.process_ended(pid, 5)
    world.settle()
    world.end_asked()
    [pod] = world.supervisor.ordered()
    assert (pod.state, pod.containers[0].exit_code) == ("Failed", 5)


def test_a_pause_that_always_ends_at_once(world: World) -> None:
    """The second new sandbox is not made at once: nothing spins."""
    world.runtime.ends_at_once = lambda pid: world.supervisor.process_ended(pid, 5)
    [pod] = world.up(pod_spec("a"))
    assert world.runtime.log.count("attach a") == 2
    assert (pod.state, pod.error, pod.settled) == ("Pending", "pause keeps ending with 5", True)
    world.runtime.ends_at_once = None
    world.later(10)
    assert (pod.state, pod.error) == ("Running", "")


@pytest.mark.parametrize(
    ("policy", "code", "state"),
    [("Never", 0, "Succeeded"), ("Never", 2, "Failed"), ("OnFailure", 0, "Succeeded")],
)
def test_pods_that_end(world: World, policy: str, code: int, state: str) -> None:
    """When no container is to run again the sandbox goes, as kubelet does it."""
    [pod] = world.up(pod_spec("a", restart_policy=policy))
    world.end(pod.containers[0].pid, code)
    world.end_asked()
    assert pod.state == state
    assert pod.settled
    assert pod.as_dict()["pause_pid"] is None
    assert world.runtime.log[-2:] == ["remove 2", "detach a 10.244.1.2"]


def test_one_container_of_two_ends(world: World) -> None:
    """The pod runs as long as one of its containers does."""
    two = [container_spec("x"), container_spec("y")]
    [pod] = world.up(pod_spec("a", containers=two, restart_policy="Never"))
    world.end(pod.containers[0].pid, 0)
    assert pod.state == "Running"
    world.end(pod.containers[1].pid, 1)
    world.end_asked()
    assert pod.state == "Failed"


def test_pause_ends(world: World) -> None:
    """Containers are stopped, CNI DEL, and a new sandbox with a new address is made."""
    [pod] = world.up(pod_spec("a"))
    old = pod.as_dict()
    world.end(pod.pause_pid, 137)
    assert pod.state == "Pending"
    assert world.asked == [old["containers"][0]["pid"]]
    world.end_asked()
    new = pod.as_dict()
    assert new["state"] == "Running"
    assert new["ip"] == "10.244.1.3"
    assert new["sandbox_id"] != old["sandbox_id"]
    assert new["containers"][0]["restarts"] == 1
    assert "detach a 10.244.1.2" in world.runtime.log


def test_pause_of_a_pod_that_never_restarts(world: World) -> None:
    """Its containers are killed and stay so."""
    [pod] = world.up(pod_spec("a", restart_policy="Never"))
    world.end(pod.pause_pid, 137)
    world.end_asked()
    assert (pod.state, pod.settled) == ("Failed", True)


def test_a_pod_that_is_no_longer_wanted(world: World) -> None:
    """Containers, then pause, then CNI DEL; the others are not touched."""
    a, b = world.up(pod_spec("a"), pod_spec("b"))
    calls = len(world.runtime.log)
    assert world.supervisor.apply([pod_spec("a")]) == ["pod default/b removed"]
    assert b.state == "Terminating"
    assert world.asked == [b.containers[0].pid]
    assert not world.supervisor.settled
    world.end_asked()
    assert world.supervisor.ordered() == [a]
    assert world.runtime.log[calls:] == ["remove 2", "detach b 10.244.1.3", "forget b"]
    assert world.supervisor.settled


def test_a_pod_that_changed_is_made_anew(world: World) -> None:
    """Removed first, then created; labels alone change nothing."""
    [pod] = world.up(pod_spec("a"))
    assert world.supervisor.apply([pod_spec("a", labels={"x": "y"})]) == []
    changes = world.supervisor.apply([pod_spec("a", hostname="other"), pod_spec("b")])
    assert changes == ["pod default/a removed", "pod default/a created", "pod default/b created"]
    world.settle()
    assert [pod.key for pod in world.supervisor.ordered()] == ["default/a"]
    world.end_asked()
    assert [(pod.key, pod.ip) for pod in world.supervisor.ordered()] == [
        ("default/a", "10.244.1.3"),
        ("default/b", "10.244.1.4"),
    ]
    assert pod not in world.supervisor.ordered()


def test_a_second_apply_changes_nothing(world: World) -> None:
    """Level-triggered: what is as it should be is left alone."""
    world.up(pod_spec("a"))
    calls = list(world.runtime.log)
    assert world.supervisor.apply([pod_spec("a")]) == []
    world.settle()
    assert world.runtime.log == calls


def test_a_pod_removed_while_it_is_attached(world: World) -> None:
    """The job under way ends first; then its sandbox is taken down."""
    world.supervisor.apply([pod_spec("a")])
    world.supervisor.apply([])
    world.settle()
    assert world.supervisor.ordered() == []
    assert world.runtime.log == ["attach a", "remove 1", "detach a 10.244.1.2", "forget a"]


def test_a_sandbox_that_fails_is_tried_again(world: World) -> None:
    """The pod is Pending with the reason; the next attempt is 10 s later."""
    world.runtime.fail["attach"] = "no address left"
    [pod] = world.up(pod_spec("a"))
    assert (pod.state, pod.settled) == ("Pending", True)
    assert "no address left" in pod.error
    del world.runtime.fail["attach"]
    assert [seconds for seconds, _ in world.loop.timers] == [10]
    world.later(10)
    assert (pod.state, pod.error) == ("Running", "")


def test_a_pause_that_does_not_start(world: World) -> None:
    """The sandbox is taken down before the next attempt."""
    world.runtime.fail["pause"] = "no such file"
    [pod] = world.up(pod_spec("a"))
    assert (pod.state, pod.settled, pod.sandbox) == ("Pending", True, None)
    assert world.runtime.log[-1] == "detach a 10.244.1.2"
    del world.runtime.fail["pause"]
    world.later(10)
    assert (pod.state, pod.ip) == ("Running", "10.244.1.3")


def test_a_container_that_does_not_start(world: World) -> None:
    """Tried at once again, then backed off; the pod says what the runtime said."""
    world.runtime.fail["start"] = "executable not found"
    [pod] = world.up(pod_spec("a"))
    assert (pod.state, pod.containers[0].restarts) == ("CrashLoopBackOff", 2)
    assert "container app: a:app 1: start failed: executable not found" in pod.error
    assert pod.settled


def test_after_a_restart_of_the_node_addresses_are_asked_for(world: World) -> None:
    """The same pod asks for its address; one with another uid does not."""
    ran = [{"name": "app", "restarts": 2, "started_at": "now"}]
    world.supervisor.before = {
        "default/a": {"uid": "uid-a", "ip": "10.244.1.9", "containers": ran},
        "default/b": {"uid": "another", "ip": "10.244.1.8", "containers": ran},
    }
    a, b = world.up(pod_spec("a"), pod_spec("b"))
    assert world.runtime.log[:2] == ["attach a 10.244.1.9", "attach b"]
    assert (a.containers[0].restarts, b.containers[0].restarts) == (3, 0)
    world.end(a.pause_pid, 1)
    world.end_asked()
    assert "attach a" in world.runtime.log


def test_a_frozen_node_forgets_nothing(world: World) -> None:
    """While the node stops, ends are no crashes."""
    [pod] = world.up(pod_spec("a"))
    world.supervisor.frozen = True
    world.end(pod.containers[0].pid, 143)
    assert pod.as_dict()["state"] == "Running"


def test_unknown_processes_do_not_matter(world: World) -> None:
    """Orphans of containers are reaped and nothing more."""
    [pod] = world.up(pod_spec("a"))
    world.end(4711, 0)
    assert pod.state == "Running"


def test_host_network_has_no_namespace() -> None:
    """State shows null for what a hostNetwork pod does not have."""
    shown = Pod(pod_spec("h", host_network=True)).as_dict()
    assert (shown["netns"], shown["host_interface"], shown["ip"]) == (None, None, None)
