"""Documents that the host hands over: a file that it copied in, or text inside the argument.

Copying a file costs the engine 40 ms, an argument nothing; but an argument ends at 128 KiB.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["received"]

INLINE = "inline:"
DIRECTORY = "/var/lib/testbed"


def received(word: str, directory: str = DIRECTORY) -> str:
    """The path of the document that ``word`` names or holds; the caller removes or moves it."""
    if not word.startswith(INLINE):
        return word
    path = Path(directory) / f"received-{os.getpid()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(word.removeprefix(INLINE), encoding="utf-8")
    return str(path)
