"""Nodes, routers, clients and pods as targets of ``exec``, ``shell`` and ``logs``."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed import existing
from testbed.errors import MissingCapabilityError, NodeError, UsageError
from testbed.node import engine, inventory, streams
from testbed.topology.model import Cluster
from testbed.topology.places import there_is

if TYPE_CHECKING:
    import docker

__all__ = ["Target", "become", "logs", "resolve"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to run something: a container of the engine, and the pod inside it, if any."""

    container: str
    pod: str = ""
    """``namespace/pod[:container]``; empty: the node or router itself."""

    def argv(self, command: list[str], *, tty: bool = False) -> list[str]:
        """What to execute in the node's container."""
        if not self.pod:
            return command
        flags = ["--tty"] if tty else []
        return ["testbed-agent", "exec", *flags, self.pod, "--", *command]


def resolve(cluster: Cluster, text: str) -> Target:
    """Find ``NODE``, ``ROUTER``, ``CLIENT`` or ``[NAMESPACE/]POD[:CONTAINER]``; pods come last.

    Raises:
        UsageError: there is no such node, router, client, pod or container; the message lists them.
    """
    if text in cluster.machines:
        return Target(f"{cluster.name}-{text}")
    pod_text, _, container = text.partition(":")
    key = pod_text if "/" in pod_text else f"default/{pod_text}"
    for pod in cluster.pods:
        if pod.key == key:
            known = [each.name for each in pod.containers]
            if container and container not in known:
                raise UsageError(
                    f"pod {key} has no container {container!r}; it has {', '.join(known)}"
                )
            suffix = f":{container}" if container else ""
            return Target(f"{cluster.name}-{pod.node}", f"{key}{suffix}")
    raise UsageError(
        f"testbed {cluster.name!r} has no node, router, client or pod {text!r}.\n"
        f"{there_is(cluster)}"
    )


def become(name: str | None, text: str, command: list[str], *, stdin: bool, tty: bool) -> int:
    """Replace this process by ``docker exec`` of ``command`` in the target.

    Raises:
        MissingCapabilityError: there is no docker command on this machine.
        NodeError: its node does not run.
        UsageError: the target does not exist.
    """
    client = engine.connect()
    found = _find(client, name, text, stopped=False)
    docker_command = shutil.which("docker")
    if docker_command is None:
        raise MissingCapabilityError(
            "exec and shell need the docker command on this machine, for terminals and signals. "
            "Install Debian's docker.io (or docker-cli)."
        )
    flags = ["-i"] * stdin + ["-t"] * tty
    argv = [docker_command, "exec", *flags, found.container, *found.argv(command, tty=tty)]
    os.execv(docker_command, argv)  # noqa: S606  # no shell: every word is one argument


def logs(name: str | None, text: str, follow: bool, tail: int | None) -> Iterator[str]:
    """The log of a target, in chunks of text; with ``follow`` it ends only with the node.

    Raises:
        UsageError: the target does not exist.
    """
    client = engine.connect()
    found = _find(client, name, text, stopped=True)
    if found.pod:
        flags = ["--follow"] * follow + ([] if tail is None else ["--tail", str(tail)])
        argv = ["testbed-agent", "logs", found.pod, *flags]
        yield from _pod_log(client, found.container, argv)
        return
    stream = client.api.logs(
        found.container, stream=True, follow=follow, tail="all" if tail is None else tail
    )
    pending = b""
    for chunk in stream:
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            yield _readable(line.decode(errors="replace"))


def _pod_log(client: docker.DockerClient, container: str, argv: list[str]) -> Iterator[str]:
    identity = client.api.exec_create(container, argv)["Id"]
    stream = client.api.exec_start(identity, socket=True)
    complaint = ""
    with streams.released(stream):
        for which, text in streams.frames(stream):
            if which == streams.STDOUT:
                yield text.decode(errors="replace")
            else:
                complaint += text.decode(errors="replace")
    if client.api.exec_inspect(identity)["ExitCode"]:
        raise NodeError(complaint.strip() or f"the log of {container} ended early")


def _readable(line: str) -> str:
    """One line of an agent's log for people; anything else as it is."""
    try:
        event = json.loads(line)
        words = [event["ts"], event["level"], event["step"], event.get("pod"), event["message"]]
    except (ValueError, TypeError, KeyError):
        return line + "\n"
    return " ".join(str(word) for word in words if word) + "\n"


def _find(client: docker.DockerClient, name: str | None, text: str, *, stopped: bool) -> Target:
    """The target; with ``stopped``, a node need not run."""
    chosen = existing.choose(client, name)
    listings = inventory.containers(client, chosen)
    found = resolve(existing.cluster_of(client, chosen, listings), text)
    states = {each["Names"][0].lstrip("/"): each["State"] for each in listings.values()}
    state = states.get(found.container, "missing")
    if state == "running" or (stopped and not found.pod and state != "missing"):
        return found
    raise NodeError(
        f"container {found.container} of {text!r} does not run (it is {state}). "
        "`testbed up` with the same topology and --name brings it back."
    )
