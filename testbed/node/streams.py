"""Reading what an exec prints, without losing its beginning.

The SDK gives out the raw socket of an exec. The response's headers were read through a buffer
before, and whatever the engine sent together with them is still in there: where a command answers
fast, or the machine is busy, the SDK's own reader begins in the middle of a frame. So frames are
read through the same buffer here.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["STDERR", "STDOUT", "deadline", "frames", "hang_up", "released"]

STDOUT, STDERR = 1, 2
_HEADER = struct.Struct(">BxxxL")


def frames(stream: Any) -> Iterator[tuple[int, bytes]]:
    """Which stream, and what was printed there, until the command ends.

    ``stream`` is what the SDK returned for ``exec_start(…, socket=True)``.
    """
    reader = _reader(stream)
    while True:
        header = reader.read(_HEADER.size)
        if header is None or len(header) < _HEADER.size:
            return
        which, length = _HEADER.unpack(header)
        yield which, reader.read(length)


def _reader(stream: Any) -> Any:
    """The buffered reader of the response; a channel of SSH makes one of its own."""
    response = getattr(stream, "_response", None)
    buffered = getattr(getattr(getattr(response, "raw", None), "_fp", None), "fp", None)
    return buffered if hasattr(buffered, "peek") else stream.makefile("rb")


@contextmanager
def released(stream: Any) -> Iterator[None]:
    """Close a stream of the SDK at the block's end, and the response that still holds its socket.

    Closing the stream alone leaves the socket to the garbage collector.
    """
    try:
        yield
    finally:
        for part in (getattr(stream, "_response", None), stream):
            with suppress(OSError, ValueError):  # the one may have closed the other
                if part is not None:
                    part.close()


def hang_up(stream: Any) -> None:
    """End a stream that another thread reads; one that has ended has no socket any more."""
    end = getattr(stream, "_sock", stream)
    with suppress(OSError):
        if end is not None:
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def deadline(seconds: float, act: Callable[[], object]) -> Iterator[threading.Event]:
    """Call ``act`` if the block has not ended after ``seconds``; the event says that it was."""
    late = threading.Event()

    def expire() -> None:
        late.set()
        act()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
