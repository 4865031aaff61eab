"""Driving the OCI runtime crun. Blocks: call it from a worker thread."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import rootfs
from .command import execute
from .errors import AgentError
from .layout import CRUN, CRUN_STATE

__all__ = ["delete", "last_line", "start"]


def start(identity: str, config: dict[str, Any], log: str) -> int:
    """Create and start a container; return the process ID of its first process.

    The process becomes a child of PID 1, whose reaper learns of its end.

    Args:
        identity: the container's ID.
        config: the OCI runtime configuration; written to the container's directory as it is.
        log: the file that the container's standard output and error are appended to.

    Raises:
        AgentError: crun refused; the reason is crun's own.
    """
    place = Path(rootfs.directory(identity))
    place.mkdir(parents=True, exist_ok=True)
    Path(place, "config.json").write_text(json.dumps(config), encoding="utf-8")
    argv = [*CRUN, f"--log=file:{place}/crun.log", "run", "--detach"]
    argv += [f"--pid-file={place}/pid", f"--bundle={place}", identity]
    with Path(log).open("ab") as output:
        done = execute(argv, output=output)
    if done.status:
        why = last_line(f"{place}/crun.log") or f"crun exit status {done.status}"
        raise AgentError("cannot start container", " ".join(config["process"]["args"]), why)
    return int(Path(place, "pid").read_text(encoding="ascii"))


def delete(identity: str) -> None:
    """Remove a container from crun, killing it if it runs; an unknown one is no error."""
    if Path(CRUN_STATE, identity).exists():
        execute([*CRUN, "delete", "--force", identity])


def last_line(path: str) -> str:
    """The last line of a log, at most 500 characters; empty when there is none."""
    try:
        with Path(path).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 500))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
