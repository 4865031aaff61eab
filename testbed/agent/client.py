"""The client's side of the control socket (:mod:`agent.control`)."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from typing import Any

from .errors import AgentError
from .layout import SOCKET

__all__ = ["print_json", "request"]


def request(
    message: dict[str, Any], progress: Callable[[dict[str, Any]], None], path: str = SOCKET
) -> dict[str, Any]:
    """Send a request and return the last reply, the one that has ``ok``.

    Args:
        message: the request.
        progress: called with each reply before the last.
        path: the socket.

    Raises:
        AgentError: the agent does not run or ended before its last reply.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(path)
            client.sendall(json.dumps(message).encode() + b"\n")
            with client.makefile("rb") as replies:
                for line in replies:
                    reply: dict[str, Any] = json.loads(line)
                    if "ok" in reply:
                        return reply
                    progress(reply)
    except OSError as error:
        raise AgentError("the agent does not answer", path, str(error)) from None
    raise AgentError("the agent ended before its answer", path)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object per line on standard output, at once."""
    sys.stdout.write(json.dumps(value, separators=(",", ":")) + "\n")
    sys.stdout.flush()
