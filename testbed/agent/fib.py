"""Waiting for routes: how long until the main table has a way to some addresses."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["routed", "wait"]

TABLE = Path("/proc/net/route")
_NOWHERE = "*"
"""The device of blackhole, unreachable and prohibit routes."""
_POLL_SECONDS = 0.01


def routed(address: str, table: str) -> bool:
    """Whether the best route to ``address`` is one of its own: not the default, not a blackhole.

    ``table`` is /proc/net/route: addresses as hexadecimal numbers in the machine's byte order.
    """
    (wanted,) = struct.unpack("=I", socket.inet_aton(address))
    best, usable = -1, False
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) < 8:
            continue
        destination, mask = int(words[1], 16), int(words[7], 16)
        length = mask.bit_count()
        if wanted & mask == destination and length > best:
            best, usable = length, words[0] != _NOWHERE
    return best > 0 and usable


def wait(addresses: Iterable[str], seconds: float) -> list[str]:
    """Wait until all are routed, at most ``seconds``; return those that are not."""
    missing = list(addresses)
    deadline = time.monotonic() + seconds
    while missing:
        table = TABLE.read_text()
        missing = [address for address in missing if not routed(address, table)]
        if not missing or time.monotonic() >= deadline:
            break
        time.sleep(_POLL_SECONDS)
    return missing
