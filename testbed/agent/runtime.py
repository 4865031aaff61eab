"""What the supervisor needs done, as it sees it; :class:`agent.sandbox.Sandboxes` does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .sandbox import Sandbox

__all__ = ["Queue", "Runtime"]


class Runtime(Protocol):
    """Makes and removes sandboxes and containers; every method blocks and is called in a worker."""

    def attach(self, pod: Mapping[str, Any], requested_ip: str) -> Sandbox:
        """Pin a network namespace and run CNI ADD."""

    def detach(self, pod: Mapping[str, Any], sandbox: Sandbox) -> None:
        """CNI DEL, and remove the namespace."""

    def start_pause(self, pod: Mapping[str, Any], sandbox: Sandbox) -> int:
        """Start pause; its process ID."""

    def start_container(
        self,
        pod: Mapping[str, Any],
        sandbox: Sandbox,
        pause_pid: int,
        container: Mapping[str, Any],
        identity: str,
        restarts: int,
    ) -> int:
        """Start an application container; its process ID."""

    def forget(self, pod: Mapping[str, Any]) -> None:
        """Remove what is kept of a pod after its end; quick, and called in the loop."""

    def remove_containers(self, identities: list[str]) -> None:
        """Forget containers that have ended."""


class Queue(Protocol):
    """Where jobs go: :class:`agent.loop.Workers`, or a fake."""

    def submit(self, job: Callable[[], Any], done: Callable[[Any, Any], None]) -> None:
        """Run ``job()`` elsewhere, then ``done(result, error)`` in the loop."""
