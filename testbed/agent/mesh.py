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
from .documents import received
from .netns import entered

__all__ = ["main", "run"]

STATE = Path("/var/lib/testbed/state.json")
_OPEN_AT_ONCE = 256
_REFUSED_SECONDS = 0.02
_BOOT_SECONDS = 10.0
_SECONDS_A_PROBE = 0.002
"""Beyond the time of one: what a great number may take in all."""
_CAPTURE_ROUNDS, _CAPTURE_SECONDS = 3, 0.5


def main(argv: list[str]) -> int:
    """``testbed-agent probe REQUEST``: run the requested probes, print the results as JSON."""
    path = Path(received(argv[0]))
    request = json.loads(path.read_text())
    path.unlink()
    _booted()
    answer = run(request, _namespaces())
    answer["state"] = _state()
    print(json.dumps(answer))
    sys.stdout.flush()
    return 0


def _booted() -> None:
    """Wait for the end of a boot, at most so long: pods of the boot before are no sources."""
    deadline = time.monotonic() + _BOOT_SECONDS
    while _state()["phase"] == "booting" and time.monotonic() < deadline:
        time.sleep(_REFUSED_SECONDS)


def _state() -> dict[str, Any]:
    try:
        state = json.loads(STATE.read_text())
    except FileNotFoundError:
        return {"phase": "booting", "pods": []}
    return state if isinstance(state, dict) else {}


def _namespaces() -> dict[str, str]:
    """Pod → path of its network namespace, for pods that have one of their own."""
    return {
        f"{pod['namespace']}/{pod['name']}": pod["netns"]
        for pod in _state()["pods"]
        if pod["netns"]
    }


def run(request: dict[str, Any], namespaces: dict[str, str]) -> dict[str, Any]:
    """Run ``request`` and return ``{"results": [...], "pcap": base64, "summary": words}``.

    A request holds ``probes`` (each with ``id``, ``source``, ``protocol`` ``icmp`` or ``tcp``,
    ``ip`` and for TCP ``port``), a ``marker`` (text) in every ICMP payload, ``timeout`` in seconds
    and optionally ``capture``: ``interface``, ``filter`` and the ``ids`` of the probes to capture,
    each with a marker of its own. ``routes`` (addresses) and ``sessions`` (names of BGP protocols)
    are waited for before anything is sent, at most ``converge_seconds``. A source is a pod's key,
    or ``""`` for the node itself. The captured probes and the others have the time each: one that
    fails takes none from another.
    """
    spaces: dict[str, str | None] = {"": None, **namespaces}
    chosen = set(request["capture"]["ids"]) if request.get("capture") else set()
    captured = [probe for probe in request["probes"] if probe["id"] in chosen]
    rest = [probe for probe in request["probes"] if probe["id"] not in chosen]
    answer: dict[str, Any] = {"results": [], "pcap": "", "summary": ""}
    if captured:
        answer = _capture(request, captured, spaces)
    else:
        answer |= _converged(request)
    answer["results"] += _Run(request, spaces).all(rest)
    return answer


def _converged(request: dict[str, Any]) -> dict[str, Any]:
    """Wait for the request's routes and BGP sessions: what is missing, and how sessions are."""
    seconds: float = request.get("converge_seconds", 0)
    began = time.monotonic()
    missing: list[str] = []
    sessions: list[dict[str, str]] = []
    if request.get("routes"):
        from . import fib

        missing = fib.wait(request["routes"], seconds)
    if request.get("sessions"):
        from . import bird

        left = max(0.0, seconds - (time.monotonic() - began))
        sessions = bird.established(request["sessions"], left)
    return {"routes_missing": missing, "bgp": sessions}


def _capture(
    request: dict[str, Any], wanted: list[dict[str, Any]], spaces: dict[str, str | None]
) -> dict[str, Any]:
    """Run probes under a capture of the uplink until their frames are in it.

    The kernel need not hand every frame to a capture. Answered probes whose frames are missing are
    sent again; whatever was captured is returned, so what is wrong on the wire stays in it.
    """
    markers = [probes.payload(request["marker"], each["id"]) for each in wanted]
    encrypted = request["capture"].get("encrypted", False)

    def complete(raw: bytes) -> bool:
        if encrypted:  # nothing can be read: as many frames as there are echoes must do
            return len(frames(raw)) >= 2 * len(wanted)
        return _holds_all(raw, markers)

    with Capture(request["capture"]["interface"], request["capture"]["filter"]) as capture:
        converged = _converged(request)  # with tcpdump ready, so that no time passes afterwards
        for _ in range(_CAPTURE_ROUNDS):
            results = _Run(request, spaces).all(wanted)
            pcap = capture.wait(complete, _CAPTURE_SECONDS)
            if complete(pcap) or not all(result["ok"] for result in results):
                break
    return {
        **converged,
        "results": results,
        "pcap": base64.b64encode(pcap).decode(),
        "summary": capture.summary,
    }


def _holds_all(pcap: bytes, markers: list[bytes]) -> bool:
    """Whether request and reply of every captured echo are there."""
    seen = frames(pcap)
    return all(
        {probes.ECHO_REQUEST, probes.ECHO_REPLY} <= {probes.icmp_type(f, marker) for f in seen}
        for marker in markers
    )


class _Run:
    """Some probes under way: those still to open, those open, those to open again."""

    def __init__(self, request: dict[str, Any], spaces: dict[str, str | None]) -> None:
        self.results: list[dict[str, Any]] = []
        self._marker: str = request["marker"]
        self._spaces = spaces
        # A probe has its time from when it is sent, however many there are before it.
        self._seconds: float = request["timeout"]
        total = self._seconds + len(request["probes"]) * _SECONDS_A_PROBE
        self._deadline = time.monotonic() + total
        self._looked = 0.0
        self._active: dict[int, probes.Probe] = {}
        self._again: list[dict[str, Any]] = []

    def all(self, wanted: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run every probe to its result."""
        waiting = list(reversed(list(wanted)))
        with selectors.DefaultSelector() as selector:
            while waiting or self._active or self._again:
                while waiting and len(self._active) < _OPEN_AT_ONCE:
                    self._open(waiting.pop(), selector)
                self._poll(selector)
                if not waiting and not self._active and self._again:
                    # Refused: the application may not listen yet, as after a pod's start.
                    time.sleep(_REFUSED_SECONDS)
                    waiting, self._again = self._again, []
        return self.results

    def _open(self, wanted: dict[str, Any], selector: selectors.BaseSelector) -> None:
        """Open and send one probe; a source that is not there is a result, not an exception."""
        problem = ""
        if wanted["source"] not in self._spaces:
            problem = "the source pod does not run on this node"
        elif time.monotonic() >= self._deadline:
            problem = wanted.get("error", "not sent: the time limit had passed")
        if problem:
            self.results.append(probes.failure(wanted, problem))
            return
        try:
            with entered(self._spaces[wanted["source"]]):
                probe = probes.start(wanted, self._marker)
        except OSError as error:
            self.results.append(probes.failure(wanted, error.strerror or str(error)))
            return
        self._active[probe.socket.fileno()] = probe
        selector.register(probe.socket, probe.events)

    def _poll(self, selector: selectors.BaseSelector) -> None:
        finished: dict[int, dict[str, Any]] = {}
        for key, _ in selector.select(probes.TICK_SECONDS) if self._active else ():
            probe = self._active[key.fd]
            result = probe.ready()
            if result is not None:
                finished[key.fd] = result
            elif probe.events != key.events:
                selector.modify(probe.socket, probe.events)
        now = time.monotonic()
        if now - self._looked >= probes.TICK_SECONDS:
            self._looked = now
            for descriptor, probe in self._active.items():
                if descriptor not in finished:
                    if now >= min(self._deadline, probe.started + self._seconds):
                        finished[descriptor] = probe.expired()
                    else:
                        probe.tick(now)
        for descriptor, result in finished.items():
            probe = self._active.pop(descriptor)
            selector.unregister(probe.socket)
            probe.socket.close()
            first = probe.wanted.get("started", probe.started)
            if result.get("refused") and now < min(self._deadline, first + self._seconds):
                again = {"error": result["error"], "started": first}
                self._again.append({**probe.wanted, **again})
            else:
                self.results.append(result)
