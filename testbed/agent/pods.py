"""The state of the pods of a node: plain data, owned by the event loop, changed by the supervisor.

:meth:`Pod.as_dict` is what ``state.json`` shows of a pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .backoff import Backoff, restarts
from .desired import pod_key
from .sandbox import Sandbox

__all__ = ["Container", "Pod"]


class Container:
    """One application container: ``Waiting``, ``Running`` or ``Terminated``."""

    def __init__(self, spec: Mapping[str, Any], count: int = 0) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.id = ""
        self.pid: int | None = None
        self.state = "Waiting"
        self.reason = "ContainerCreating"
        self.restarts = count
        self.exit_code: int | None = None
        self.started_at = ""
        self.due: float | None = 0.0
        """When to start it (monotonic seconds); ``None``: it runs, or stays as it is."""
        self.backoff = Backoff()

    def started(self, identity: str, pid: int, started_at: str) -> None:
        """It runs now."""
        self.id, self.pid, self.started_at = identity, pid, started_at
        self.state, self.reason, self.due, self.exit_code = "Running", "", None, None

    def ended(self, exit_code: int) -> None:
        """It ended and is not to be started again, until told otherwise."""
        self.pid, self.exit_code, self.due = None, exit_code, None
        self.state = "Terminated"
        self.reason = "Error" if exit_code else "Completed"

    def restart(self, now: float, reason: str) -> float:
        """It is to be started again, perhaps later; return the delay in seconds."""
        delay = self.backoff.next(now)
        self.restarts += 1
        self._wait(now + delay, "CrashLoopBackOff" if delay else reason)
        return delay

    def renew(self, policy: str) -> None:
        """Its sandbox is a new one: start it there, unless it had ended for good."""
        if self.state == "Waiting":
            self.due = 0.0
        elif restarts(policy, self.exit_code or 0):
            self.restarts += 1
            self._wait(0.0, "ContainerCreating")

    def _wait(self, due: float, reason: str) -> None:
        self.pid, self.due, self.state, self.reason = None, due, "Waiting", reason

    def as_dict(self) -> dict[str, Any]:
        """The container as ``state.json`` shows it."""
        names = ("name", "id", "pid", "state", "reason", "restarts", "exit_code", "started_at")
        shown: dict[str, Any] = {name: getattr(self, name) for name in names}
        return {**shown, "image": self.spec["image"]}


class Pod:
    """One pod and how far its life has come."""

    def __init__(self, spec: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> None:
        """Args: the PodSpec, and what a previous boot's ``state.json`` showed under its name."""
        if before is not None and before.get("uid") != spec["uid"]:
            before = None
        self.spec = spec
        self.key = pod_key(spec)
        ran = before["containers"] if before else []
        counts = {c["name"]: c["restarts"] + bool(c["started_at"]) for c in ran}
        self.containers = [Container(c, counts.get(c["name"], 0)) for c in spec["containers"]]
        self.requested_ip = "" if spec["host_network"] else (before or {}).get("ip") or ""
        self.sandbox: Sandbox | None = None
        self.pause_pid: int | None = None
        self.busy = False
        """A worker has a job of this pod; nothing else is begun meanwhile."""
        self.terminating = False
        self.lost = False
        """pause ended: everything of the sandbox must go before a new one is made."""
        self.finished = False
        """Every container ended and none is to be started again."""
        self.error = ""
        self.backoff = Backoff()
        self.attempt_due = 0.0
        self.ip, self.ips = self.requested_ip, [self.requested_ip] if self.requested_ip else []

    @property
    def policy(self) -> str:
        """``Always``, ``OnFailure`` or ``Never``."""
        return str(self.spec["restart_policy"])

    @property
    def doomed(self) -> bool:
        """Whether its processes and its sandbox are to go."""
        return self.terminating or self.lost or self.finished

    @property
    def state(self) -> str:
        """The phase, with kubelet's better-known waiting reason instead of ``Running``."""
        if self.terminating:
            return "Terminating"
        if self.finished:
            failed = any(container.exit_code for container in self.containers)
            return "Failed" if failed else "Succeeded"
        if any(container.reason == "CrashLoopBackOff" for container in self.containers):
            return "CrashLoopBackOff"
        ready = self.pause_pid is not None and not self.lost
        started = all(c.state != "Waiting" or c.reason == "Restarting" for c in self.containers)
        return "Running" if ready and started else "Pending"

    @property
    def settled(self) -> bool:
        """Whether nothing more happens to it soon: it runs, has ended, or waits after a failure."""
        if self.finished:
            return self.sandbox is None
        if self.state == "Pending":
            return bool(self.error) and not self.busy and not self.lost
        return self.state in ("Running", "CrashLoopBackOff")

    def attached(self, sandbox: Sandbox) -> None:
        """It has a sandbox, and an address."""
        self.sandbox, self.error, self.requested_ip = sandbox, "", ""
        self.ip, self.ips = sandbox.ip, list(sandbox.ips)

    def renew(self) -> None:
        """Its sandbox was lost and is gone: what may run again starts in a new one."""
        self.lost = False
        self.ip, self.ips = "", []
        for container in self.containers:
            container.renew(self.policy)
        if all(container.due is None for container in self.containers):
            self.finished = True

    def pids(self) -> list[int]:
        """Application containers first, pause last."""
        pids = [container.pid for container in self.containers] + [self.pause_pid]
        return [pid for pid in pids if pid is not None]

    def as_dict(self) -> dict[str, Any]:
        """The pod as ``state.json`` shows it; ``netns`` is ``None`` with hostNetwork."""
        sandbox = self.sandbox
        return {
            "namespace": self.spec["namespace"],
            "name": self.spec["name"],
            "uid": self.spec["uid"],
            "sandbox_id": sandbox.id if sandbox else None,
            "ip": self.ip or None,
            "ips": list(self.ips),
            "netns": (sandbox.netns or None) if sandbox else None,
            "host_interface": (sandbox.host_interface or None) if sandbox else None,
            "pause_pid": self.pause_pid,
            "state": self.state,
            "error": self.error or None,
            "containers": [container.as_dict() for container in self.containers],
        }
