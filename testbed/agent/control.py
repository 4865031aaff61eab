"""The control socket of a node: one JSON request line, then JSON reply lines.

The last reply of a request has ``"ok"``: true with the answer, or false with ``"error"``
(``what``, ``where``, ``why``); then the node closes the connection. Whatever a client sends or
does, the node answers or drops it and goes on.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import AgentError, describe
from .layout import SOCKET
from .loop import EventLoop

__all__ = ["Server"]

LIMIT = 65536
"""Bytes of a request, and of replies that a client does not read."""

Handler = Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], None]


class Server:
    """Accepts clients and hands each request to ``handler`` with a function to reply."""

    def __init__(self, loop: EventLoop, handler: Handler, path: str = SOCKET) -> None:
        self._loop = loop
        self._handler = handler
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def listen(self) -> None:
        """Make the socket (mode 0600) and begin to accept."""
        Path(self._path).unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            self._socket.bind(self._path)
        finally:
            os.umask(mask)
        self._socket.listen(16)
        self._socket.setblocking(False)
        self._loop.watch(self._socket.fileno(), selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Accept no more clients."""
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()

    def _accept(self) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError:
            return
        client.setblocking(False)
        _Client(self._loop, client, self._handler).read()


class _Client:
    def __init__(self, loop: EventLoop, client: socket.socket, handler: Handler) -> None:
        self._loop = loop
        self._socket = client
        self._fd = client.fileno()
        self._handler = handler
        self._input = b""
        self._output = b""
        self._last = False
        self._closed = False

    def read(self) -> None:
        self._loop.watch(self._fd, selectors.EVENT_READ, self._readable)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._input += data
        if b"\n" in self._input:
            self._loop.unwatch(self._fd)
            self._handle(self._input.partition(b"\n")[0])
        elif not data or len(self._input) > LIMIT:
            self._close()

    def _handle(self, line: bytes) -> None:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise TypeError("not a JSON object")
        except (ValueError, TypeError, RecursionError) as error:
            failure = AgentError("malformed request", "control socket", str(error))
            self._reply({"ok": False, "error": failure.as_dict()})
            return
        try:
            self._handler(request, self._reply)
        except Exception as error:
            self._reply({"ok": False, "error": describe(error)})

    def _reply(self, answer: dict[str, Any]) -> None:
        if self._closed:
            return
        self._output += json.dumps(answer, separators=(",", ":")).encode() + b"\n"
        self._last = self._last or "ok" in answer
        self._send()

    def _send(self) -> None:
        try:
            sent = self._socket.send(self._output, socket.MSG_NOSIGNAL)
            self._output = self._output[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        if not self._output:
            self._loop.unwatch(self._fd)
            if self._last:
                self._close()
        elif len(self._output) > LIMIT and not self._last:
            self._close()
        else:
            self._loop.watch(self._fd, selectors.EVENT_WRITE, self._send)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.unwatch(self._fd)
            self._socket.close()
