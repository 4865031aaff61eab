"""Asking BIRD for its BGP sessions, over its control socket: what ``birdc show protocols`` prints.

The protocol is lines: a code of four digits, ``-`` where more follow, and text; ``0000`` ends an
answer. A line that begins with a blank continues the one before.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping

__all__ = ["SOCKET", "established", "parse", "sessions"]

SOCKET = "/var/run/calico/bird.ctl"
_SECONDS = 2.0
_POLL_SECONDS = 0.02


def sessions(path: str = SOCKET) -> list[dict[str, str]]:
    """Every BGP protocol with ``name``, ``state`` and ``info``; none where BIRD does not run."""
    try:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(_SECONDS)
            control.connect(path)
            _read(control, b"0001 ")
            control.sendall(b"show protocols\n")
            return parse(_read(control, b"0000 "))
    except OSError:
        return []


def _read(control: socket.socket, end: bytes) -> str:
    """Everything up to the line that begins with ``end``."""
    answer = b""
    while not any(line.startswith(end) for line in answer.splitlines()):
        chunk = control.recv(65536)
        if not chunk:
            break
        answer += chunk
    return answer.decode(errors="replace")


def parse(answer: str) -> list[dict[str, str]]:
    """The BGP rows of ``show protocols``."""
    found = []
    for line in answer.splitlines():
        row = line[5:].split() if line.startswith(("1002-", "1002 ")) else line.split()
        if not line.startswith(("1002", " ")) or len(row) < 4 or row[1] != "BGP":
            continue
        found.append({"name": row[0], "state": row[3], "info": " ".join(row[5:])})
    return found


def established(wanted: Iterable[str], seconds: float, path: str = SOCKET) -> list[dict[str, str]]:
    """Wait until every session in ``wanted`` is established, at most ``seconds``; all sessions.

    A name that ends in ``_`` stands for all sessions whose names begin with it.
    """
    names = tuple(wanted)
    deadline = time.monotonic() + seconds
    while True:
        found = sessions(path)
        if all(_is_established(name, found) for name in names) or time.monotonic() >= deadline:
            return found
        time.sleep(_POLL_SECONDS)


def _is_established(name: str, found: Iterable[Mapping[str, str]]) -> bool:
    matching = [
        each
        for each in found
        if each["name"] == name or (name.endswith("_") and each["name"].startswith(name))
    ]
    return bool(matching) and all(each["info"] == "Established" for each in matching)
