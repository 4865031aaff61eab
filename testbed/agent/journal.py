"""The node's log: one JSON object per line on standard output, which is ``docker logs``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["emit", "listeners", "timestamp"]

listeners: list[Callable[[dict[str, Any]], None]] = []
"""Called with every line, in the thread that emits it."""


def timestamp(seconds: float | None = None) -> str:
    """RFC 3339 in UTC with microseconds; ``seconds`` since the epoch, by default now."""
    now = time.time() if seconds is None else seconds
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}Z"


def emit(
    step: str,
    message: str,
    *,
    level: str = "info",
    pod: str | None = None,
    since: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Write one line and return it.

    Args:
        step: ``boot``, ``network``, ``pod``, ``cni``, ``ready``, ``failed``, ``sync``, ``stop``.
        message: one sentence for a reader.
        level: ``info``, ``warn`` or ``error``.
        pod: ``namespace/name``.
        since: :func:`time.monotonic` at the start; the line then has ``ms``.
        more: further keys, as they are.
    """
    line: dict[str, Any] = {"ts": timestamp(), "level": level, "step": step}
    if pod is not None:
        line["pod"] = pod
    line["message"] = message
    if since is not None:
        line["ms"] = round((time.monotonic() - since) * 1000, 1)
    line.update(more)
    with suppress(OSError):  # nobody reads the log any more; the node must live on
        os.write(1, json.dumps(line, separators=(",", ":")).encode() + b"\n")
    for listener in listeners:
        listener(line)
    return line
