"""``testbed-agent record REQUEST``: what the flight recorder holds of this node, and its evidence.

The host keeps one tcpdump running on a node (``testbed/flight_recorder.py`` has the command), which
writes what passes any interface of the node into a ring of files in memory. Nothing is read from
it until a test fails. Then this verb takes the frames of that test's time out of the ring:

* tcpdump with ``--immediate-mode -U`` sleeps only when it has written every frame it was given, so
  waiting for it to sleep makes the ring complete;
* it is stopped while its files are read, so none of them is overwritten meanwhile.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from . import evidence, pcap, pcapng
from .documents import received
from .stopping import handles

__all__ = ["Frame", "main", "names", "read", "run"]

LINK_TYPE = 276
"""LINUX_SLL2: the header of a capture on every interface, with interface and direction."""
_COOKED = struct.Struct(">HHIHB")
_OUTGOING = 4
_DRAIN_SECONDS, _STOP_SECONDS = 1.0, 0.5
_PAUSE = 0.001
_LINK = re.compile(r"^(?:Deleted )?(\d+): ([^:@\s]+)", re.MULTILINE)


class Frame(NamedTuple):
    """A frame of the ring."""

    time_ns: int
    interface: int
    """Its index on the node."""
    direction: str
    data: bytes
    length: int


def main(argv: list[str]) -> int:
    """Print the answer to ``REQUEST`` as one line of JSON."""
    path = Path(received(argv[0]))
    request = json.loads(path.read_text())
    path.unlink()
    sys.stdout.write(json.dumps(run(request)) + "\n")
    sys.stdout.flush()
    return 0


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Answer a request.

    A request holds ``node`` (a name), ``ring`` (the ring's directory), ``files`` (how many the ring
    has when it is full), ``begin_ns`` and ``end_ns``, and ``evidence`` (whether texts are wanted).
    The answer: ``pcapng`` (base64), ``oldest_ns`` (time of the oldest frame of a full ring, which
    may overwrite older ones; else 0), ``problems`` (texts) and ``texts``: file name → what the
    node's tools say now.
    """
    ring = Path(request["ring"])
    problems: list[str] = []
    with _paused(ring, problems):
        files = read(ring)
    begin, end = request["begin_ns"], request["end_ns"]
    frames = [frame for file in files for frame in file if begin <= frame.time_ns <= end]
    frames.sort(key=lambda frame: frame.time_ns)
    labels = names(ring, socket.if_nameindex())
    return {
        "pcapng": base64.b64encode(_pcapng(request["node"], frames, labels)).decode(),
        "oldest_ns": files[0][0].time_ns if len(files) == request["files"] else 0,
        "problems": problems,
        "texts": evidence.texts() if request.get("evidence") else {},
    }


@contextmanager
def _paused(ring: Path, problems: list[str]) -> Iterator[None]:
    """Have tcpdump write everything, and stand still for the block."""
    process = _tcpdump(ring)
    if process is None:
        problems.append("tcpdump does not run")
        yield
        return
    os.kill(process, signal.SIGUSR1)  # it says what it counted and what the kernel dropped
    if not _reaches(process, "S", _DRAIN_SECONDS):
        problems.append(f"tcpdump was still busy after {_DRAIN_SECONDS:g} s: frames may be missing")
    os.kill(process, signal.SIGSTOP)
    try:
        _reaches(process, "T", _STOP_SECONDS)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def _tcpdump(ring: Path) -> int | None:
    """The process of this ring's tcpdump, if it runs.

    One that has only begun does not count: until it catches SIGUSR1, the signal would end it.
    """
    try:
        process = int((ring / "pid").read_text())
        name = Path(f"/proc/{process}/comm").read_text().strip()
        status = Path(f"/proc/{process}/status").read_text()
    except (OSError, ValueError):
        return None
    return process if name == "tcpdump" and handles(status, signal.SIGUSR1) else None


def _reaches(process: int, state: str, seconds: float) -> bool:
    """Wait until a process is in a state, a letter of proc(5)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        if words[0] == state:
            return True
        time.sleep(_PAUSE)
    return False


def read(ring: Path) -> list[list[Frame]]:
    """The frames of every file that has any, the oldest file first."""
    files = [list(_frames(path.read_bytes())) for path in ring.glob("ring*")]
    return sorted(file for file in files if file)


def _frames(data: bytes) -> Iterator[Frame]:
    """The frames of a file, as far as they are complete."""
    with suppress(ValueError):  # not even its header is complete
        for time_ns, frame, length in pcap.Reader().feed(data):
            if len(frame) < _COOKED.size:
                return
            _, _, interface, _, kind = _COOKED.unpack_from(frame)
            direction = "out" if kind == _OUTGOING else "in"
            yield Frame(time_ns, interface, direction, frame, length)


def names(ring: Path, existing: Iterable[tuple[int, str]]) -> dict[int, str]:
    """Index → name of the interfaces, also of those that came and went since the ring began.

    ``ip -o monitor link`` wrote the file ``links``; its last word on an index counts.
    """
    with suppress(OSError):
        text = (ring / "links").read_text(errors="replace")
        return {**{int(index): name for index, name in _LINK.findall(text)}, **dict(existing)}
    return dict(existing)


def _pcapng(node: str, frames: list[Frame], labels: dict[int, str]) -> bytes:
    """A file of these frames, with the interfaces that they passed."""
    seen = sorted({frame.interface for frame in frames})
    numbers = {interface: number for number, interface in enumerate(seen)}
    blocks = [pcapng.section("testbed flight recorder")]
    for interface in seen:
        name = labels.get(interface, f"if{interface}")
        blocks.append(pcapng.interface(f"{node}/{name}", LINK_TYPE))
    for time_ns, interface, direction, data, length in frames:
        blocks.append(pcapng.packet(numbers[interface], time_ns, data, length, direction))
    return b"".join(blocks)
