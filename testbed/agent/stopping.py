"""Ending processes: SIGTERM, a short grace, SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from .loop import EventLoop

__all__ = ["GRACE", "Terminator", "handles", "kill"]

GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL. Kubernetes' default is 30; a testbed does not wait."""


def handles(status: str, number: int) -> bool:
    """Whether a process with this ``/proc/<pid>/status`` catches a signal.

    The first process of a PID namespace ignores signals it does not catch, so SIGTERM has no
    effect on ``sleep infinity`` and waiting for it would be in vain; any other is ended by it.
    """
    for line in status.splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> number - 1 & 1)
    return False


def kill(pid: int, number: int) -> None:
    """Send a signal; a process that is gone is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Terminator:
    """Asks processes to end, and kills those that do not within :data:`GRACE`."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._asked: set[int] = set()

    def stop(self, pids: Iterable[int]) -> None:
        """Begin to end ``pids``; asking again for the same ones changes nothing."""
        for pid in pids:
            if pid in self._asked:
                continue
            self._asked.add(pid)
            self.ask(pid)
            self._loop.call_later(GRACE, lambda pid=pid: self._insist(pid))  # type: ignore[misc]

    def gone(self, pid: int) -> None:
        """The reaper has taken ``pid``: from now on the number may be another process's."""
        self._asked.discard(pid)

    def _insist(self, pid: int) -> None:
        if pid in self._asked:
            self._asked.discard(pid)
            kill(pid, signal.SIGKILL)

    @staticmethod
    def ask(pid: int) -> None:
        """SIGTERM where it is caught, else SIGKILL at once."""
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        except OSError:
            return
        kill(pid, signal.SIGTERM if handles(status, signal.SIGTERM) else signal.SIGKILL)
