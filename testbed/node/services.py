"""Delivering Services to nodes, and reading back what they keep of them.

The format of a document and its answer is that of ``testbed-agent services``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from testbed.errors import ApplyError
from testbed.node import archive
from testbed.node.container import read_file, run
from testbed.node.creation import Listing

if TYPE_CHECKING:
    import docker

__all__ = ["deliver", "inputs"]

_INPUTS = "/var/lib/testbed/services/inputs.json"
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
        kept = json.loads(read_file(client, listing, _INPUTS))
    except (FileNotFoundError, ValueError):
        return "", {}
    return kept["generation"], kept["inputs"]
