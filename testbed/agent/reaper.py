"""Collecting the exit statuses of a node's processes, as PID 1 must.

Two parties wait for children in one process: this reaper, for containers (``crun run --detach``
leaves them behind, so the kernel gives them to PID 1) and other orphans; and :mod:`subprocess` in
the worker threads, for the tools that they run. A plain ``waitpid(-1)`` would steal the latter's
statuses, and :mod:`subprocess` then reports success for a tool that failed.

Linux keeps children per *thread*: the parent of a tool is the worker thread that forked it, and an
orphan's new parent is the main thread of PID 1. ``__WNOTHREAD`` (wait(2)) limits a wait to the
calling thread's own children. So the main thread starts no process, waits with ``__WNOTHREAD``, and
can see nothing but orphans: no lock, no table of owners, and code that knows nothing of this may
use :mod:`subprocess` in a worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["exit_code", "reap"]

WNOTHREAD = 0x20000000


def exit_code(status: int) -> int:
    """A wait status as container runtimes report it: 0-255, or 128 + the signal's number."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def reap() -> Iterator[tuple[int, int]]:
    """Yield ``(pid, exit code)`` of every orphan that has ended; call it from the main thread."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | WNOTHREAD)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, exit_code(status)
