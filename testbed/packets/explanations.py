"""Why the last assertion on packets came out as it did, for whoever reports a failed test.

``assert`` itself can only show one line of a value. A selection or verdict that is asked for its
truth leaves its table here, and the pytest plugin adds it to the report of a test that fails.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["clear", "last", "note"]

_last: list[Callable[[], str]] = []


def note(explanation: Callable[[], str]) -> None:
    """Keep what explains the truth value that is being given out; it is called only when read."""
    _last[:] = [explanation]


def last() -> str:
    """The explanation of the last truth value; empty: none was asked for."""
    return _last[0]() if _last else ""


def clear() -> None:
    """Forget it: a new test begins."""
    _last.clear()
