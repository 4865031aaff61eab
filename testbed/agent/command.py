"""Running native tools from worker threads; argument lists only, never a shell."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, NamedTuple

from .errors import CommandError

__all__ = ["Completed", "execute", "lines", "run"]

TIMEOUT = 60.0
"""Seconds after which a tool is killed: every step on a node takes milliseconds."""


class Completed(NamedTuple):
    """What a tool answered."""

    status: int
    stdout: bytes
    stderr: bytes


def execute(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
    timeout: float = TIMEOUT,
) -> Completed:
    """Run ``argv`` to its end and return whatever it answered.

    Args:
        argv: the tool and its arguments.
        stdin: what the tool reads.
        env: the whole environment; by default the agent's own.
        output: where the tool's standard output and error go instead of being returned.
        timeout: seconds.

    Raises:
        CommandError: the tool did not end in time.
        OSError: the tool could not be started.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin or None,
            stdin=None if stdin else subprocess.DEVNULL,
            stdout=output or subprocess.PIPE,
            stderr=output or subprocess.PIPE,
            env=env,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandError(tuple(argv), f"killed after {timeout:g} s", None) from None
    return Completed(done.returncode, done.stdout or b"", done.stderr or b"")


def run(argv: Sequence[str], *, stdin: bytes = b"", timeout: float = TIMEOUT) -> bytes:
    """Run ``argv`` and return its standard output.

    Raises:
        CommandError: it is missing, did not end within ``timeout`` seconds or failed.
    """
    try:
        done = execute(argv, stdin=stdin, timeout=timeout)
    except OSError as error:
        raise CommandError(tuple(argv), str(error), 127) from None
    if done.status:
        output = (done.stderr or done.stdout).decode(errors="replace")
        raise CommandError(tuple(argv), output, done.status)
    return done.stdout


def lines(argv: Sequence[str], *, timeout: float = TIMEOUT) -> Iterator[str]:
    """Run ``argv`` and yield its standard output line by line: nobody has to hold all of it.

    Raises:
        CommandError: as :func:`run`, when the last line has been read.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise CommandError(tuple(argv), str(error), 127) from None
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    try:
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                yield line.rstrip("\n")
            words = process.stderr.read()
    finally:
        timer.cancel()
    if process.returncode:
        raise CommandError(tuple(argv), words, process.returncode)
