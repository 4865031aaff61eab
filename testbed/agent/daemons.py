"""Keeping the spec's processes running, as runit does for BIRD in a calico-node container.

A daemon is started by a shell that ends at once, so that it becomes a child of PID 1's main thread
(:mod:`.reaper`). It is started again a second after it ended, however often, until it is stopped by
``testbed-agent process stop`` or the spec no longer has it. What it prints is in a log of its own,
cut when it has grown large.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from . import journal
from .command import execute, run
from .errors import AgentError
from .loop import EventLoop, Timer
from .runtime import Queue
from .stopping import kill

__all__ = ["Daemons"]

LOGS = "/var/log/testbed"
RESTART_SECONDS = 1.0
"""runsv's pause between two starts."""
_KILL_SECONDS = 5.0
_LOG_LIMIT = 1 << 20
_LOG_SECONDS = 30.0
_START = 'log=$1; shift; setsid "$@" >>"$log" 2>&1 </dev/null & echo $!'

Reply = Callable[[dict[str, Any]], None]


class _Daemon:
    """One process of the spec."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.spec = spec
        self.state = "stopped"
        """``starting``, ``running``, ``stopping``, ``backoff`` or ``stopped``."""
        self.pid: int | None = None
        self.restarts = 0
        self.read: list[bytes] = []
        """What was in its files when it last read them."""
        self.wanted = True
        self.forgotten = False
        self.timer: Timer | None = None
        self.waiting: list[Reply] = []

    @property
    def name(self) -> str:
        """The name in the spec."""
        return str(self.spec["name"])


class Daemons:
    """All daemons of the node.

    Args:
        loop: owns the state; every method is called in its thread.
        workers: where processes are started.
        changed: called when a state changed.
    """

    def __init__(self, loop: EventLoop, workers: Queue, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._workers = workers
        self._changed = changed
        self._daemons: dict[str, _Daemon] = {}
        self._watched = False
        self.frozen = False
        """The node stops: nothing is started any more."""

    @property
    def settled(self) -> bool:
        """Whether nothing is being started; one that only has to end delays nobody."""
        return not any(
            each.wanted and each.state in ("starting", "stopping")
            for each in self._daemons.values()
        )

    @property
    def failure(self) -> dict[str, str] | None:
        """The first daemon that should run and does not."""
        for each in self._daemons.values():
            if each.wanted and each.state == "backoff":
                log = f"see {LOGS}/{each.name}.log"
                return {"what": "process ended", "where": each.name, "why": log}
        return None

    def pids(self) -> list[int]:
        """Of those that run."""
        return [each.pid for each in self._daemons.values() if each.pid is not None]

    def as_list(self) -> list[dict[str, Any]]:
        """The daemons as ``state.json`` shows them."""
        return [
            {"name": each.name, "state": each.state, "pid": each.pid, "restarts": each.restarts}
            for each in self._daemons.values()
            if not each.forgotten
        ]

    def apply(self, specs: Iterable[Mapping[str, Any]]) -> list[str]:
        """Start, reload, restart and stop what differs; return what was done, a line each."""
        wanted = {spec["name"]: spec for spec in specs}
        done = []
        for name, each in list(self._daemons.items()):
            if name not in wanted and not each.forgotten:
                done.append(f"stop process {name}")
                each.wanted, each.forgotten = False, True
                self._stop(each)
        for name, spec in wanted.items():
            if name not in self._daemons:
                self._daemons[name] = _Daemon(spec)
                done.append(f"start process {name}")
                self._start(self._daemons[name])
            else:
                done += self._update(self._daemons[name], spec)
        self._watch_logs()
        return done

    def _update(self, each: _Daemon, spec: Mapping[str, Any]) -> list[str]:
        """Bring a daemon that is known to another spec; one that was stopped reads files later."""
        moved = each.forgotten or each.spec["argv"] != spec["argv"]
        reread = each.read != _contents(spec)
        each.spec = spec
        if moved or (reread and not spec["reload"] and each.wanted):
            each.wanted, each.forgotten = True, False
            self._stop(each)
            return [f"restart process {each.name}"]
        if reread and each.state == "running":
            self._reload(each)
            return [f"reload process {each.name}"]
        return []

    def process_ended(self, pid: int) -> bool:
        """Take note of the end of a process; whether it was a daemon."""
        for each in self._daemons.values():
            if each.pid == pid:
                self._ended(each)
                return True
        return False

    def command(self, action: str, name: str, reply: Reply) -> None:
        """``list``, or ``start``, ``stop``, ``restart`` one; replies when it is done.

        Raises:
            AgentError: there is no such process or action.
        """
        if action == "list":
            reply({"ok": True, "processes": self.as_list()})
            return
        each = self._daemons.get(name)
        if each is None or each.forgotten:
            known = ", ".join(self._daemons) or "none"
            raise AgentError("there is no such process", name, f"the node's spec has: {known}")
        if action not in ("start", "stop", "restart"):
            raise AgentError("unknown request", "process", f"action {action!r}")
        each.wanted = action != "stop"
        each.waiting.append(reply)
        if action != "start":
            self._stop(each)
        elif each.state in ("stopped", "backoff"):
            self._start(each)
        self._tell(each)

    def _start(self, each: _Daemon) -> None:
        if each.timer:
            each.timer.cancel()
        if self.frozen:
            return
        each.state, spec = "starting", each.spec
        each.read = _contents(spec)
        self._workers.submit(
            lambda: _launch(spec), lambda pid, error: self._started(each, spec, pid, error)
        )
        self._changed()

    def _started(
        self, each: _Daemon, spec: Mapping[str, Any], pid: int | None, error: Exception | None
    ) -> None:
        if pid is None:
            journal.emit("process", f"{each.name} did not start: {error}", level="error")
            self._ended(each)
            return
        each.pid, each.state = pid, "running"
        journal.emit("process", f"{each.name} runs", pid=pid)
        if not Path(f"/proc/{pid}").exists():  # it ended before anybody knew of it
            self._ended(each)
        elif not each.wanted or each.spec["argv"] != spec["argv"]:
            self._stop(each)
        self._tell(each)
        self._changed()

    def _stop(self, each: _Daemon) -> None:
        """End it; one that is wanted starts when it has ended, or at once if it does not run."""
        if each.timer:
            each.timer.cancel()
        if each.pid is not None:
            each.state = "stopping"
            kill(each.pid, signal.SIGTERM)
            pid = each.pid
            each.timer = self._loop.call_later(_KILL_SECONDS, lambda: self._kill(each, pid))
        elif each.state in ("backoff", "stopped"):
            each.state = "stopped"
            if each.wanted:
                self._start(each)
            elif each.forgotten:
                del self._daemons[each.name]
        self._changed()

    def _kill(self, each: _Daemon, pid: int) -> None:
        if each.pid == pid:
            kill(pid, signal.SIGKILL)

    def _ended(self, each: _Daemon) -> None:
        asked = each.state == "stopping"
        each.pid = None
        if each.timer:
            each.timer.cancel()
        if not each.wanted or self.frozen:
            each.state = "stopped"
            journal.emit("process", f"{each.name} stopped")
            if each.forgotten:
                del self._daemons[each.name]
        elif asked:
            self._start(each)
        else:
            each.state = "backoff"
            each.restarts += 1
            journal.emit("process", f"{each.name} ended by itself", level="warn")
            each.timer = self._loop.call_later(RESTART_SECONDS, lambda: self._start(each))
        self._tell(each)
        self._changed()

    def _tell(self, each: _Daemon) -> None:
        """Answer those who wait, once the daemon is as they asked."""
        if each.state == ("running" if each.wanted else "stopped"):
            waiting, each.waiting = each.waiting, []
            for reply in waiting:
                reply({"ok": True, "processes": self.as_list()})

    def _watch_logs(self) -> None:
        """Cut logs now and then, as long as there are daemons."""
        if self._watched or not self._daemons:
            return
        logs = [_log(each.spec) for each in self._daemons.values()]
        self._watched = True

        def look() -> None:
            self._watched = False
            self._workers.submit(lambda: _cut(logs), lambda *_: None)
            self._watch_logs()

        self._loop.call_later(_LOG_SECONDS, look)

    def _reload(self, each: _Daemon) -> None:
        each.read = _contents(each.spec)

        def done(_: Any, error: Exception | None) -> None:
            if error is not None:
                journal.emit("process", f"{each.name}: reload failed: {error}", level="error")

        self._workers.submit(lambda: run(each.spec["reload"]), done)


def _launch(spec: Mapping[str, Any]) -> int:
    """In a worker: start the process; its ID."""
    for word in spec["argv"][1:]:
        if word.startswith("/"):
            Path(word).parent.mkdir(parents=True, exist_ok=True)
    Path(LOGS).mkdir(parents=True, exist_ok=True)
    done = execute(["sh", "-c", _START, "sh", str(_log(spec)), *spec["argv"]])
    return int(done.stdout)


def _contents(spec: Mapping[str, Any]) -> list[bytes]:
    """What is in the files now."""
    paths = (Path(path) for path in spec["files"])
    return [path.read_bytes() for path in paths if path.is_file()]


def _log(spec: Mapping[str, Any]) -> Path:
    return Path(LOGS, f"{spec['name']}.log")


def _cut(logs: Iterable[Path]) -> None:
    """Move what a large log holds to ``.1``; the daemon goes on to append to it."""
    for log in logs:
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            with log.open("rb+") as file:
                file.seek(-_LOG_LIMIT, os.SEEK_END)
                Path(f"{log}.1").write_bytes(file.read())
                file.truncate(0)
