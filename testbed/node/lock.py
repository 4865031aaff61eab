"""One command at a time changes a testbed: a lock that cannot be left behind.

The lock is an abstract Unix socket: the kernel frees it when its holder ends, however it ends, and
there is no file to remove.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from testbed.errors import NodeError

__all__ = ["held"]

_POLL_SECONDS = 0.05


@contextmanager
def held(
    name: str, waiting: Callable[[int], object] = int, seconds: float = 300.0
) -> Iterator[None]:
    """Hold the lock of testbed ``name``; ``waiting`` is told the holder's PID (0: unknown) once.

    Raises:
        NodeError: another process held it for ``seconds``.
    """
    address = f"\0testbed/{name}"
    deadline = time.monotonic() + seconds
    told = False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        while True:
            try:
                lock.bind(address)
                break
            except OSError:
                pid = _holder(address)
                if time.monotonic() > deadline:
                    raise NodeError(
                        f"testbed {name!r} is still being changed by process {pid or 'unknown'} "
                        f"after {seconds:.0f} s. Wait for it or end it, then try again."
                    ) from None
                if not told:
                    waiting(pid)
                    told = True
                time.sleep(_POLL_SECONDS)
        lock.listen()
        yield


def _holder(address: str) -> int:
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(_POLL_SECONDS)
        peer.connect(address)
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])
    return 0
