"""Echo requests by the real ``ping``, whose frames are found by a pattern in their payload."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["MARK", "NoReplyError", "Ping", "argv", "read"]

MARK = bytes.fromhex("7e57bed0")
"""What fills the payload of every ping: ``packets.containing(MARK)`` has no others."""
_COUNTS = re.compile(r"(\d+) packets transmitted, (\d+) (?:packets )?received")
_INTERVAL = "0.05"


class NoReplyError(AssertionError):
    """No echo request was answered; the message has ping's own words."""


@dataclass(frozen=True, slots=True)
class Ping:
    """What became of some echo requests."""

    sent: int
    received: int
    text: str
    """What ``ping`` printed."""


def argv(
    address: object, count: int, size: int | None, df: bool | None, timeout: float
) -> list[str]:
    """The command; ``df`` is :meth:`testbed.api.place.Place.ping`'s."""
    words = ["ping", "-n", "-c", str(count), "-i", _INTERVAL, "-W", f"{timeout:g}"]
    words += ["-p", MARK.hex()]
    words += [] if size is None else ["-s", str(size)]
    words += [] if df is None else ["-M", "do" if df else "dont"]
    return [*words, str(address)]


def read(text: str) -> Ping:
    """Understand what ``ping`` printed; where it sent nothing, both counts are 0."""
    found = _COUNTS.search(text)
    sent, received = (int(found[1]), int(found[2])) if found else (0, 0)
    return Ping(sent, received, text.strip())
