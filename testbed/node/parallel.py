"""Doing one thing for many nodes at once, and reporting every failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["each"]

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 16
_GRACE_SECONDS = 3.0
"""How long an interrupt waits for engine calls under way, so that what they make can be found."""


def each(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Run ``work`` for every item in threads; return the results in the items' order.

    Raises:
        ExceptionGroup: all that failed; a single failure is raised as it is.
        KeyboardInterrupt: nothing new was begun after it.
    """
    todo = list(enumerate(items))
    results: dict[int, R] = {}
    errors: dict[int, Exception] = {}
    queue = iter(todo)
    guard = threading.Lock()
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            with guard:
                index, item = next(queue, (-1, None))
            if index < 0:
                return
            try:
                results[index] = work(item)  # type: ignore[arg-type]  # only the sentinel is None
            except Exception as error:  # handed to the caller below
                errors[index] = error

    threads = [threading.Thread(target=run, daemon=True) for _ in todo[:_AT_ONCE]]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        stop.set()
        for thread in threads:
            thread.join(_GRACE_SECONDS / len(threads))
        raise
    failures = [errors[index] for index in sorted(errors)]
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(todo)} failed", failures)
    return [results[index] for index, _ in todo]
