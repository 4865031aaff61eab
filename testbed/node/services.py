"""Delivering Services to nodes, and reading back what they keep of them.

The format of a document and its answer is that of ``testbed-agent services``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from testbed.errors import ApplyError
from testbed.node import archive, parallel
from testbed.node.container import run
from testbed.node.creation import Listing

if TYPE_CHECKING:
    import docker

__all__ = ["Kept", "deliver", "kept_on", "latest", "newest"]

_KEPT = "/var/lib/testbed/services"
State: TypeAlias = Mapping[str, Any]
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


@dataclass(frozen=True, slots=True)
class Kept:
    """What nodes keep of Services."""

    generation: str = ""
    """A name for exactly this; empty: nodes were never told of any, or not all of it."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """What the rules were made of, by Service; where telling was interrupted, of those before."""
    serial: int = 0
    """When it was told, in nanoseconds since 1970: who did not run then, has an older one."""


def latest(client: docker.DockerClient, listings: Iterable[Listing]) -> Kept:
    """What the node keeps that was told last, running or not."""
    present = list(listings)
    states = parallel.each(partial(_lines, client, path="state.json"), present)
    told = [
        (json.loads(*state), each) for state, each in zip(states, present, strict=True) if state
    ]
    found = newest(told)
    return kept_on(client, found[1], found[0]) if found else Kept()


def newest(told: Iterable[tuple[State, Listing]]) -> tuple[State, Listing] | None:
    """Of nodes with what they say that they keep, the one that was told last, and completely."""
    return max(
        told, key=lambda each: (each[0]["serial"], each[0]["generation"] != ""), default=None
    )


def kept_on(client: docker.DockerClient, node: Listing, state: State) -> Kept:
    """What a node keeps, given its ``state.json``."""
    parts = _lines(client, node, path="inputs")
    inputs = {key: value for part in parts for key, value in json.loads(part).items()}
    return Kept(state["generation"], dict(sorted(inputs.items())), state["serial"])


def _lines(client: docker.DockerClient, listing: Listing, *, path: str) -> list[bytes]:
    """The lines of what a node keeps at ``path``, a file or a directory; none if it keeps none."""
    where = f"{_KEPT}/{path}"
    if listing["State"] == "running":
        script = f"find {where} -name '*.json' -exec cat {{}} +"
        return run(client, listing["Id"], ["sh", "-c", script], _SECONDS)[1].splitlines()
    with suppress(FileNotFoundError):
        return archive.read_all(client, listing["Id"], where)
    return []
