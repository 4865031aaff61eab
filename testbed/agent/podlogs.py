"""Logs of containers, where kubelet has them.

``/var/log/pods/<namespace>_<pod>_<uid>/<container>/<n>.log``, and ``n`` counts restarts. The files
are plain text, written by the container's processes themselves: CRI's format (a time and a stream
before each line) would need somebody to read every line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["container_directory", "open_run", "pod_directory"]

PODS = "/var/log/pods"


def pod_directory(pod: Mapping[str, Any]) -> Path:
    """Where the logs of a pod are; ``pod`` is a PodSpec or an entry of the node's state."""
    return Path(PODS, f"{pod['namespace']}_{pod['name']}_{pod['uid']}")


def container_directory(pod: Mapping[str, Any], container: str) -> Path:
    """Where the logs of one container are."""
    return pod_directory(pod) / container


def open_run(pod: Mapping[str, Any], container: str, restarts: int) -> str:
    """The path for the run number ``restarts``; the run before is kept, older ones go."""
    place = container_directory(pod, container)
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{restarts - 2}.log").unlink(missing_ok=True)
    return str(place / f"{restarts}.log")
