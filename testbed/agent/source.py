"""One interface of a capture: its tcpdump, and what it has told so far."""

from __future__ import annotations

import struct
import time
from typing import NamedTuple

from .errors import AgentError
from .tcpdump import Tcpdump

__all__ = ["Frame", "Source"]

_FILE_HEADER = 24
_RECORD = struct.Struct("=IIII")


class Frame(NamedTuple):
    """A captured frame."""

    time_ns: int
    interface: int
    """Number of its source."""
    data: bytes
    length: int


class Source:
    """A tcpdump that gives nanoseconds, and its pcap file as far as it was read."""

    def __init__(self, index: int, name: str, tcpdump: Tcpdump, space: str | None) -> None:
        self.index = index
        self.name = name
        """In the file."""
        self.tcpdump = tcpdump
        self.space = space
        """Path of its network namespace, if that is not the node's."""
        self.link_type = 0
        self.ended = False
        """tcpdump went away by itself, as it does together with its interface."""
        self._last_ns = 0
        self._rest = b""

    def fileno(self) -> int:
        """The pipe that is read, for selectors."""
        return self.tcpdump.fileno()

    def begin(self, deadline: float) -> None:
        """Wait until the interface is captured.

        Raises:
            AgentError: tcpdump did not come to that.
        """
        self.tcpdump.wait_ready(deadline)
        while len(self._rest) < _FILE_HEADER:
            chunk = self.tcpdump.read(deadline)
            if not chunk:
                raise AgentError("tcpdump wrote no header", self.name)
            self._rest += chunk
        (self.link_type,) = struct.unpack_from("=H", self._rest, _FILE_HEADER - 4)
        self._rest = self._rest[_FILE_HEADER:]

    def take(self) -> list[Frame]:
        """The frames that can be read now; to be called when there is something."""
        chunk = self.tcpdump.read(0.0)
        self.ended = not chunk
        return self.frames(chunk)

    def frames(self, chunk: bytes) -> list[Frame]:
        """The frames that are complete with ``chunk``."""
        data = self._rest + chunk
        at, index = 0, self.index
        found = []
        while len(data) - at >= _RECORD.size:
            seconds, nanoseconds, captured, length = _RECORD.unpack_from(data, at)
            begin = at + _RECORD.size
            if len(data) - begin < captured:
                break
            at = begin + captured
            found.append(
                Frame(seconds * 1_000_000_000 + nanoseconds, index, data[begin:at], length)
            )
        self._rest = data[at:]
        if found:
            self._last_ns = found[-1].time_ns
        return found

    def complete_until(self) -> int:
        """Until when everything that the kernel has captured was read."""
        now = time.time_ns()
        return now if self.ended or self.tcpdump.told_all() else self._last_ns
