"""``testbed-agent exec``: a command in a running container; becomes ``crun exec``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from .errors import AgentError
from .layout import CONTAINERS, CRUN
from .target import MissingError, resolve

__all__ = ["arguments", "main"]

USAGE = "usage: testbed-agent exec [--tty] [NAMESPACE/]POD[:CONTAINER] -- COMMAND [ARG]...\n"


def arguments(argv: list[str]) -> tuple[bool, str, list[str]] | None:
    """``(tty, target, command)``, or ``None`` when the arguments are wrong.

    The ``--`` may be left out when the command does not begin with a dash.
    """
    tty = False
    rest = list(argv)
    while rest and rest[0] in ("--tty", "-t"):
        tty = True
        rest.pop(0)
    if len(rest) < 2 or rest[0].startswith("-"):
        return None
    target, command = rest[0], rest[1:]
    if command[0] == "--":
        command = command[1:]
    elif command[0].startswith("-"):
        return None
    return (tty, target, command) if command else None


def main(argv: list[str]) -> int:
    """Become ``crun exec``: its exit status is the command's.

    Returns:
        2 when there is no such pod or container, or the usage is wrong.

    Raises:
        AgentError: the container does not run now (exit status 1).
    """
    parsed = arguments(argv)
    if parsed is None:
        sys.stderr.write(USAGE)
        return 2
    tty, target, command = parsed
    try:
        pod, container = resolve(target)
    except MissingError as error:
        sys.stderr.write(f"testbed-agent: {error}\n")
        return 2
    if container["state"] != "Running":
        why = container["reason"] or pod["error"] or ""
        raise AgentError(f"container {container['name']} is {container['state']}", target, why)
    config = Path(CONTAINERS, container["id"], "config.json").read_text(encoding="utf-8")
    options = ["--tty", "--env=TERM=xterm"] if tty else []
    options.append(f"--cwd={json.loads(config)['process']['cwd']}")
    executable = [*CRUN, "exec", *options, container["id"], *command]
    os.execvp(executable[0], executable)  # noqa: S606 - no shell is wanted
    return None
