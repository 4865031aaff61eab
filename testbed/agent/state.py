"""``/var/lib/testbed/state.json``: what the node is and has, for everybody to read.

On the node's root file system rather than a tmpfs, so that the host can copy it out of a running
or stopped container; written to a temporary name and renamed, so that a reader never sees a part.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .layout import STATE

__all__ = ["known_pods", "read", "write"]

VERSION = 1


def write(state: Mapping[str, Any], path: str = STATE) -> None:
    """Replace the state atomically; ``version`` is added."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.new")
    temporary.write_text(json.dumps({"version": VERSION, **state}) + "\n", encoding="utf-8")
    os.replace(temporary, target)  # noqa: PTH105 - the same, without another Path


def read(path: str = STATE) -> dict[str, Any] | None:
    """The state, or ``None`` when there is none that can be read."""
    try:
        state = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and state.get("version") == VERSION else None


def known_pods(state: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The pods of a previous boot by ``namespace/name``; entries of another shape are left out."""
    pods: dict[str, dict[str, Any]] = {}
    for pod in (state or {}).get("pods", []):
        try:
            counts = [container["restarts"] + 0 for container in pod["containers"]]
            key = f"{pod['namespace']}/{pod['name']}"
        except (KeyError, TypeError):
            continue
        if len(counts) == len(pod["containers"]):
            pods[key] = pod
    return pods
