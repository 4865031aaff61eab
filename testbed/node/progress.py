"""How long work tells what it is doing: a step's name and one line about it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[str, str], None]
"""Called with a step (``engine``, ``image``, ``kernel``, ``features``) and a message."""


def silent(step: str, message: str) -> None:
    """Report nothing."""
    del step, message
