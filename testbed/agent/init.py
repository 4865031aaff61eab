"""PID 1 of a node: boot from the spec, keep the pods running, answer the control socket, stop fast.

::

    boot     clear what a previous boot left (leftovers)
    network  make the kernel hold what the spec says (reconcile)
    pod      attach and start every pod, in order (supervisor)
    ready    all of them run  |  failed  the first reason why not

It never exits because of a failure: the node stays for inspection and waits for ``sync``.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import control, desired, journal, kept_services, leftovers, podlogs, reaper, state
from .cni import CniRuntime
from .crun import last_line
from .daemons import Daemons
from .desired import Desired
from .errors import AgentError, describe
from .layout import APPLIED, LAST_STATE, SOCKET, SPEC, STATE
from .loop import EventLoop, Workers
from .pods import Pod
from .sandbox import Sandboxes
from .stopping import GRACE, Terminator, kill
from .supervisor import Supervisor
from .sync import Syncs

__all__ = ["Init", "main", "reconcile"]


def reconcile(
    spec: dict[str, Any], previous: dict[str, Any] | None, *, booting: bool = False
) -> list[str]:
    """Apply the network part of a spec (:mod:`agent.reconcile`, imported when first needed).

    The spec is kept as the applied one: the node's may be replaced while it is stopped, and the
    next boot must still know which files are its own to remove.
    """
    from .reconcile import reconcile as apply

    changes = apply(spec, previous, booting=booting)
    desired.keep(spec, APPLIED)
    return changes


def begin(spec: dict[str, Any], previous: dict[str, Any] | None) -> None:
    """The first steps of :func:`reconcile` alone."""
    from .reconcile import begin as apply

    apply(spec, previous)


class Init:
    """The node: everything that PID 1 knows, and what it does at its turns."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.network = Workers(self.loop, 1)
        self.sandboxes = Sandboxes(CniRuntime())
        containers = Workers(self.loop, 2)
        self.supervisor = Supervisor(
            self.loop, self.sandboxes, self.network, containers, self.changed
        )
        self.daemons = Daemons(self.loop, containers, self.changed)
        self.syncs = Syncs(
            self.network, self.supervisor, self.installed, self.synced, reconcile, SPEC
        )
        self.boot_id = os.urandom(16).hex()
        self.began = time.monotonic()
        self.phase = "booting"
        self.error: dict[str, str] | None = None
        self._network_error: dict[str, str] | None = None
        self.desired: Desired | None = None
        self.supervisor.before = state.known_pods(state.read(LAST_STATE))
        self._dirty = True

    def run(self) -> None:
        """Boot and serve until a signal says stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.on_signal(number, self.stop)
        self.loop.on_signal(signal.SIGCHLD, self.reap)
        self.loop.after_each(self.flush)
        journal.listeners.append(self.hear)
        journal.emit("boot", "the node boots", boot_id=self.boot_id)
        control.Server(self.loop, self.command).listen()
        self.network.submit(self._prepare, self._prepared)
        self.loop.run()

    def hear(self, line: dict[str, Any]) -> None:
        """Pass a line of the log on to a waiting sync, in the loop's thread and in order."""
        if threading.current_thread() is threading.main_thread():
            self.syncs.progress(line)
        else:
            self.loop.post(lambda: self.syncs.progress(line))

    def _prepare(self) -> tuple[Desired, Exception | None]:
        """In the network worker: everything before the first pod."""
        began = time.monotonic()
        deleted = leftovers.clear(self.sandboxes)
        wanted = desired.load(SPEC)
        journal.emit("boot", f"clean ({deleted} old CNI attachments deleted)", since=began)
        began = time.monotonic()
        try:
            previous = desired.kept(APPLIED)
            if self._processes(wanted):  # BIRD waits a second before it dials: let it begin early
                begin(wanted.spec, previous)
                self.loop.post(lambda: self._begin_processes(wanted))
            changes = reconcile(wanted.spec, previous, booting=True)
        except Exception as error:
            return wanted, error
        journal.emit("network", f"network holds the spec ({len(changes)} changes)", since=began)
        return wanted, None

    def _begin_processes(self, wanted: Desired) -> None:
        self.daemons.apply(self._processes(wanted))

    def _processes(self, wanted: Desired) -> list[dict[str, Any]]:
        """The daemons of the spec, and those that belong to Services."""
        return [*wanted.spec["processes"], *kept_services.processes()]

    def _prepared(self, result: tuple[Desired, Exception | None] | None, error: Any) -> None:
        if result is not None:
            self.desired, error = result
            if error is None:
                self.supervisor.apply(self.desired.pods)
        if error is not None:
            self._network_error = describe(error)
            self.fail(self._network_error)
        self.syncs.open(self.desired.spec if self.desired else None)
        self.changed()

    def installed(self, wanted: Desired, error: dict[str, str] | None) -> list[str]:
        """A sync put a new spec in place; ``error``: why the network does not hold it.

        Returns what was done to the node's own processes.
        """
        self.desired, self._network_error = wanted, error
        self._dirty = True
        return [] if error else self.daemons.apply(self._processes(wanted))

    def synced(self) -> None:
        """A sync has come to its end; whoever asked is told next."""
        self.changed()
        self.flush()

    def changed(self) -> None:
        """Something visible changed: see whether the node is ready now, or no longer."""
        self._dirty = True
        if self.phase == "stopping":
            return
        self.syncs.look()
        settled = self.supervisor.settled and self.daemons.settled
        if self.desired is None or self.syncs.busy or not settled:
            return
        pods = self.supervisor.ordered()
        self.error = self._network_error or first_failure(pods) or self.daemons.failure
        if self.error is None:
            self._enter("ready")
        elif self.phase == "booting":
            self.fail(self.error)
        elif self.phase == "ready":
            self._enter("degraded")

    def _enter(self, phase: str) -> None:
        if phase == self.phase:
            return
        self.phase = phase
        count = len(self.supervisor.pods)
        if phase == "ready":
            message = f"ready: {count} pod{'s' * (count != 1)} running"
            self.flush()
            journal.emit(
                "ready", message, since=self.began, boot_id=self.boot_id, state=self.as_dict()
            )

    def fail(self, error: dict[str, str]) -> None:
        """The boot failed; the node stays."""
        self.phase, self.error, self._dirty = "failed", error, True
        self.flush()
        message = ": ".join(part for part in (error["where"], error["what"], error["why"]) if part)
        journal.emit(
            "failed",
            message,
            level="error",
            since=self.began,
            error=error,
            boot_id=self.boot_id,
        )

    def flush(self) -> None:
        """Write the state if it changed during this turn of the loop."""
        if self._dirty:
            self._dirty = False
            state.write(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The node as ``state.json`` shows it."""
        pods = [pod.as_dict() for pod in self.supervisor.ordered()]
        if self.supervisor.before:  # keep the addresses until they are asked for
            pods = [
                {**pod, "state": "Pending", "netns": ""} for pod in self.supervisor.before.values()
            ]
        return {
            "node": self.desired.spec["node"] if self.desired else "",
            "phase": self.phase,
            "spec_sha256": self.desired.sha256 if self.desired else "",
            "boot_id": self.boot_id,
            "error": self.error,
            "pods": pods,
            "processes": self.daemons.as_list(),
        }

    def command(self, request: dict[str, Any], reply: Callable[[dict[str, Any]], None]) -> None:
        """Answer one request of the control socket; the last reply has ``ok``."""
        command = request.get("command")
        if command == "status":
            reply({"ok": True, "state": {"version": state.VERSION, **self.as_dict()}})
        elif command == "check":
            pods = [(pod.spec, pod.sandbox) for pod in self.supervisor.ordered() if pod.sandbox]
            self.network.submit(
                lambda: [self.sandboxes.check(*pod) for pod in pods],
                lambda found, error: reply(_checked(found, error)),
            )
        elif command == "process":
            action, name = str(request.get("action")), str(request.get("name"))
            self.daemons.command(action, name, reply)
        elif command == "services":
            if self.desired is None:
                raise AgentError("the node has not booted", "control socket", "ask again later")
            reply({"ok": True, "changes": self.daemons.apply(self._processes(self.desired))})
        elif command == "sync" and isinstance(request.get("path"), str):
            self.syncs.request(request["path"], reply)
        else:
            raise AgentError("unknown request", "control socket", f"command {command!r}")

    def reap(self) -> None:
        """Take every process that ended; tell the supervisor."""
        for pid, code in reaper.reap():
            if not self.daemons.process_ended(pid):
                self.supervisor.process_ended(pid, code)
        if self.phase == "stopping" and not self._alive():
            self.exit()

    def _alive(self) -> list[int]:
        pids = [pid for pod in self.supervisor.pods.values() for pid in pod.pids()]
        pids += self.daemons.pids()
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def stop(self) -> None:
        """SIGTERM: ask all containers to end, wait at most a second, exit.

        The network is not taken down: everything in it goes with this process, and the next boot
        gives the leases back.
        """
        if self.phase == "stopping":
            return
        journal.emit("stop", "the node stops")
        self.phase, self._dirty = "stopping", True
        self.supervisor.frozen = self.daemons.frozen = True
        self.flush()
        for pid in self._alive():
            Terminator.ask(pid)
        self.loop.call_later(GRACE, self.exit)
        self.reap()

    def exit(self) -> None:
        """End; the kernel kills whatever is left in the node's PID namespace."""
        for pid in self._alive():
            kill(pid, signal.SIGKILL)
        os._exit(0)


def _checked(found: list[dict[str, Any]] | None, error: Exception | None) -> dict[str, Any]:
    if found is None or error is not None:
        return {"ok": False, "error": describe(error or AssertionError())}
    return {"ok": True, "pods": found}


def first_failure(pods: list[Pod]) -> dict[str, str] | None:
    """Why a settled node is not ready: the first pod that does not run."""
    for pod in pods:
        if pod.state not in ("Running", "Succeeded"):
            return {"what": f"pod is {pod.state}", "where": pod.key, "why": _reason(pod)}
    return None


def _reason(pod: Pod) -> str:
    if pod.error:
        return pod.error
    for container in pod.containers:
        if container.exit_code:
            directory = podlogs.container_directory(pod.spec, container.name)
            words = last_line(str(directory / f"{max(container.restarts - 1, 0)}.log"))
            why = f"container {container.name} ended with exit status {container.exit_code}"
            return f"{why}: {words}" if words else why
    return "no container of it runs"


def main() -> int:
    """Run as PID 1; returns only by exiting."""
    os.umask(0o022)
    for place in (STATE, SOCKET):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
    Init().run()
    return 0
