"""Delivering Services to nodes, and reading back what they keep of them.

The format of a document and its answer is that of ``testbed-agent services``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from testbed.errors import ApplyError
from testbed.node import archive
from testbed.node.container import run
from testbed.node.creation import Listing

if TYPE_CHECKING:
    import docker

__all__ = ["deliver", "inputs"]

_KEPT = "/var/lib/testbed/services"
_SECONDS = 120.0
"""A first document of a thousand Services takes three."""


def deliver(
    client: docker.DockerClient, container: str, document: Mapping[str, Any]
) -> dict[str, Any]:
    """Hand a document to a node that runs; the answer has ``changes``, or ``stale``.

    Raises:
        ApplyError: a native tool on the node refused what the document says.
        NodeError: the node does not run, or did not answer in time.
    """
    text = json.dumps(document, separators=(",", ":"), sort_keys=True)
    word = archive.deliver(client, container, text)
    _, out, err = run(client, container, ["testbed-agent", "services", word], _SECONDS)
    try:
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        words = (err or out).decode(errors="replace").strip() or "it said nothing"
        raise ApplyError(f"{container}: `testbed-agent services` failed: {words}") from None
    if not answer["ok"] and "stale" not in answer:
        error = answer["error"]
        reason = ": ".join(error[key] for key in ("what", "where", "why") if error.get(key))
        raise ApplyError(f"{container}: Services could not be applied: {reason}")
    return answer


def inputs(client: docker.DockerClient, listing: Listing) -> tuple[str, dict[str, Any]]:
    """The generation that a node keeps, running or not, and what it was made of; else nothing."""
    try:
        state, *parts = _texts(client, listing)
        generation = json.loads(state)["generation"]
        found = {key: value for part in parts for key, value in json.loads(part).items()}
    except (FileNotFoundError, ValueError):
        return "", {}
    return (generation, dict(sorted(found.items()))) if generation else ("", {})


def _texts(client: docker.DockerClient, listing: Listing) -> list[bytes]:
    """What the node keeps, a line each: its state, then parts of the inputs.

    Raises:
        FileNotFoundError: it keeps nothing.
    """
    if listing["State"] == "running":
        script = f"cd {_KEPT} && cat state.json $(ls inputs/*.json)"
        _, out, _ = run(client, listing["Id"], ["sh", "-c", script], _SECONDS)
        return out.splitlines()
    state = archive.read(client, listing["Id"], f"{_KEPT}/state.json")
    try:
        return [state, *archive.read_all(client, listing["Id"], f"{_KEPT}/inputs")]
    except FileNotFoundError:
        return [state]
