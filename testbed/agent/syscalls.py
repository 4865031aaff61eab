"""The few system calls that a node needs and Python 3.11 does not offer: mounts and namespaces.

Calling the C library saves a process (2-3 ms) per mount and network namespace. Namespaces belong
to threads in Linux: a worker thread may visit another network namespace without the others
noticing, as long as it comes back.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import AgentError

__all__ = ["bind", "mount", "new_netns", "unmount"]

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND = 1, 2, 4, 8, 4096
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
CLONE_NEWNET = 0x40000000
OWN_NETNS = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str, where: str, hint: str = "") -> None:
    if result < 0:
        number = ctypes.get_errno()
        why = os.strerror(number) + (f"; {hint}" if hint else "")
        raise AgentError(what, where, why)


def mount(
    source: str, target: str, kind: str, flags: int = 0, options: str = "", hint: str = ""
) -> None:
    """Mount a file system.

    Raises:
        AgentError: the kernel refused; ``hint`` is added to its reason.
    """
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    _check(result, f"mount {kind or 'bind'} failed", target, hint)


def bind(source: str, target: str) -> None:
    """Bind-mount ``source`` on ``target``."""
    mount(source, target, "", MS_BIND)


def unmount(target: str) -> None:
    """Detach what is mounted on ``target``; nothing being there is no error."""
    _libc.umount2(target.encode(), MNT_DETACH | UMOUNT_NOFOLLOW)


@contextmanager
def new_netns(path: str) -> Iterator[None]:
    """Make a network namespace, pin it as a file at ``path`` and stay in it for the block.

    As containerd's ``pkg/netns`` does: an empty file, a thread of its own that unshares, and the
    thread's namespace bind-mounted on the file. Processes started in the block are inside, too.

    Raises:
        AgentError: the kernel refused.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    home = os.open(OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(CLONE_NEWNET), "cannot make a network namespace", path)
        try:
            bind(OWN_NETNS, path)
            yield
        finally:
            _check(_libc.setns(home, CLONE_NEWNET), "cannot leave a network namespace", path)
    finally:
        os.close(home)
