"""Supervised processes: started, restarted a second after their end, stopped on request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from testbed.agent import daemons
from testbed.agent.daemons import Daemons
from testbed.agent.errors import AgentError
from testbed.agent.loop import EventLoop, Timer
from tests.unit.agent.fakes import FakeQueue

BIRD = {"name": "bird", "argv": ["bird"], "reload": ["birdcl"], "files": ["/etc/bird.cfg"]}


class Clock:
    """A loop whose time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Keep a timer."""
        self.timers.append(Timer(self.now + seconds, callback))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        """Fire what is due by then and was not cancelled."""
        self.now += seconds
        due = [timer for timer in self.timers if timer.when <= self.now]
        self.timers = [timer for timer in self.timers if timer.when > self.now]
        for timer in due:
            if timer.callback:
                timer.callback()


class World:
    """Daemons whose processes exist on paper only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop, self.queue = Clock(), FakeQueue()
        self.started: list[str] = []
        self.signals: list[tuple[int, int]] = []
        self.reloaded: list[list[str]] = []
        self.alive: set[str] = set()
        self.replies: list[dict[str, Any]] = []
        monkeypatch.setattr(daemons, "_launch", self.launch)
        monkeypatch.setattr(daemons, "kill", lambda pid, number: self.signals.append((pid, number)))
        monkeypatch.setattr(daemons, "run", self.reloaded.append)
        self.content = b"first"
        monkeypatch.setattr(daemons, "_contents", lambda _: [self.content])
        monkeypatch.setattr(Path, "exists", lambda path: str(path) in self.alive)
        self.daemons = Daemons(cast(EventLoop, self.loop), self.queue, lambda: None)

    def launch(self, spec: dict[str, Any]) -> int:
        """Start a process on paper; PIDs count from 100."""
        self.started.append(spec["name"])
        pid = 99 + len(self.started)
        self.alive.add(f"/proc/{pid}")
        return pid

    def work(self) -> None:
        """Run the jobs that wait."""
        while self.queue.step():
            pass

    @property
    def state(self) -> str:
        """The one daemon's."""
        return str(self.daemons.as_list()[0]["state"])

    def ask(self, action: str) -> None:
        """``testbed-agent process ACTION bird``."""
        self.daemons.command(action, "bird", self.replies.append)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """With BIRD running."""
    made = World(monkeypatch)
    assert made.daemons.apply([BIRD]) == ["start process bird"]
    assert not made.daemons.settled
    made.work()
    assert made.state == "running"
    return made


def after(world: World, seconds: float) -> None:
    """Let time pass."""
    world.loop.advance(seconds)
    world.work()


def test_a_daemon_that_ends_is_started_again_after_a_second(world: World) -> None:
    """And counted."""
    assert world.daemons.process_ended(100)
    assert (world.state, world.daemons.failure is not None) == ("backoff", True)
    after(world, 0.5)
    assert world.state == "backoff"
    after(world, 1.0)
    assert (world.state, world.daemons.pids()) == ("running", [101])
    assert world.daemons.as_list()[0]["restarts"] == 1


def test_what_is_no_daemon_is_somebody_else_s(world: World) -> None:
    """The supervisor's."""
    assert not world.daemons.process_ended(7)


def test_stop_and_start_on_request(world: World) -> None:
    """The answer comes when it has ended; a stopped daemon stays stopped and is no failure."""
    world.ask("stop")
    assert (world.signals[0][0], world.replies) == (100, [])
    world.daemons.process_ended(100)
    assert world.replies[0]["ok"]
    after(world, 10)
    assert (world.state, world.daemons.failure) == ("stopped", None)
    world.ask("start")
    world.work()
    assert (world.state, len(world.replies)) == ("running", 2)


def test_a_stop_in_the_pause_before_a_restart_prevents_it(world: World) -> None:
    """As ``sv stop`` does."""
    world.daemons.process_ended(100)
    world.ask("stop")
    after(world, 10)
    assert (world.state, world.started) == ("stopped", ["bird"])


def test_restart_makes_a_new_process(world: World) -> None:
    """Without the pause."""
    world.ask("restart")
    world.daemons.process_ended(100)
    world.work()
    assert (world.daemons.pids(), world.replies[0]["ok"]) == ([101], True)


def test_a_file_that_changes_reloads(world: World) -> None:
    """By the daemon's own command; other files do not matter."""
    assert world.daemons.apply([BIRD]) == []
    world.content = b"second"
    assert world.daemons.apply([BIRD]) == ["reload process bird"]
    assert world.daemons.apply([BIRD]) == []
    world.work()
    assert world.reloaded == [["birdcl"]]


def test_another_command_line_restarts(world: World) -> None:
    """And one that is gone stops."""
    assert world.daemons.apply([{**BIRD, "argv": ["bird", "-d"]}]) == ["restart process bird"]
    world.daemons.process_ended(100)
    world.work()
    assert world.daemons.pids() == [101]
    assert world.daemons.apply([]) == ["stop process bird"]
    assert world.daemons.apply([]) == []
    world.daemons.process_ended(101)
    assert world.daemons.as_list() == []
    assert world.daemons.apply([]) == []


def test_one_that_only_has_to_end_delays_nobody(world: World) -> None:
    """It may ignore SIGTERM; a restart is not over before it runs again."""
    world.ask("stop")
    assert (world.state, world.daemons.settled) == ("stopping", True)
    world.ask("restart")
    assert (world.state, world.daemons.settled) == ("stopping", False)
    after(world, 5.0)
    assert world.signals[-1] == (100, 9)


def test_restart_starts_what_was_stopped(world: World) -> None:
    """As ``sv restart`` does; the answer comes when it runs."""
    world.ask("stop")
    world.daemons.process_ended(100)
    world.ask("restart")
    world.work()
    assert (world.daemons.pids(), len(world.replies)) == ([101], 2)


def test_a_stopped_daemon_reads_its_files_when_it_starts(world: World) -> None:
    """There is nobody to tell; another command line starts it."""
    world.ask("stop")
    world.daemons.process_ended(100)
    world.content = b"second"
    assert world.daemons.apply([BIRD]) == []
    world.work()
    assert (world.reloaded, world.state) == ([], "stopped")
    assert world.daemons.apply([{**BIRD, "argv": ["bird", "-d"]}]) == ["restart process bird"]
    world.work()
    assert world.state == "running"


def test_one_that_comes_back_while_it_ends_is_started_once_it_has_ended(world: World) -> None:
    """Two of them would want one control socket."""
    world.daemons.apply([])
    world.daemons.apply([BIRD])
    world.work()
    assert (world.started, world.daemons.pids()) == (["bird"], [100])
    world.daemons.process_ended(100)
    world.work()
    assert (world.started, world.daemons.pids()) == (["bird", "bird"], [101])


def test_a_command_line_that_changes_during_the_start_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was started by then, is started anew."""
    world = World(monkeypatch)
    world.daemons.apply([BIRD])
    world.daemons.apply([{**BIRD, "argv": ["bird", "-d"]}])
    world.work()
    assert (world.state, world.signals[0][0]) == ("stopping", 100)
    world.daemons.process_ended(100)
    world.work()
    assert world.daemons.pids() == [101]


def test_the_end_of_a_daemon_of_a_node_that_stops_is_no_surprise(world: World) -> None:
    """Nothing is started, and nothing is wrong."""
    world.daemons.frozen = True
    world.daemons.process_ended(100)
    after(world, 10)
    assert (world.state, world.started, world.daemons.failure) == ("stopped", ["bird"], None)


def test_a_large_log_is_cut(tmp_path: Path) -> None:
    """The daemon appends: it goes on at the beginning."""
    log = tmp_path / "bird.log"
    with log.open("ab", buffering=0) as daemon:
        daemon.write(b"x" * daemons._LOG_LIMIT)
        daemons._cut([log])
        assert log.stat().st_size == daemons._LOG_LIMIT
        daemon.write(b"last")
        daemons._cut([log])
        daemon.write(b"new")
    assert log.read_bytes() == b"new"
    kept = Path(f"{log}.1").read_bytes()
    assert len(kept) == daemons._LOG_LIMIT
    assert kept.endswith(b"xlast")


def test_an_unknown_name_is_an_error(world: World) -> None:
    """It says which there are."""
    with pytest.raises(AgentError, match="bird"):
        world.daemons.command("stop", "felix", world.replies.append)


def test_a_process_that_ended_at_once_is_restarted_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end may be reaped before its start is known."""
    world.daemons.process_ended(100)
    launch: Callable[[dict[str, Any]], int] = world.launch

    def gone(spec: dict[str, Any]) -> int:
        pid = launch(spec)
        world.alive.discard(f"/proc/{pid}")
        return pid

    monkeypatch.setattr(daemons, "_launch", gone)
    after(world, 1.5)
    assert world.state == "backoff"
