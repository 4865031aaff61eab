"""PID 1 and threads that run tools, side by side."""

from __future__ import annotations

import subprocess
import sys

from testbed.agent.reaper import exit_code

PROGRAM = """
import ctypes, selectors, signal, subprocess, sys, threading, time
from testbed.agent.loop import EventLoop
from testbed.agent.reaper import reap

ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come here, as to PID 1
loop = EventLoop()
orphans, wrong = [], []

def work():
    for _ in range(30):
        # The tool leaves an orphan behind that ends with 5, and itself ends with 3.
        status = subprocess.run(["sh", "-c", "(sleep 0.01; exit 5) & exit 3"]).returncode
        if status != 3:
            wrong.append(status)
    loop.post(check)

def check():
    if threads and not any(thread.is_alive() for thread in threads[:-1]) and len(orphans) == 60:
        loop.stop()
    else:
        loop.call_later(0.01, check)

loop.on_signal(signal.SIGCHLD, lambda: orphans.extend(code for _, code in reap()))
loop.call_later(8, loop.stop)
threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
loop.run()
print(len(orphans), set(orphans), wrong)
"""


def test_nobody_steals_an_exit_status() -> None:
    """Tools in worker threads get their own status, the reaper gets every orphan."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=20
    )
    assert done.stderr == ""
    assert done.stdout == "60 {5} []\n"


def test_exit_codes_are_those_of_container_runtimes() -> None:
    """128 + the signal's number."""
    assert exit_code(3 << 8) == 3
    assert exit_code(9) == 137
