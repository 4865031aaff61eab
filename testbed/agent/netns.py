"""Visiting another network namespace for as long as it takes to open a socket there."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from .syscalls import CLONE_NEWNET, OWN_NETNS

__all__ = ["entered"]

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def entered(path: str | None) -> Iterator[None]:
    """Be in the network namespace pinned at ``path`` for the block; ``None`` is the node's own.

    Raises:
        OSError: the namespace is gone.
    """
    if path is None:
        yield
        return
    home = os.open(OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
