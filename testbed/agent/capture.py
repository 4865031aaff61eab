"""One bounded tcpdump: ready before the first packet is sent, complete before it is read.

tcpdump says ``listening on`` when its socket is open: that is the handshake. A capture is complete
when the caller's condition on the raw bytes holds, because frames reach the file in wire order.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from .errors import AgentError

__all__ = ["Capture", "frames"]

_READY_SECONDS = 5.0
_GLOBAL_HEADER, _RECORD_HEADER = 24, 16


class Capture:
    """A running tcpdump on one interface; use as a context manager, so that it always ends.

    Raises:
        AgentError: tcpdump did not start; the message has its own words.
    """

    def __init__(self, interface: str, expression: str) -> None:
        self.summary = ""
        """What tcpdump counted, in its own words, once it has ended."""
        self._bytes = bytearray()
        options = ["-i", interface, "-U", "--immediate-mode", "-s", "0", "-w", "-"]
        try:
            self._process = subprocess.Popen(
                ["tcpdump", *options, expression],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise AgentError("tcpdump cannot be started", interface, str(error)) from None
        try:
            self._handshake(interface)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Capture:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _handshake(self, interface: str) -> None:
        words = b""
        deadline = time.monotonic() + _READY_SECONDS
        assert self._process.stderr is not None
        while b"listening on" not in words:
            chunk = self._read(self._process.stderr.fileno(), deadline)
            words += chunk
            if not chunk:
                reason = words.decode(errors="replace").strip() or "no answer in time"
                raise AgentError("tcpdump did not start", interface, reason)

    def wait(self, complete: Callable[[bytes], bool], seconds: float) -> bytes:
        """Read until ``complete`` holds of the pcap bytes, at most ``seconds``; return them."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while not complete(bytes(self._bytes)):
            chunk = self._read(self._process.stdout.fileno(), deadline)
            if not chunk:
                break
            self._bytes += chunk
        return bytes(self._bytes)

    def close(self) -> None:
        """End tcpdump, if it still runs."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        _, words = self._process.communicate()
        self.summary = ", ".join(words.decode(errors="replace").split("\n")).strip(", ")

    @staticmethod
    def _read(descriptor: int, deadline: float) -> bytes:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        return os.read(descriptor, 65536) if ready else b""


def frames(pcap: bytes) -> Iterator[bytes]:
    """The frames of a classic pcap file, as far as it is complete."""
    at = _GLOBAL_HEADER
    while at + _RECORD_HEADER <= len(pcap):
        (length,) = struct.unpack_from("=I", pcap, at + 8)
        if at + _RECORD_HEADER + length > len(pcap):
            return
        yield pcap[at + _RECORD_HEADER : at + _RECORD_HEADER + length]
        at += _RECORD_HEADER + length
