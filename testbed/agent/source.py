"""One interface of a capture: its tcpdump, and what it has told so far."""

from __future__ import annotations

import time
from typing import NamedTuple

from .errors import AgentError
from .pcap import Reader, Record
from .tcpdump import Tcpdump

__all__ = ["Frame", "Source"]


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
        self._pcap = Reader()
        self._early: list[Record] = []
        """Those that came together with the file's header."""

    def fileno(self) -> int:
        """The pipe that is read, for selectors."""
        return self.tcpdump.fileno()

    def begin(self, deadline: float) -> None:
        """Wait until the interface is captured.

        Raises:
            AgentError: tcpdump did not come to that.
        """
        self.tcpdump.wait_ready(deadline)
        device = self.tcpdump.interface
        opened = self.tcpdump.words.partition(b"listening on ")[2]
        if device.isdecimal() and not opened.startswith(device.encode()):
            why = f"{device}: No such device exists"  # tcpdump took it for another one's number
            raise AgentError("tcpdump did not start", self.name, why)
        while self._pcap.link_type is None:
            chunk = self.tcpdump.read(deadline)
            if not chunk:
                raise AgentError("tcpdump wrote no header", self.name)
            self._early += self._pcap.feed(chunk)
        self.link_type = self._pcap.link_type

    def take(self) -> list[Frame]:
        """The frames that can be read now; to be called when there is something."""
        chunk = self.tcpdump.read(0.0)
        self.ended = not chunk
        return self.frames(chunk)

    def frames(self, chunk: bytes) -> list[Frame]:
        """The frames that are complete with ``chunk``."""
        records, self._early = [*self._early, *self._pcap.feed(chunk)], []
        found = [Frame(each.time_ns, self.index, each.data, each.length) for each in records]
        if found:
            self._last_ns = found[-1].time_ns
        return found

    def complete_until(self) -> int:
        """Until when everything that the kernel has captured was read."""
        now = time.time_ns()
        return now if self.ended or self.tcpdump.told_all() else self._last_ns
