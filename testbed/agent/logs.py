"""``testbed-agent logs``: what a container's latest run wrote."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from .podlogs import container_directory
from .target import MissingError, resolve

__all__ = ["arguments", "main", "tail"]

USAGE = "usage: testbed-agent logs [NAMESPACE/]POD[:CONTAINER] [--follow] [--tail N]\n"
POLL = 0.1
"""Seconds between looks at a followed log."""
BLOCK = 65536


def arguments(argv: list[str]) -> tuple[str, bool, int | None] | None:
    """``(target, follow, lines)``, or ``None`` when the arguments are wrong."""
    target, follow, lines = "", False, None
    rest = iter(argv)
    for argument in rest:
        if argument in ("--follow", "-f"):
            follow = True
        elif argument == "--tail" or argument.startswith("--tail="):
            number = argument[7:] if "=" in argument else next(rest, "")
            if not number.isdecimal():
                return None
            lines = int(number)
        elif argument.startswith("-") or target:
            return None
        else:
            target = argument
    return (target, follow, lines) if target else None


def tail(path: Path, lines: int | None) -> int:
    """The offset in bytes at which the last ``lines`` lines of a file begin."""
    if lines is None:
        return 0
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        wanted, block = lines + 1, b""
        while position > 0 and block.count(b"\n") < wanted:
            step = min(BLOCK, position)
            position = file.seek(position - step)
            block = file.read(step) + block
            file.seek(position)
    parts = block.splitlines(keepends=True)
    keep = parts[len(parts) - min(lines, len(parts)) :]
    return position + len(block) - sum(len(part) for part in keep)


def latest(directory: Path) -> Path | None:
    """The log of a container's latest run."""
    runs = [path for path in directory.glob("*.log") if path.stem.isdecimal()]
    return max(runs, key=lambda path: int(path.stem), default=None)


def main(argv: list[str]) -> int:
    """Print; with ``--follow`` go on for ever, also with the container's next run."""
    parsed = arguments(argv)
    if parsed is None:
        sys.stderr.write(USAGE)
        return 2
    target, follow, lines = parsed
    try:
        pod, container = resolve(target)
    except MissingError as error:
        sys.stderr.write(f"testbed-agent: {error}\n")
        return 2
    directory = container_directory(pod, container["name"])
    path = latest(directory)
    offset = tail(path, lines) if path else 0
    while True:
        if path is not None:
            offset = _copy(path, offset)
        newer = latest(directory)
        if newer != path:
            path, offset = newer, 0
            continue
        if not follow:
            return 0
        time.sleep(POLL)


def _copy(path: Path, offset: int) -> int:
    """Print a file from ``offset`` to its end; return the new offset."""
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(BLOCK):
            sys.stdout.buffer.write(data)
            offset += len(data)
    sys.stdout.buffer.flush()
    return offset
