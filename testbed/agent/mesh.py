"""Probing the network from inside this node's pods, all pairs at once, from a single process.

A socket belongs to the network namespace in which it was made, so one thread enters each pod's
namespace just long enough to open sockets there and then polls them all. ICMP echo is sent by raw
sockets with a marker in the payload; TCP asks netexec's ``/clientip``, whose answer is the source
address as the receiving pod sees it: that there is no NAT is read there.
"""

from __future__ import annotations

import base64
import json
import selectors
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import probes
from .capture import Capture, frames
from .netns import entered

__all__ = ["main", "run"]

STATE = Path("/var/lib/testbed/state.json")
_OPEN_AT_ONCE = 256


def main(argv: list[str]) -> int:
    """``testbed-agent probe FILE``: run the requested probes and print the results as JSON."""
    request = json.loads(Path(argv[0]).read_text())
    Path(argv[0]).unlink()
    print(json.dumps(run(request, _namespaces())))
    sys.stdout.flush()
    return 0


def _namespaces() -> dict[str, str | None]:
    """Source name → path of its network namespace; ``None`` is the node's own."""
    pods = json.loads(STATE.read_text())["pods"]
    return {f"{pod['namespace']}/{pod['name']}": pod["netns"] or None for pod in pods}


def run(request: dict[str, Any], namespaces: dict[str, str | None]) -> dict[str, Any]:
    """Run ``request`` and return ``{"results": [...], "pcap": base64}``.

    A request holds ``probes`` (each with ``id``, ``source``, ``protocol`` ``icmp`` or ``tcp``,
    ``ip`` and for TCP ``port``), a ``marker`` (text) in every ICMP payload, ``timeout`` in seconds
    and optionally ``capture``: ``interface``, ``filter`` and the ``ids`` of the probes to capture,
    each with a marker of its own. A source is a pod's key, or ``""`` for the node itself.
    """
    deadline = time.monotonic() + request["timeout"]
    spaces = {"": None, **namespaces}
    chosen = set(request["capture"]["ids"]) if request.get("capture") else set()
    results, pcap = [], b""
    if chosen:
        captured = [probe for probe in request["probes"] if probe["id"] in chosen]
        with Capture(request["capture"]["interface"], request["capture"]["filter"]) as capture:
            results += _run_all(captured, request["marker"], spaces, deadline)
            markers = [probes.payload(request["marker"], each["id"]) for each in captured]
            pcap = capture.wait(lambda raw: _holds_all(raw, markers), 0.5)
    rest = [probe for probe in request["probes"] if probe["id"] not in chosen]
    results += _run_all(rest, request["marker"], spaces, deadline)
    return {"results": results, "pcap": base64.b64encode(pcap).decode()}


def _holds_all(pcap: bytes, markers: list[bytes]) -> bool:
    seen = list(frames(pcap))
    return all(any(marker in frame for frame in seen) for marker in markers)


def _run_all(
    wanted: Iterable[dict[str, Any]],
    marker: str,
    spaces: dict[str, str | None],
    deadline: float,
) -> list[dict[str, Any]]:
    waiting = list(reversed(list(wanted)))
    results: list[dict[str, Any]] = []
    active: dict[int, probes.Probe] = {}
    with selectors.DefaultSelector() as selector:
        while waiting or active:
            while waiting and len(active) < _OPEN_AT_ONCE:
                probe = _open(waiting.pop(), marker, spaces, deadline, results)
                if probe is not None:
                    active[probe.socket.fileno()] = probe
                    selector.register(probe.socket, probe.events)
            _poll(selector, active, results, deadline)
    return results


def _open(
    wanted: dict[str, Any],
    marker: str,
    spaces: dict[str, str | None],
    deadline: float,
    results: list[dict[str, Any]],
) -> probes.Probe | None:
    """Open and send one probe; a source that is not there is a result, not an exception."""
    if wanted["source"] not in spaces:
        results.append(probes.failure(wanted, "the source pod does not run on this node"))
        return None
    if time.monotonic() >= deadline:
        results.append(probes.failure(wanted, "not sent: the time limit had passed"))
        return None
    try:
        with entered(spaces[wanted["source"]]):
            return probes.start(wanted, marker)
    except OSError as error:
        results.append(probes.failure(wanted, error.strerror or str(error)))
        return None


def _poll(
    selector: selectors.BaseSelector,
    active: dict[int, probes.Probe],
    results: list[dict[str, Any]],
    deadline: float,
) -> None:
    finished = []
    for key, _ in selector.select(probes.RETRY_SECONDS / 4):
        probe = active[key.fd]
        result = probe.ready()
        if result is not None:
            finished.append((key.fd, result))
        elif probe.events != key.events:
            selector.modify(probe.socket, probe.events)
    now = time.monotonic()
    done = {fd for fd, _ in finished}
    for fd, probe in active.items():
        if fd in done:
            continue
        if now >= deadline:
            finished.append((fd, probe.expired()))
        else:
            probe.tick(now)
    for fd, result in finished:
        probe = active.pop(fd)
        selector.unregister(probe.socket)
        probe.socket.close()
        results.append(result)
