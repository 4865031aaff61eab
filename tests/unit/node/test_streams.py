"""Frames of an exec's output, read through the buffer that the SDK leaves behind."""

from __future__ import annotations

import socket
import struct
from types import SimpleNamespace
from typing import Any

from testbed.node.streams import STDERR, STDOUT, frames


def frame(which: int, text: bytes) -> bytes:
    """As the engine multiplexes a stream."""
    return struct.pack(">BxxxL", which, len(text)) + text


def test_what_came_with_the_headers_is_not_lost() -> None:
    """The buffer holds the first frames when the raw socket is handed out."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 101 UPGRADED\r\n\r\n" + frame(STDOUT, b"fast"))
        buffered = ours.makefile("rb")
        assert buffered.readline().startswith(b"HTTP/1.1 101")
        assert buffered.readline() == b"\r\n"
        theirs.sendall(frame(STDERR, b"x" * 70_000) + frame(STDOUT, b"end"))
        theirs.shutdown(socket.SHUT_WR)
        stream: Any = buffered.raw
        stream._response = SimpleNamespace(raw=SimpleNamespace(_fp=SimpleNamespace(fp=buffered)))
        found = list(frames(stream))
    assert found == [(STDOUT, b"fast"), (STDERR, b"x" * 70_000), (STDOUT, b"end")]


def test_a_stream_that_is_cut_ends() -> None:
    """In the middle of a header."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(frame(STDOUT, b"a") + b"\1\0")
        theirs.shutdown(socket.SHUT_WR)
        assert list(frames(ours)) == [(STDOUT, b"a")]
