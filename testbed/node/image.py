"""The node image: named by the hash of everything that goes into it, built when it is missing."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from testbed.errors import NodeError
from testbed.node import context, debian
from testbed.node.engine import endpoint
from testbed.node.host import Host, tail
from testbed.node.lock import held
from testbed.node.progress import Progress

if TYPE_CHECKING:
    import docker

__all__ = ["REPOSITORY", "Built", "build", "ensure", "find", "follow", "prune", "reference"]

REPOSITORY = "testbed-node"
_LABELS = {debian.LABEL: "node"}
_STEP = re.compile(r"^Step (\d+/\d+) : (.*)", re.DOTALL)
_TAIL_LINES = 15
_LOCK_SECONDS = 1800.0
_SHOWN = 90


@dataclass(frozen=True, slots=True)
class Built:
    """A node image that the engine holds."""

    reference: str
    id: str
    size: int
    """Bytes, as the engine counts them."""
    created: str
    """RFC 3339."""


def reference() -> str:
    """The node image's name: ``testbed-node:`` and 12 digits of its inputs' hash."""
    return f"{REPOSITORY}:{context.digest(context.sources())[:12]}"


def find(client: docker.DockerClient) -> Built | None:
    """The node image, if the engine has it."""
    from docker.errors import ImageNotFound

    try:
        image = client.images.get(reference()).attrs
    except ImageNotFound:
        return None
    return Built(reference(), image["Id"], image["Size"], image.get("Created", ""))


def ensure(client: docker.DockerClient, report: Progress) -> str:
    """Return the node image's reference, having built it if the engine lacks it.

    Raises:
        MissingCapabilityError: there is no Debian to build on and no way to get one.
        NodeError: the build failed.
    """
    if find(client) is None:
        return build(client, report)
    return reference()


def build(
    client: docker.DockerClient, report: Progress, force: bool = False, host: Host | None = None
) -> str:
    """Build the node image and return its reference; ``force`` runs every step again.

    One build at a time per engine: who waited for another's build uses that.

    Raises:
        MissingCapabilityError: there is no Debian to build on and no way to get one.
        NodeError: the build failed; the message has the step and its last lines.
    """
    host = host or Host()
    name = reference()

    def waiting(pid: int) -> None:
        report("image", f"process {pid or 'unknown'} is building it; waiting")

    engine = hashlib.sha256(endpoint(client).encode()).hexdigest()[:12]
    with held(f"image/{engine}", waiting, _LOCK_SECONDS):
        if not force and find(client) is not None:
            return name
        debian_image = debian.ensure(client, host, report)
        report("image", f"building {name} on {debian_image}")
        _build(client, debian_image, debian.proxies(host), report, force)
    return name


def prune(client: docker.DockerClient, report: Progress) -> list[str]:
    """Remove older node images and return them; report those that containers still use.

    Only images that carry our label are touched, never the one that is current or its Debian.
    """
    from docker.errors import APIError

    removed: list[str] = []
    kept = {reference(), debian.BOOTSTRAPPED}
    for image in client.api.images(filters={"label": debian.LABEL}):
        tags = [tag for tag in image.get("RepoTags") or () if tag != "<none>:<none>"]
        if kept.intersection(tags):
            continue
        for name in tags or [image["Id"]]:
            try:
                client.api.remove_image(name)
                removed.append(name)
            except APIError as error:
                if error.status_code != 409:
                    raise NodeError(f"{name} could not be removed: {error.explanation}") from error
                report("image", f"{name} is still used and stays")
    return removed


def _build(
    client: docker.DockerClient,
    debian_image: str,
    proxies: dict[str, str],
    report: Progress,
    force: bool,
) -> None:
    from docker.errors import APIError

    try:
        lines = client.api.build(
            fileobj=context.archive(context.sources()),
            custom_context=True,
            tag=reference(),
            buildargs={"BASE": debian_image, **proxies},
            labels=_LABELS,
            network_mode="host",  # this machine's own name resolution, mirrors and local proxies
            nocache=force,
            rm=True,
            forcerm=True,
            decode=True,
        )
        follow(lines, report)
    except APIError as error:
        raise NodeError(
            f"the engine refused to build the node image: {error.explanation}"
        ) from error


def follow(lines: Iterable[dict[str, Any]], report: Progress) -> None:
    """Report the steps of a build's output; raise its error with the step's last lines."""
    step = "before the first step"
    output: deque[str] = deque(maxlen=_TAIL_LINES)
    for line in lines:
        text = str(line.get("stream", ""))
        if begun := _STEP.match(text):
            output.clear()
            step = f"step {begun[1]}: {' '.join(begun[2].split())}"
            report("image", step if len(step) <= _SHOWN else f"{step[: _SHOWN - 1]}…")
        elif "error" in line:
            raise NodeError(
                f"the node image could not be built, {step}\n{tail(''.join(output))}\n"
                f"  {str(line['error']).strip()}\n"
                "Correct that and run `testbed image build`: steps that worked are not run again."
            )
        else:
            output.append(text)
