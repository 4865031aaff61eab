"""Native programs: their output is kept for errors, and none of them outlives us."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.errors import NodeError
from testbed.node.host import tail

__all__ = ["bound", "isolated", "run"]

_ISOLATED = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


def bound(argv: Sequence[str]) -> list[str]:
    """``argv`` as a program that the kernel kills when we end, however we end."""
    return ["setpriv", "--pdeathsig", "KILL", *argv]


def isolated(argv: Sequence[str], *, network: bool = False) -> list[str]:
    """``argv`` in mount, PID and network namespaces of its own (``network``: in ours).

    Every process and mount that it makes ends with it.
    """
    return [*(word for word in _ISOLATED if word != "--net" or not network), *argv]


def run(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, folder: Path | None = None
) -> str:
    """Run ``argv`` (in ``folder``) to its end; return what it printed.

    Raises:
        NodeError: it failed; the message has its last lines.
    """
    with subprocess.Popen(
        bound(argv),
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for us: we end it
        text=True,
        errors="replace",
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            process.kill()
            process.communicate()  # until the last process that it started has gone too
            raise
    if process.returncode:
        raise NodeError(f"`{' '.join(argv)}` failed ({process.returncode}):\n{tail(output)}")
    return output
