"""One node container: creating, starting, waiting for and changing it.

A node boots from its spec, which it is created with: no exec is needed on the way up, and
``docker restart`` brings everything back. Later changes are one exec.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from testbed.dataplane.features import Features
from testbed.dataplane.spec import NodeSpec
from testbed.errors import ApplyError, NodeError, SandboxError, TestbedError
from testbed.node import archive, labels
from testbed.node.privileges import for_features
from testbed.node.progress import Progress
from testbed.node.underlay import network_name

if TYPE_CHECKING:
    import docker

__all__ = [
    "SPEC",
    "STATE",
    "Listing",
    "Setting",
    "converge",
    "execute",
    "read_file",
    "read_state",
    "run",
]

Listing = Mapping[str, Any]
"""One container as the engine lists it."""
SPEC = "/etc/testbed/spec.json"
STATE = "/var/lib/testbed/state.json"


@dataclass(frozen=True, slots=True)
class Setting:
    """What only a new container can change: of another setting, it is replaced."""

    image: str
    able: Features
    address: IPv4Address

    @property
    def digest(self) -> str:
        """What the container's ``testbed.config`` label says."""
        text = f"{self.image} {for_features(self.able)} {self.address}"
        return sha256(text.encode()).hexdigest()[:16]


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
    if existing is not None and existing["Labels"].get(labels.CONFIG) != setting.digest:
        progress("remove", "the container has another image, address or privileges")
        client.api.remove_container(existing["Id"], force=True, v=True)
        existing = None
    old_log = 0
    if existing is None:
        _create(client, container, spec, setting, text)
        progress("create", f"container {container} at {setting.address}")
    elif existing["State"] in ("running", "paused"):
        if existing["State"] == "paused":
            client.api.unpause(container)
        _sync(client, container, spec, text, progress)
        return read_state(client, {**existing, "State": "running"})
    else:
        archive.write(client, container, {SPEC: text.encode()})
        old_log = len(client.api.logs(container, stdout=True, stderr=False))
    return _boot(client, container, spec.node, progress, old_log)


def _create(
    client: docker.DockerClient, container: str, spec: NodeSpec, setting: Setting, text: str
) -> None:
    from docker.errors import APIError

    api = client.api
    network = network_name(spec.testbed)
    endpoint = api.create_endpoint_config(ipv4_address=str(setting.address), aliases=[spec.node])
    try:
        api.create_container(
            setting.image,
            [text] if archive.fits(text) else [],
            name=container,
            hostname=spec.node,
            labels={
                labels.NAME: spec.testbed,
                labels.NODE: spec.node,
                labels.CONFIG: setting.digest,
            },
            host_config=host_config(client, setting.able, network),
            networking_config={"EndpointsConfig": {network: endpoint}},
        )
    except APIError as error:
        if error.status_code != 409:
            raise NodeError(f"container {container}: {error.explanation}") from error
        raise NodeError(
            f"a container called {container!r} exists and does not belong to testbed "
            f"{spec.testbed!r}. Remove or rename it, or choose another name (--name)."
        ) from error
    if not archive.fits(text):
        archive.write(client, container, {SPEC: text.encode()})


def host_config(client: docker.DockerClient, able: Features, network: str) -> dict[str, Any]:
    """The engine's HostConfig of a node container."""
    return {**client.api.create_host_config(network_mode=network), **for_features(able)}


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
    with closing(stream):
        for chunk in stream:
            old = min(skip, len(chunk))
            skip -= old
            *lines, pending = (pending + chunk[old:]).split(b"\n")
            for line in lines:
                if line.startswith(b"{"):
                    yield json.loads(line)


def _last_words(client: docker.DockerClient, container: str) -> str:
    return str(client.api.logs(container, tail=5).decode(errors="replace")).strip()


def _sync(
    client: docker.DockerClient,
    container: str,
    spec: NodeSpec,
    text: str,
    progress: Progress,
) -> None:
    word = archive.deliver(client, container, text)
    output = execute(client, container, ["testbed-agent", "sync", word])
    answer = _last_object(output)
    if not answer.get("ok"):
        raise _failure(spec.node, answer.get("error") or {"what": output.decode(errors="replace")})
    changes = answer.get("changes", [])
    progress("ready", f"{len(changes)} changes" if changes else "nothing to change")


def run(client: docker.DockerClient, container: str, argv: list[str]) -> tuple[int, bytes, bytes]:
    """Run ``argv`` in a node; return its exit code, standard output and standard error.

    Raises:
        NodeError: the engine refused, for example because the node does not run.
    """
    from docker.errors import APIError

    try:
        identity = client.api.exec_create(container, argv, stdout=True, stderr=True)["Id"]
        out, err = client.api.exec_start(identity, demux=True)
        code = int(client.api.exec_inspect(identity)["ExitCode"] or 0)
    except APIError as error:
        raise NodeError(f"`{' '.join(argv)}` on {container}: {error.explanation}") from error
    return code, out or b"", err or b""


def execute(client: docker.DockerClient, container: str, argv: list[str]) -> bytes:
    """Run ``argv`` in a node; return its standard output, whatever its exit code says.

    Raises:
        NodeError: it failed and left nothing on standard output but words on standard error.
    """
    code, out, err = run(client, container, argv)
    if code != 0 and not out:
        words = err.decode(errors="replace").strip()
        raise NodeError(f"`{' '.join(argv)}` on {container} failed ({code}): {words}")
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
    """The agent's state file; empty where the node never booted."""
    try:
        state = json.loads(read_file(client, listing, STATE))
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


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
