"""Stand-ins for what touches a machine: a runtime without crun, a queue without threads."""

# ruff: noqa: ARG002 - fakes have the signatures of what they stand in for

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from testbed.agent.errors import AgentError
from testbed.agent.loop import Timer
from testbed.agent.sandbox import Sandbox


def pod_spec(name: str, **changes: Any) -> dict[str, Any]:
    """A PodSpec as JSON with one container, ``app``."""
    spec: dict[str, Any] = {
        "namespace": "default",
        "name": name,
        "uid": f"uid-{name}",
        "hostname": name,
        "labels": {},
        "annotations": {},
        "host_network": False,
        "share_process_namespace": False,
        "restart_policy": "Always",
        "port_mappings": [],
        "bandwidth": {},
        "containers": [container_spec("app")],
    }
    return {**spec, **changes}


def container_spec(name: str) -> dict[str, Any]:
    """A ContainerSpec as JSON."""
    return {"name": name, "image": "netexec", "argv": ["netexec"], "env": {}, "working_dir": "/"}


class FakeQueue:
    """Keeps jobs until :meth:`step` runs the next one."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[Callable[[], Any], Callable[[Any, Any], None]]] = deque()

    def submit(self, job: Callable[[], Any], done: Callable[[Any, Any], None]) -> None:
        """Keep a job."""
        self.jobs.append((job, done))

    def step(self) -> bool:
        """Run the oldest job; whether there was one."""
        if not self.jobs:
            return False
        job, done = self.jobs.popleft()
        try:
            result = job()
        except Exception as error:  # what Workers does, too
            done(None, error)
        else:
            done(result, None)
        return True


class FakeLoop:
    """Timers that fire when the test says so."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Keep a timer."""
        self.timers.append((seconds, callback))
        return Timer(seconds, callback)


class FakeRuntime:
    """Sandboxes and containers that exist only here; process IDs count from 1000."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.next_pid = 1000
        self.next_ip = 2
        self.fail: dict[str, str] = {}
        """Method name → reason; the method raises."""
        self.ends_at_once: Callable[[int], None] | None = None

    def _do(self, method: str, text: str) -> None:
        self.log.append(f"{method} {text}")
        if method in self.fail:
            raise AgentError(f"{method} failed", text, self.fail[method])

    def _pid(self) -> int:
        self.next_pid += 1
        if self.ends_at_once is not None:
            self.ends_at_once(self.next_pid)
        return self.next_pid

    def attach(self, pod: Mapping[str, Any], requested_ip: str) -> Sandbox:
        """The next address, or the requested one."""
        self._do("attach", f"{pod['name']} {requested_ip}".strip())
        if not requested_ip:
            requested_ip = f"10.244.1.{self.next_ip}"
            self.next_ip += 1
        identity = f"sandbox-{len(self.log)}"
        return Sandbox(identity, f"/netns/{identity}", requested_ip, (requested_ip,), "veth0")

    def detach(self, pod: Mapping[str, Any], sandbox: Sandbox) -> None:
        """Note it."""
        self._do("detach", f"{pod['name']} {sandbox.ip}")

    def start_pause(self, pod: Mapping[str, Any], sandbox: Sandbox) -> int:
        """A new process ID."""
        self._do("pause", str(pod["name"]))
        return self._pid()

    def start_container(
        self,
        pod: Mapping[str, Any],
        sandbox: Sandbox,
        pause_pid: int,
        container: Mapping[str, Any],
        identity: str,
        restarts: int,
    ) -> int:
        """A new process ID."""
        self._do("start", f"{pod['name']}:{container['name']} {restarts}")
        return self._pid()

    def remove_containers(self, identities: list[str]) -> None:
        """Note how many."""
        if identities:
            self._do("remove", str(len(identities)))

    def forget(self, pod: Mapping[str, Any]) -> None:
        """Note it."""
        self._do("forget", str(pod["name"]))


PLUGIN = """\
#!/bin/sh
# Notes its call and environment; answers with the file <name>.result, or fails with <name>.error.
here=$(dirname "$0")
name=$(basename "$0")
config=$(cat)
echo "$CNI_COMMAND $name $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_PATH $CNI_ARGS" >> $here/calls
printf '%s\\n' "$config" >> $here/configs
if [ -e "$here/$name.$CNI_COMMAND.error" ]; then
  echo "$name complains" >&2
  cat "$here/$name.$CNI_COMMAND.error"
  exit 1
fi
if [ "$CNI_COMMAND" = ADD ]; then cat "$here/$name.result"; fi
"""


class FakePlugins:
    """A directory of CNI plugins that are shell scripts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add(self, name: str, result: str) -> None:
        """Make a plugin that answers ADD with ``result``."""
        path = self.directory / name
        path.write_text(PLUGIN)
        path.chmod(0o755)
        (self.directory / f"{name}.result").write_text(result)

    def fail(self, name: str, command: str, error: str) -> None:
        """Make a plugin's command fail with ``error`` on standard output."""
        (self.directory / f"{name}.{command}.error").write_text(error)

    @property
    def calls(self) -> list[str]:
        """``COMMAND name`` of each call, in order."""
        return [" ".join(line.split()[:2]) for line in self.lines("calls")]

    def lines(self, name: str) -> list[str]:
        """The lines of ``calls`` or ``configs``."""
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []
