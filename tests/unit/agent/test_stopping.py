"""Ending processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from typing import cast

import pytest

from testbed.agent.loop import EventLoop
from testbed.agent.stopping import GRACE, Terminator, handles, kill
from tests.unit.agent.fakes import FakeLoop


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not catch SIGTERM."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_who_catches_sigterm() -> None:
    """Bit 14 of SigCgt."""
    assert handles("Name:\tx\nSigCgt:\t0000000000004000\n", signal.SIGTERM)
    assert not handles("SigCgt:\t0000000000000002\n", signal.SIGTERM)
    assert not handles("", signal.SIGTERM)


def test_who_does_not_catch_it_is_killed_at_once(sleeper: subprocess.Popen[bytes]) -> None:
    """The first process of a PID namespace would ignore SIGTERM."""
    Terminator.ask(sleeper.pid)
    assert sleeper.wait(5) == -signal.SIGKILL
    Terminator.ask(sleeper.pid)
    kill(sleeper.pid, signal.SIGTERM)


def test_insisting(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL after the grace, but not to a process ID that was reaped meanwhile."""
    loop, sent = FakeLoop(), []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    ask = staticmethod(lambda pid: sent.append((pid, signal.SIGTERM)))
    monkeypatch.setattr(Terminator, "ask", ask)
    terminator = Terminator(cast(EventLoop, loop))
    terminator.stop([1, 2])
    terminator.stop([1, 2])
    terminator.gone(2)
    assert [seconds for seconds, _ in loop.timers] == [GRACE, GRACE]
    for _, callback in loop.timers:
        callback()
    assert sent == [(1, signal.SIGTERM), (2, signal.SIGTERM), (1, signal.SIGKILL)]
