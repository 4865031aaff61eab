"""``sync``: a new spec for a running node, level-triggered, one request after the other.

1. Check the new spec, and move it over the old one.
2. Reconcile the network.
3. Remove pods that are no longer wanted or differ, then create what is missing. Pods that stay as
   they are, are not touched.
4. Answer when everything has settled: ``changes``, or the first error.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import desired, journal
from .desired import Desired
from .errors import AgentError, describe
from .runtime import Queue
from .supervisor import Supervisor

__all__ = ["Reconcile", "Syncs"]

Reply = Callable[[dict[str, Any]], None]
Reconcile = Callable[[dict[str, Any], dict[str, Any] | None], list[str]]


class _Request:
    def __init__(self, path: str, reply: Reply) -> None:
        self.path = path
        self.reply = reply
        self.began = time.monotonic()
        self.changes: list[str] | None = None
        self.pods: set[str] = set()


class Syncs:
    """The queue of sync requests; it opens once the boot has run the network part.

    Args:
        network: runs the network part, so that no CNI job runs meanwhile.
        supervisor: has the pods.
        installed: told of each new spec, and why the network does not hold it, if so; returns what
            it changed itself.
        finished: told of each end, before the answer: the state is true when it arrives.
        reconcile: applies the network part.
        spec_path: where the node's spec is.
    """

    def __init__(
        self,
        network: Queue,
        supervisor: Supervisor,
        installed: Callable[[Desired, dict[str, str] | None], list[str]],
        finished: Callable[[], None],
        reconcile: Reconcile,
        spec_path: str,
    ) -> None:
        self._network = network
        self._supervisor = supervisor
        self._installed = installed
        self._finished = finished
        self._reconcile = reconcile
        self._spec_path = spec_path
        self._queue: deque[_Request] = deque()
        self._current: _Request | None = None
        self._applied: dict[str, Any] | None = None
        self._open = False

    @property
    def busy(self) -> bool:
        """Whether a sync is under way."""
        return self._current is not None

    def open(self, applied: dict[str, Any] | None) -> None:
        """Begin to serve; ``applied`` is the spec whose network part is in the kernel."""
        self._applied = applied
        self._open = True
        self._next()

    def request(self, path: str, reply: Reply) -> None:
        """Queue a sync with the spec at ``path`` on the node."""
        self._queue.append(_Request(path, reply))
        self._next()

    def _next(self) -> None:
        if not self._open or self._current is not None or not self._queue:
            return
        request = self._current = self._queue.popleft()
        previous = self._applied
        self._network.submit(
            lambda: self._prepare(request, previous),
            lambda result, error: self._prepared(request, result, error),
        )

    def _prepare(
        self, request: _Request, previous: dict[str, Any] | None
    ) -> tuple[Desired, list[str], BaseException | None]:
        """In the network worker; an error of the network part comes back with the new spec."""
        wanted = desired.load(request.path)
        install(request.path, self._spec_path)
        try:
            return wanted, self._reconcile(wanted.spec, previous), None
        except Exception as error:
            return wanted, [], error

    def _prepared(self, request: _Request, result: Any, error: Any) -> None:
        if error is not None:  # nothing was touched
            self._finish(describe(error))
            return
        wanted, changes, failure = result
        more = self._installed(wanted, describe(failure) if failure else None)
        if failure is not None:
            self._applied = union(self._applied, wanted.spec)
            self._finish(describe(failure))
            return
        self._applied = wanted.spec
        message = f"network holds the spec ({len(changes)} changes)"
        journal.emit("sync", message, since=request.began)
        pods = self._supervisor.apply(wanted.pods)
        request.pods = {change.split()[1] for change in pods}
        request.changes = changes + more + pods
        self.look()

    def progress(self, line: dict[str, Any]) -> None:
        """Pass a line of the node's log on to whoever waits for the sync under way."""
        if self._current is not None and line["step"] in ("network", "pod", "sync"):
            self._current.reply(line)

    def look(self) -> None:
        """See whether the sync under way has come to its end."""
        request = self._current
        if request is None or request.changes is None or not self._supervisor.settled:
            return
        for pod in self._supervisor.ordered():
            if pod.key in request.pods and pod.state not in ("Running", "Succeeded"):
                why = pod.error or "its containers do not keep running"
                self._finish({"what": f"pod is {pod.state}", "where": pod.key, "why": why})
                return
        self._finish(None)

    def _finish(self, error: dict[str, str] | None) -> None:
        request, self._current = self._current, None
        assert request is not None
        level = "error" if error else "info"
        message = f"sync failed: {error['why']}" if error else "in sync"
        journal.emit("sync", message, level=level, since=request.began)
        self._finished()
        if error:
            request.reply({"ok": False, "error": error})
        else:
            request.reply({"ok": True, "changes": request.changes or []})
        self._next()


def union(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """What a node may hold after ``new`` was applied in part on top of ``old``."""
    held = dict(new)
    for key in ("files", "objects", "rulesets", "tunnels"):
        before = (old or {}).get(key, [])
        held[key] = [*before, *(item for item in new.get(key, []) if item not in before)]
    return held


def install(path: str, target: str) -> None:
    """Put the checked spec at ``path`` in the place of ``target``, atomically; ``path`` goes.

    Raises:
        AgentError: the file system refused.
    """
    temporary = f"{target}.new"
    try:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        if Path(path).exists() and Path(target).exists() and Path(path).samefile(target):
            return
        Path(temporary).write_bytes(Path(path).read_bytes())
        os.replace(temporary, target)  # noqa: PTH105 - atomic, also from another file system
        Path(path).unlink()
    except OSError as error:
        raise AgentError("cannot put the spec in place", target, str(error)) from None
