"""Keeping the wanted pods running: kubelet's ``syncPod``, level-triggered.

:meth:`Supervisor._step` looks at what a pod is and does the one next thing. Everything slow is a
job of a worker; when it reports, when a process ends or when a time has come, the pod is looked at
again. CNI jobs run strictly one after the other in the order of the spec, which makes addresses
deterministic; the containers of one pod start while the next pod is attached.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import journal
from .backoff import restarts
from .desired import changed_pods, pod_key
from .errors import describe
from .loop import EventLoop
from .pods import Container, Pod
from .processes import Processes
from .runtime import Queue, Runtime
from .stopping import Terminator

__all__ = ["Supervisor"]


class Supervisor:
    """The pods of this node.

    Args:
        loop: times and the thread that owns everything.
        runtime: what makes and removes sandboxes and containers.
        network: runs CNI jobs, one at a time.
        containers: runs the other jobs.
        on_change: called after anything visible changed.
    """

    def __init__(
        self,
        loop: EventLoop,
        runtime: Runtime,
        network: Queue,
        containers: Queue,
        on_change: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._runtime = runtime
        self._network = network
        self._containers = containers
        self._on_change = on_change
        self._desired: dict[str, Mapping[str, Any]] = {}
        self._processes = Processes()
        self._terminator = Terminator(loop)
        self.pods: dict[str, Pod] = {}
        self.before: Mapping[str, Mapping[str, Any]] = {}
        """At boot: the pods that the previous boot's state shows, by ``namespace/name``."""
        self.frozen = False
        """The node stops: ends of processes mean nothing any more."""

    def apply(self, pods: Iterable[Mapping[str, Any]]) -> list[str]:
        """Want exactly ``pods`` (PodSpecs as JSON, in creation order); return what changes.

        Unchanged pods are not touched at all. The first call asks for the addresses ``before``.
        """
        self._desired = {pod_key(pod): pod for pod in pods}
        have = {key: pod.spec for key, pod in self.pods.items() if not pod.terminating}
        remove, create = changed_pods(have, self._desired)
        for key in remove:
            self.pods[key].terminating = True
            self._step(self.pods[key])
        for key in self._desired.keys() & self.pods.keys():
            if not self.pods[key].terminating:
                self.pods[key].spec = self._desired[key]
        self._fill()
        self.before = {}
        return [f"pod {key} removed" for key in remove] + [f"pod {key} created" for key in create]

    @property
    def settled(self) -> bool:
        """Whether exactly the desired pods exist and nothing more happens to them soon."""
        same = self.pods.keys() == self._desired.keys()
        return same and all(pod.settled for pod in self.pods.values())

    def ordered(self) -> list[Pod]:
        """The pods in the order of the spec; those that are going come last."""
        order = {key: index for index, key in enumerate(self._desired)}
        return sorted(self.pods.values(), key=lambda pod: order.get(pod.key, len(order)))

    def process_ended(self, pid: int, exit_code: int) -> None:
        """The reaper's report: any process of the node that was given to PID 1 has ended."""
        self._terminator.gone(pid)
        owner = self._processes.ended(pid, exit_code)
        if owner is not None and not self.frozen:
            self._ended(*owner, exit_code)

    def _ended(self, pod: Pod, container: Container | None, exit_code: int) -> None:
        if container is None:
            self._pause_ended(pod, exit_code)
        else:
            self._container_ended(pod, container, exit_code)
        self._changed(pod)

    def _fill(self) -> None:
        """Create what is missing, in order, once what must go is gone: addresses stay in order."""
        if self.frozen or any(pod.terminating for pod in self.pods.values()):
            return
        for key, spec in self._desired.items():
            if key not in self.pods:
                self.pods[key] = Pod(spec, self.before.get(key))
                self._changed(self.pods[key])

    def _changed(self, pod: Pod) -> None:
        self._step(pod)
        self._on_change()

    def _step(self, pod: Pod) -> None:
        if pod.busy or self.frozen:
            return
        now = time.monotonic()
        if pod.doomed:
            self._dismantle(pod)
        elif pod.sandbox is None:
            if now >= pod.attempt_due:
                self._attach(pod)
        elif pod.pause_pid is None:
            self._start_pause(pod)
        else:
            for container in pod.containers:
                if container.due is not None and now >= container.due:
                    self._start_container(pod, container)
                    return

    def _job(
        self,
        pod: Pod,
        queue: Queue,
        job: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Run a job of a pod, then look at the pod again."""
        pod.busy = True

        def finish(result: Any, error: Any) -> None:
            pod.busy = False
            if error is None:
                done(result)
            else:
                failed(error)
            self._changed(pod)

        queue.submit(job, finish)

    def _attach(self, pod: Pod) -> None:
        spec, requested_ip = pod.spec, pod.requested_ip
        self._job(
            pod,
            self._network,
            lambda: self._runtime.attach(spec, requested_ip),
            pod.attached,
            lambda error: self._sandbox_failed(pod, error),
        )

    def _sandbox_failed(self, pod: Pod, error: Exception) -> None:
        """Try again later, as kubelet does with FailedCreatePodSandBox."""
        pod.error, pod.lost = str(error), pod.sandbox is not None
        message = f"sandbox failed: {error}"
        journal.emit("pod", message, level="error", pod=pod.key, error=describe(error))
        now = time.monotonic()
        self._attempt_later(pod, pod.backoff.next(now) or pod.backoff.next(now))

    def _attempt_later(self, pod: Pod, delay: float) -> None:
        pod.attempt_due = time.monotonic() + delay
        if delay:
            self._loop.call_later(delay, lambda: self._changed(pod))

    def _start_pause(self, pod: Pod) -> None:
        spec, sandbox = pod.spec, pod.sandbox
        assert sandbox is not None

        def started(pid: int) -> None:
            pod.pause_pid = pid

        self._start(
            pod,
            None,
            lambda: self._runtime.start_pause(spec, sandbox),
            started,
            lambda error: self._sandbox_failed(pod, error),
        )

    def _start_container(self, pod: Pod, container: Container) -> None:
        spec, sandbox, pause_pid = pod.spec, pod.sandbox, pod.pause_pid
        assert sandbox is not None
        assert pause_pid is not None
        old, identity, began = container.id, os.urandom(32).hex(), time.monotonic()
        container.id = identity

        def job() -> int:
            self._runtime.remove_containers([old] if old else [])
            return self._runtime.start_container(
                spec, sandbox, pause_pid, container.spec, identity, container.restarts
            )

        def started(pid: int) -> None:
            container.started(identity, pid, journal.timestamp())
            pod.error = ""
            journal.emit("pod", f"container {container.name} runs", pod=pod.key, since=began)

        def failed(error: Exception) -> None:
            pod.error = f"container {container.name}: {error}"
            journal.emit("pod", pod.error, level="error", pod=pod.key, error=describe(error))
            self._again(pod, container, "RunContainerError")

        self._start(pod, container, job, started, failed)

    def _start(
        self,
        pod: Pod,
        container: Container | None,
        job: Callable[[], int],
        started: Callable[[int], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Run a job that starts a process, and know from then on whose it is."""
        self._processes.starting()

        def done(pid: int) -> None:
            started(pid)
            code = self._processes.started(pid, (pod, container))
            if code is not None:
                self._ended(pod, container, code)

        def not_done(error: Exception) -> None:
            self._processes.failed()
            failed(error)

        self._job(pod, self._containers, job, done, not_done)

    def _container_ended(self, pod: Pod, container: Container, exit_code: int) -> None:
        container.ended(exit_code)
        level = "warn" if exit_code and not pod.doomed else "info"
        message = f"container {container.name} ended with {exit_code}"
        journal.emit("pod", message, level=level, pod=pod.key)
        if pod.doomed:
            return
        if restarts(pod.policy, exit_code):
            self._again(pod, container, "Restarting")
        elif all(c.state == "Terminated" and c.due is None for c in pod.containers):
            pod.finished = True

    def _again(self, pod: Pod, container: Container, reason: str) -> None:
        delay = container.restart(time.monotonic(), reason)
        if delay:
            self._loop.call_later(delay, lambda: self._changed(pod))

    def _pause_ended(self, pod: Pod, exit_code: int) -> None:
        pod.pause_pid = None
        if not pod.doomed:
            message = f"pause ended with {exit_code}: the sandbox is made anew"
            journal.emit("pod", message, level="warn", pod=pod.key)
            pod.lost = True
            delay = pod.backoff.next(time.monotonic())
            pod.error = f"pause keeps ending with {exit_code}" if delay else ""
            self._attempt_later(pod, delay)

    def _dismantle(self, pod: Pod) -> None:
        """Stop the containers, then pause; then CNI DEL: containerd's StopPodSandbox."""
        apps = [c.pid for c in pod.containers if c.pid is not None]
        if apps or pod.pause_pid is not None:
            self._terminator.stop(apps or [pod.pause_pid or 0])
            return
        sandbox = pod.sandbox
        if sandbox is None:
            self._dismantled(pod)
            return
        identities = [*(container.id for container in pod.containers if container.id), sandbox.id]

        def clean(_: object) -> None:
            pod.sandbox = None

        def job() -> None:
            self._runtime.remove_containers(identities)
            self._runtime.detach(pod.spec, sandbox)

        self._job(pod, self._network, job, clean, clean)

    def _dismantled(self, pod: Pod) -> None:
        if pod.terminating and self.pods.pop(pod.key, None) is not None:
            self._runtime.forget(pod.spec)
            journal.emit("pod", "removed", pod=pod.key)
            self._fill()
        elif pod.lost and not pod.terminating:
            pod.renew()
            self._step(pod)
