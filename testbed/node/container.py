"""One node container: creating, starting, waiting for and changing it.

A node boots from its spec, which it is created with: no exec is needed on the way up, and
``docker restart`` brings everything back. Later changes are one exec.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from testbed.dataplane.spec import NodeSpec
from testbed.errors import ApplyError, NodeError, SandboxError, TestbedError
from testbed.node import archive, streams
from testbed.node.creation import SPEC, Listing, Setting, create, host_config
from testbed.node.progress import Progress

if TYPE_CHECKING:
    import docker

__all__ = [
    "SERVICES",
    "SPEC",
    "STATE",
    "Listing",
    "Setting",
    "converge",
    "execute",
    "host_config",
    "read_file",
    "read_state",
    "run",
    "sync",
]

STATE = "/var/lib/testbed/state.json"
SERVICES = "/var/lib/testbed/services/state.json"
_EXEC_SECONDS = 60.0
_STATE_SECONDS, _STATE_PAUSE = 3.0, 0.05
_BOOT_SECONDS = 600.0
"""Of a node with very many pods; a pod takes about 0.06 s."""


def converge(
    client: docker.DockerClient,
    spec: NodeSpec,
    setting: Setting,
    existing: Listing | None,
    progress: Progress,
) -> dict[str, Any]:
    """Make the node's container run and hold ``spec``; return its agent's state.

    ``existing`` is the engine's listing of the container that is there now. It is kept if it can
    be: synced when it runs, started when it does not, and made anew only for another setting.

    Raises:
        NodeError: the container did not start, or its agent did not get ready.
        ApplyError: a native tool on the node refused what the spec says.
        SandboxError: a CNI plugin refused a pod.
    """
    container = f"{spec.testbed}-{spec.node}"
    text = spec.to_json()
    if existing is not None and not setting.made(existing):
        progress("remove", "it has another image, network, pod network or privileges")
        client.api.remove_container(existing["Id"], force=True, v=True)
        existing = None
    old_log = 0
    if existing is None:
        create(client, container, spec, setting, text)
        addresses = ", ".join(str(address) for _, address in setting.uplinks)
        progress("create", f"container {container} at {addresses}")
    elif existing["State"] in ("running", "paused"):
        if existing["State"] == "paused":
            client.api.unpause(container)
        return sync(client, spec, {**existing, "State": "running"}, progress)
    else:
        archive.write(client, container, {SPEC: text.encode()})
        old_log = len(client.api.logs(container, stdout=True, stderr=False))
    return _boot(client, container, spec.node, progress, old_log)


def _boot(
    client: docker.DockerClient, container: str, node: str, progress: Progress, old_log: int
) -> dict[str, Any]:
    """Start the container and follow its agent; ``old_log`` bytes of its log are older boots'."""
    from docker.errors import APIError

    try:
        client.api.start(container)
    except APIError as error:
        raise NodeError(f"node {node} did not start: {error.explanation}") from error
    progress("start", "container started")
    for event in _events(client, container, old_log):
        if event.get("step") != "cni":  # what plugins print: for the log, not for progress
            pod = f"{event['pod']}: " if event.get("pod") else ""
            progress(str(event.get("step", "")), f"{pod}{event.get('message', '')}")
        if event.get("step") == "ready":
            return dict(event["state"])
        if event.get("step") == "failed":
            raise _failure(node, event.get("error") or {})
    raise NodeError(
        f"node {node} stopped before it was ready. Its last words: "
        f"{_last_words(client, container) or '(none)'}\n`docker logs {container}` has all of them."
    )


def _events(client: docker.DockerClient, container: str, skip: int) -> Iterator[Mapping[str, Any]]:
    """The agent's log of this boot, one JSON object a line, until the container ends."""
    stream = client.api.logs(container, stdout=True, stderr=False, stream=True, follow=True)
    pending = b""
    with streams.released(stream), streams.deadline(_BOOT_SECONDS, stream.close) as late:
        for chunk in stream:
            old = min(skip, len(chunk))
            skip -= old
            *lines, pending = (pending + chunk[old:]).split(b"\n")
            for line in lines:
                if line.startswith(b"{"):
                    yield json.loads(line)
        if late.is_set():
            raise NodeError(f"{container} was not ready within {_BOOT_SECONDS:.0f} s of its start")


def _last_words(client: docker.DockerClient, container: str) -> str:
    return str(client.api.logs(container, tail=5).decode(errors="replace")).strip()


def sync(
    client: docker.DockerClient, spec: NodeSpec, existing: Listing, progress: Progress
) -> dict[str, Any]:
    """Make a node that runs hold ``spec``; return its agent's state.

    Raises:
        ApplyError: a native tool on the node refused what the spec says.
        SandboxError: a CNI plugin refused a pod.
    """
    container = f"{spec.testbed}-{spec.node}"
    word = archive.deliver(client, container, spec.to_json())
    output = execute(client, container, ["testbed-agent", "sync", word], _BOOT_SECONDS)
    answer = _last_object(output)
    if not answer.get("ok"):
        raise _failure(spec.node, answer.get("error") or {"what": output.decode(errors="replace")})
    changes = answer.get("changes", [])
    progress("ready", f"{len(changes)} changes" if changes else "nothing to change")
    return read_state(client, existing)


def run(
    client: docker.DockerClient, container: str, argv: list[str], seconds: float = _EXEC_SECONDS
) -> tuple[int, bytes, bytes]:
    """Run ``argv`` in a node; return its exit code, standard output and standard error.

    Raises:
        NodeError: the engine refused, for example because the node does not run, or the command
            did not end within ``seconds``.
    """
    from docker.errors import APIError

    what = f"`{' '.join(argv[:2])}` on {container}"  # further words may be whole documents
    try:
        identity = client.api.exec_create(container, argv, stdout=True, stderr=True)["Id"]
        stream = client.api.exec_start(identity, socket=True)
        printed: dict[int, list[bytes]] = {streams.STDOUT: [], streams.STDERR: []}
        deadline = streams.deadline(seconds, partial(streams.hang_up, stream))
        with streams.released(stream), deadline as late, suppress(OSError):  # the deadline's
            for which, text in streams.frames(stream):
                printed[which].append(text)
        code = client.api.exec_inspect(identity)["ExitCode"]
    except APIError as error:
        raise NodeError(f"{what}: {error.explanation}") from error
    if late.is_set():
        raise NodeError(f"{what} did not end within {seconds:g} s")
    if code is None:
        raise NodeError(f"{what} was cut off: the node stopped meanwhile")
    out, err = (b"".join(texts) for texts in printed.values())
    return int(code), out, err


def execute(
    client: docker.DockerClient, container: str, argv: list[str], seconds: float = _EXEC_SECONDS
) -> bytes:
    """Run ``argv`` in a node; return its standard output, whatever its exit code says.

    Raises:
        NodeError: it failed and left nothing on standard output but words on standard error.
    """
    code, out, err = run(client, container, argv, seconds)
    if code != 0 and not out:
        words = err.decode(errors="replace").strip()
        what = " ".join(argv[:2])
        raise NodeError(f"`{what}` on {container} failed ({code}): {words}")
    return out


def read_file(client: docker.DockerClient, listing: Listing, path: str) -> bytes:
    """The content of a file of a node; an exec is cheaper than an archive, where the node runs.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if listing["State"] == "running":
        code, out, _ = run(client, listing["Id"], ["cat", path])
        if code == 0:
            return out
    return archive.read(client, listing["Id"], path)


def read_state(client: docker.DockerClient, listing: Listing) -> dict[str, Any]:
    """The agent's state file; empty where the node never booted.

    One that has just been started has none for a moment. Of a node that runs it has the key
    ``services``, too: which Services it keeps, and when it was told of them; empty: of none.
    """
    deadline = time.monotonic() + (_STATE_SECONDS if listing["State"] == "running" else 0)
    while True:
        try:
            return _state(client, listing)
        except (FileNotFoundError, ValueError):
            if time.monotonic() >= deadline:
                return {}
            time.sleep(_STATE_PAUSE)


def _state(client: docker.DockerClient, listing: Listing) -> dict[str, Any]:
    """Both files in one exec, which is what takes time.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not JSON.
    """
    if listing["State"] != "running":
        return dict(json.loads(read_file(client, listing, STATE)))
    _, out, _ = run(client, listing["Id"], ["cat", STATE, SERVICES])
    text = out.decode()
    state, end = json.JSONDecoder().raw_decode(text)
    return {**state, "services": json.loads(text[end:].strip() or "{}")}


def _last_object(output: bytes) -> dict[str, Any]:
    for line in reversed(output.splitlines()):
        if line.startswith(b"{"):
            answer = json.loads(line)
            return answer if isinstance(answer, dict) else {}
    return {}


def _failure(node: str, error: Mapping[str, Any]) -> TestbedError:
    parts = [str(error[key]) for key in ("what", "where", "why") if error.get(key)]
    message = f"node {node}: " + (": ".join(parts) or "failed without a reason")
    if error.get("plugin"):
        return SandboxError(f"{message} (CNI error code {error.get('code', 'unknown')})")
    return ApplyError(message)
