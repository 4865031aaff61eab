"""One node container: creating, starting, waiting for and changing it.

A node boots from its spec, which it is created with: no exec is needed on the way up, and
``docker restart`` brings everything back. Later changes are one exec.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from testbed.dataplane.features import Features
from testbed.dataplane.spec import NodeSpec
from testbed.errors import ApplyError, NodeError, SandboxError, TestbedError
from testbed.node import archive, labels
from testbed.node.privileges import for_features
from testbed.node.progress import Progress

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
_EXEC_SECONDS = 60.0
_BOOT_SECONDS = 600.0
"""Of a node with very many pods; a pod takes about 0.06 s."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What only a new container can change: of another setting, it is replaced."""

    image: str
    able: Features
    address: IPv4Address
    network: str
    """The engine's own name for the node network."""
    attachment: str
    """:attr:`~testbed.dataplane.spec.NodeSpec.attachment`: bridge and pods do not follow it."""

    @property
    def digest(self) -> str:
        """What the container's ``testbed.config`` label says."""
        settings = for_features(self.able)
        text = f"{self.image} {settings} {self.address} {self.network} {self.attachment}"
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
        progress("remove", "it has another image, network, pod network or privileges")
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
            host_config=host_config(client, setting.able, setting.network),
            networking_config={"EndpointsConfig": {setting.network: endpoint}},
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
    with _released(stream), _deadline(_BOOT_SECONDS, stream.close) as late:
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


def _sync(
    client: docker.DockerClient,
    container: str,
    spec: NodeSpec,
    text: str,
    progress: Progress,
) -> None:
    word = archive.deliver(client, container, text)
    output = execute(client, container, ["testbed-agent", "sync", word], _BOOT_SECONDS)
    answer = _last_object(output)
    if not answer.get("ok"):
        raise _failure(spec.node, answer.get("error") or {"what": output.decode(errors="replace")})
    changes = answer.get("changes", [])
    progress("ready", f"{len(changes)} changes" if changes else "nothing to change")


def run(
    client: docker.DockerClient, container: str, argv: list[str], seconds: float = _EXEC_SECONDS
) -> tuple[int, bytes, bytes]:
    """Run ``argv`` in a node; return its exit code, standard output and standard error.

    Raises:
        NodeError: the engine refused, for example because the node does not run, or the command
            did not end within ``seconds``.
    """
    from docker.errors import APIError
    from docker.utils.socket import consume_socket_output, demux_adaptor, frames_iter

    what = f"`{' '.join(argv[:2])}` on {container}"  # further words may be whole documents
    try:
        identity = client.api.exec_create(container, argv, stdout=True, stderr=True)["Id"]
        stream = client.api.exec_start(identity, socket=True)
        with _released(stream), _deadline(seconds, partial(_hang_up, stream)) as late:
            frames = (demux_adaptor(*frame) for frame in frames_iter(stream, False))  # type: ignore[no-untyped-call]
            out, err = consume_socket_output(frames, demux=True)
        code = client.api.exec_inspect(identity)["ExitCode"]
    except APIError as error:
        raise NodeError(f"{what}: {error.explanation}") from error
    if late.is_set():
        raise NodeError(f"{what} did not end within {seconds:.0f} s")
    if code is None:
        raise NodeError(f"{what} was cut off: the node stopped meanwhile")
    return int(code), out or b"", err or b""


@contextmanager
def _released(stream: Any) -> Iterator[None]:
    """Close a stream of the SDK at the block's end, and the response that still holds its socket.

    Closing the stream alone leaves the socket to the garbage collector.
    """
    try:
        yield
    finally:
        for part in (getattr(stream, "_response", None), stream):
            with suppress(OSError, ValueError):  # the one may have closed the other
                if part is not None:
                    part.close()


def _hang_up(stream: Any) -> None:
    with suppress(OSError):
        getattr(stream, "_sock", stream).shutdown(socket.SHUT_RDWR)


@contextmanager
def _deadline(seconds: float, act: Callable[[], object]) -> Iterator[threading.Event]:
    """Call ``act`` if the block has not ended after ``seconds``; the event says that it was."""
    late = threading.Event()

    def expire() -> None:
        late.set()
        act()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


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
