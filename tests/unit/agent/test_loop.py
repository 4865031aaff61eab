"""The event loop and its workers."""

from __future__ import annotations

import os
import selectors
import signal
import threading
from collections.abc import Callable

import pytest

from testbed.agent.loop import EventLoop, Workers


def run(loop: EventLoop, until: Callable[[], bool], turns: int = 200) -> None:
    """Turn until a condition holds."""
    for _ in range(turns):
        if until():
            return
        loop.turn(0.05)
    raise AssertionError("the condition never held")


def test_timers_fire_in_order_and_can_be_cancelled() -> None:
    """The earliest first; cancelled ones not at all."""
    loop, fired = EventLoop(), []
    loop.call_later(0.02, lambda: fired.append("b"))
    loop.call_later(0.01, lambda: fired.append("a"))
    loop.call_later(0.015, lambda: fired.append("x")).cancel()
    run(loop, lambda: len(fired) == 2)
    assert fired == ["a", "b"]


def test_jobs_run_elsewhere_and_report_here() -> None:
    """One thread keeps the order; errors are reported, too."""
    loop, seen, threads = EventLoop(), [], set()
    workers = Workers(loop, 1)

    def job(number: int) -> int:
        threads.add(threading.current_thread())
        if number == 1:
            raise ValueError("no")
        return number

    for number in range(3):
        workers.submit(
            lambda number=number: job(number),  # type: ignore[misc]
            lambda result, error: seen.append((result, str(error))),
        )
    run(loop, lambda: len(seen) == 3)
    assert seen == [(0, "None"), (None, "no"), (2, "None")]
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_two_threads_overlap() -> None:
    """Jobs of a pool of two run at the same time."""
    loop, done = EventLoop(), []
    barrier = threading.Barrier(2, timeout=5)
    workers = Workers(loop, 2)
    for _ in range(2):
        workers.submit(barrier.wait, lambda _, error: done.append(error))
    run(loop, lambda: len(done) == 2)
    assert done == [None, None]


def test_a_defect_is_logged_and_the_loop_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    """PID 1 does not die of an exception; the log has the line of the source."""
    loop, seen = EventLoop(), []
    loop.post(lambda: 1 / 0)  # type: ignore[arg-type]
    loop.post(lambda: seen.append(1))
    run(loop, lambda: bool(seen))
    line = capfd.readouterr().out
    assert "ZeroDivisionError" in line
    assert "test_loop.py" in line


def test_files_and_signals() -> None:
    """Readable descriptors and signals call back in the loop."""
    loop, seen = EventLoop(), []
    read, write = os.pipe()
    before = signal.getsignal(signal.SIGUSR1)
    try:
        loop.watch(read, selectors.EVENT_READ, lambda: seen.append(os.read(read, 10)))
        loop.on_signal(signal.SIGUSR1, lambda: seen.append(b"signal"))
        os.write(write, b"x")
        os.kill(os.getpid(), signal.SIGUSR1)
        run(loop, lambda: len(seen) == 2)
        assert set(seen) == {b"x", b"signal"}
        loop.unwatch(read)
        loop.unwatch(read)
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, before)
        os.close(read)
        os.close(write)


def test_stop_ends_run_after_the_turn() -> None:
    """What is to happen after each turn still happens."""
    loop, turns = EventLoop(), []
    loop.after_each(lambda: turns.append(1))
    loop.post(loop.stop)
    loop.run()
    assert turns == [1]
