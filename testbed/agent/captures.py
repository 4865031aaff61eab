"""``testbed-agent capture REQUEST``: what passes some interfaces of this node and its pods.

A tcpdump on each, and one pcapng on standard output, ordered by time. Its beginning is the
handshake: nothing is written before every tcpdump captures. Then come packets, and interface
statistics of interface 0 as watermarks: whatever was captured until that time is above. The line
``stop``, or the end of standard input, ends it: with all that was captured until then, and with
statistics of every interface.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from . import pcapng, state
from .documents import received
from .errors import AgentError
from .netns import entered
from .source import Source
from .stream import Stream
from .tcpdump import READY_SECONDS, SNAPLEN, Tcpdump

__all__ = ["main", "run", "up"]

_APPLICATION = "testbed capture"
_ALL = "all"
_MOST = 256
"""Interfaces of a node: each costs 5.5 MiB, and two of the 1024 files that select(2) can watch."""
_SIOCGIFFLAGS, _IFF_UP = 0x8913, 1


def main(argv: list[str]) -> int:
    """Capture until told to stop; problems are lines of JSON on standard error."""
    path = Path(received(argv[0]))
    request = json.loads(path.read_text())
    path.unlink()
    try:
        problems = run(request, _namespaces(), sys.stdin.fileno(), sys.stdout.fileno())
    except AgentError as error:
        problems = [error]
    for problem in problems:
        sys.stderr.write(json.dumps(problem.as_dict()) + "\n")
    return 1 if problems else 0


def _namespaces() -> dict[str, str | None]:
    """Pod → path of its network namespace; ``None`` for those in the node's own."""
    pods = (state.read() or {}).get("pods", [])
    return {f"{pod['namespace']}/{pod['name']}": pod["netns"] or None for pod in pods}


def run(
    request: Mapping[str, Any], namespaces: Mapping[str, str | None], stdin: int, stdout: int
) -> list[AgentError]:
    """Serve ``request`` and return what went wrong.

    A request holds ``interfaces`` (each with its ``name`` in the file, ``device``, and ``pod``,
    empty for the node's own; device ``all`` is every one that is up), and optionally a ``filter``
    and a ``snaplen`` in bytes (0: whole frames).
    """
    expression, snaplen = request.get("filter", ""), request.get("snaplen", SNAPLEN)
    with ExitStack() as held:
        spaces = {"": None, **namespaces}
        sources, problems = _started(request["interfaces"], expression, snaplen, spaces, held)
        if problems:
            return problems
        head = pcapng.section(_APPLICATION)
        for source in sources:
            head += pcapng.interface(
                source.name, source.link_type, filter=expression, snaplen=snaplen
            )
        return Stream(sources, stdin, stdout).run(head)


def _started(
    interfaces: list[dict[str, str]],
    expression: str,
    snaplen: int,
    spaces: Mapping[str, str | None],
    held: ExitStack,
) -> tuple[list[Source], list[AgentError]]:
    """A ready tcpdump for every interface; all are started before any is waited for."""
    found: dict[str, tuple[str, str | None]] = {}
    sources: list[Source] = []
    problems: list[AgentError] = []
    for wanted in interfaces:
        try:
            devices = _devices(wanted, spaces)
        except AgentError as error:
            problems.append(error)
        else:
            found |= {name: (device, spaces[wanted["pod"]]) for name, device in devices}
    if len(found) > _MOST:
        why = f"{len(found)} of them, and at most {_MOST} of a node can be: each has a tcpdump"
        return [], [AgentError("cannot capture on so many interfaces", interfaces[0]["name"], why)]
    for name, (device, space) in found.items():
        try:
            tcpdump = Tcpdump(device, expression, netns=space, snaplen=snaplen, nanoseconds=True)
        except AgentError as error:
            problems.append(error)
        else:
            held.callback(tcpdump.close)
            sources.append(Source(len(sources), name, tcpdump, space))
    deadline = time.monotonic() + READY_SECONDS
    for source in sources:
        try:
            source.begin(deadline)
        except AgentError as error:
            problems.append(_explained(source, expression, error))
    if problems:
        for source in sources:
            source.tcpdump.end()
    return sources, problems


def _devices(wanted: Mapping[str, str], spaces: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """Name in the file, and device."""
    name, device, pod = wanted["name"], wanted["device"], wanted["pod"]
    if pod not in spaces:
        raise AgentError("cannot capture there", name, "the pod does not run")
    if device != _ALL:
        return [(name, device)]
    place = name.rpartition("/")[0]
    return [(f"{place}/{each}", each) for each in up(spaces[pod])]


def up(space: str | None) -> list[str]:
    """The devices of a network namespace that are up.

    Raises:
        AgentError: the namespace is gone.
    """
    found = []
    try:
        with entered(space), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            for _, device in socket.if_nameindex():
                with suppress(OSError):  # it went away meanwhile
                    request = struct.pack("16sH14x", device.encode(), 0)
                    answer = fcntl.ioctl(asking, _SIOCGIFFLAGS, request)
                    if struct.unpack_from("16xH", answer)[0] & _IFF_UP:
                        found.append(device)
    except OSError as error:
        raise AgentError("cannot capture there", space or "", str(error)) from None
    return found


def _explained(source: Source, expression: str, error: AgentError) -> AgentError:
    """tcpdump's words are either about its device, which they name first, or about the filter."""
    why = error.why.removeprefix("tcpdump: ").partition("\n")[0]
    device, separator, words = why.partition(": ")
    if separator and device == source.tcpdump.interface:
        there = ", ".join(up(source.space))
        return AgentError("cannot capture there", source.name, f"{words} (up are {there})")
    if expression and why:
        return AgentError("tcpdump refuses the filter", repr(expression), why)
    return AgentError(error.what, source.name, why)
