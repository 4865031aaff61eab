"""One bounded capture: ready before the first packet is sent, complete before it is read.

A capture is complete when the caller's condition on the raw bytes holds, because frames reach the
file in wire order.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .pcap import Reader
from .tcpdump import READY_SECONDS, Tcpdump

__all__ = ["Capture", "frames"]


class Capture(Tcpdump):
    """A running tcpdump on one interface; use as a context manager, so that it always ends.

    Raises:
        AgentError: tcpdump did not start; the message has its own words.
    """

    def __init__(self, interface: str, expression: str) -> None:
        super().__init__(interface, expression)
        self._bytes = bytearray()
        try:
            self.wait_ready(time.monotonic() + READY_SECONDS)
        except BaseException:
            self.close()
            raise

    @property
    def summary(self) -> str:
        """What tcpdump counted, in its own words, once it has ended."""
        said = self.words.decode(errors="replace").splitlines()
        return ", ".join(line for line in said if line and "listening on" not in line)

    def wait(self, complete: Callable[[bytes], bool], seconds: float) -> bytes:
        """Read until ``complete`` holds of the pcap bytes, at most ``seconds``; return them."""
        deadline = time.monotonic() + seconds
        while not complete(bytes(self._bytes)):
            chunk = self.read(deadline)
            if not chunk:
                break
            self._bytes += chunk
        return bytes(self._bytes)


def frames(file: bytes) -> list[bytes]:
    """The frames of a classic pcap file, as far as it is complete."""
    return [each.data for each in Reader().feed(file)]
