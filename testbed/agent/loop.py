"""One single-threaded event loop that owns all state; worker threads only compute and report."""

from __future__ import annotations

import contextlib
import heapq
import os
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from . import journal
from .errors import describe

__all__ = ["EventLoop", "Timer", "Workers"]


class Timer:
    """A callback at a time; ``cancel`` it as often as you like."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Make the timer do nothing."""
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class EventLoop:
    """File descriptors, signals, timers and calls from other threads, one after the other.

    An exception of a callback is logged and the loop goes on: PID 1 must not die of a defect.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._posted: deque[Callable[[], None]] = deque()
        self._signals: dict[int, Callable[[], None]] = {}
        self._after: Callable[[], None] | None = None
        self._running = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.watch(self._wake_read, selectors.EVENT_READ, self._woken)

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` when ``fd`` is ready for ``events``; replaces an earlier watch."""
        try:
            self._selector.modify(fd, events, callback)
        except KeyError:
            self._selector.register(fd, events, callback)

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``; call it before closing the descriptor."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` in the loop when the process gets the signal (main thread only)."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._signals[number] = callback
        signal.signal(number, lambda *_: None)

    def after_each(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once after each turn of the loop."""
        self._after = callback

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` after ``seconds``."""
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def post(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` in the loop's thread, soon; may be called from any thread."""
        self._posted.append(callback)
        with suppress(BlockingIOError):  # the pipe is full, so the loop wakes anyway
            os.write(self._wake_write, b"\0")

    def run(self) -> None:
        """Turn until :meth:`stop`."""
        self._running = True
        while self._running:
            self.turn(None)

    def stop(self) -> None:
        """Leave :meth:`run` after this turn."""
        self._running = False

    def close(self) -> None:
        """Give the loop's own descriptors back."""
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def turn(self, timeout: float | None) -> None:
        """Wait at most ``timeout`` seconds (``None``: for ever) for events and handle them."""
        if self._timers:
            due = max(0.0, self._timers[0].when - time.monotonic())
            timeout = due if timeout is None else min(timeout, due)
        for key, _ in self._selector.select(timeout):
            self._call(key.data)
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            self._call(heapq.heappop(self._timers).callback)
        if self._after is not None:
            self._call(self._after)

    def _woken(self) -> None:
        numbers = set(os.read(self._wake_read, 4096))
        for number in sorted(numbers & self._signals.keys()):
            self._call(self._signals[number])
        for _ in range(len(self._posted)):
            self._call(self._posted.popleft())

    def _call(self, callback: Callable[[], None] | None) -> None:
        if callback is None:
            return
        try:
            callback()
        except Exception as error:
            journal.emit("boot", "defect in the agent", level="error", error=describe(error))


class Workers:
    """Threads that take jobs from one queue, in order; results come back through the loop.

    One thread makes the jobs run strictly one after the other.
    """

    def __init__(self, loop: EventLoop, threads: int) -> None:
        self._loop = loop
        self._limit = threads
        self._threads = 0
        self._pending = 0
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Callable[[Any, Any], None]]] = (
            SimpleQueue()
        )

    def submit(self, job: Callable[[], Any], done: Callable[[Any, Any], None]) -> None:
        """Run ``job()`` in a thread, then ``done(result, error)`` in the loop; one is ``None``."""
        self._pending += 1
        if self._threads < min(self._limit, self._pending):
            self._threads += 1
            threading.Thread(target=self._work, daemon=True).start()
        self._jobs.put((job, done))

    def _work(self) -> None:
        while True:
            job, done = self._jobs.get()
            result, failure = None, None
            try:
                result = job()
            except Exception as error:
                failure = error
            self._loop.post(lambda d=done, r=result, f=failure: self._finish(d, r, f))  # type: ignore[misc]

    def _finish(self, done: Callable[[Any, Any], None], result: Any, failure: Any) -> None:
        self._pending -= 1
        done(result, failure)
