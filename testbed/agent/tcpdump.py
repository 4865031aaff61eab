"""One tcpdump on one interface: started, ready, ended.

tcpdump says ``listening on`` when its socket is open and filters: that is the handshake. With
``--immediate-mode`` it sleeps only when it has written every frame that the kernel gave it, or when
its pipe is full: what sleeps beside an empty pipe has told everything.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from .errors import AgentError
from .netns import entered

__all__ = ["READY_SECONDS", "SNAPLEN", "Tcpdump"]

READY_SECONDS = 5.0
_END_SECONDS = 2.0
_PIPE_BYTES = 1 << 20
SNAPLEN = 1960
"""Bytes of a frame that are kept: all of what a wire with an MTU of 1500 carries.

The ring has room for the longest frame in each of its places, which with segmentation offload would
be 64 KiB; so two frames share a page, and a ring of 4 MiB holds 2048 instead of 64.
"""
_RING_KILOBYTES = 4096


class Tcpdump:
    """A tcpdump that writes classic pcap to a pipe; use as a context manager, so that it ends.

    It is not ready yet: so many can be started before any is waited for. It dies with this process.

    Args:
        interface: the device.
        expression: tcpdump's filter; empty: everything.
        netns: path of the network namespace of the device; ``None``: this process's.
        snaplen: how much of a frame is kept; 0: all, however long.
        nanoseconds: whether times are in nanoseconds instead of microseconds.

    Raises:
        AgentError: it cannot be started, or the namespace is gone.
    """

    def __init__(
        self,
        interface: str,
        expression: str = "",
        *,
        netns: str | None = None,
        snaplen: int = SNAPLEN,
        nanoseconds: bool = False,
    ) -> None:
        self.interface = interface
        self.words = b""
        """What it said so far: all of it once it has ended."""
        self._closed = False
        argv = ["setpriv", "--pdeathsig", "KILL", "tcpdump", "-i", interface, "-Z", "root"]
        argv += ["-U", "--immediate-mode", "-B", str(_RING_KILOBYTES), "-s", str(snaplen)]
        argv += ["--time-stamp-precision", "nano" if nanoseconds else "micro", "-w", "-"]
        try:
            with entered(netns):
                self._process = subprocess.Popen(
                    [*argv, "--", *([expression] if expression else [])],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
        except OSError as error:
            raise AgentError("tcpdump cannot be started", interface, str(error)) from None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._output = self._process.stdout.fileno()
        self._errors = self._process.stderr.fileno()
        with suppress(OSError):  # so much is not given to everybody; less is slower
            fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """The pipe that it writes to, for selectors."""
        return self._output

    def wait_ready(self, deadline: float) -> None:
        """Wait until it captures, until :func:`time.monotonic` is ``deadline``.

        Raises:
            AgentError: it did not come to that; the message has its own words.
        """
        while b"listening on" not in self.words:
            seconds = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._errors], [], [], seconds)
            chunk = os.read(self._errors, 65536) if ready else b""
            self.words += chunk
            if not chunk:
                reason = self.words.decode(errors="replace").strip() or "no answer in time"
                raise AgentError("tcpdump did not start", self.interface, reason)

    def read(self, deadline: float) -> bytes:
        """What it has written; nothing if that does not come before ``deadline``, or it ended."""
        seconds = max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([self._output], [], [], seconds)
        return os.read(self._output, _PIPE_BYTES) if ready else b""

    def told_all(self) -> bool:
        """Whether every frame that the kernel has given to it was read from the pipe."""
        try:
            with open(f"/proc/{self._process.pid}/stat", "rb") as file:  # noqa: PTH123 - 20 µs less
                state = file.read().rpartition(b") ")[2][:1]
        except OSError:
            return True
        if state not in b"SZX":  # in this order: it can only sleep on a full pipe while it is full
            return False
        (waiting,) = struct.unpack("=i", fcntl.ioctl(self._output, termios.FIONREAD, bytes(4)))
        return bool(waiting == 0)

    def end(self) -> None:
        """Tell it to end, but do not wait for that."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def close(self) -> bytes:
        """End it, if it still runs; return what it had written, but nobody read."""
        if self._closed:
            return b""
        self._closed = True
        self.end()
        try:
            rest, words = self._process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            rest, words = self._process.communicate()
        self.words += words
        return rest

    def count(self, what: str) -> int | None:
        """How many packets it says were ``received by filter`` or ``dropped by kernel``."""
        found = re.search(rf"(\d+) packets? {what}", self.words.decode(errors="replace"))
        return int(found[1]) if found else None
