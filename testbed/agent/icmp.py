"""What ICMP errors say, in words: those that sockets get here, and those that are captured."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ERRORS", "FRAGMENTATION_NEEDED", "TIME_EXCEEDED", "UNREACHABLE"]

UNREACHABLE, TIME_EXCEEDED = 3, 11
FRAGMENTATION_NEEDED = (UNREACHABLE, 4)
ERRORS: Mapping[tuple[int, int], str] = {
    (UNREACHABLE, 0): "network unreachable",
    (UNREACHABLE, 1): "host unreachable",
    (UNREACHABLE, 2): "protocol unreachable",
    (UNREACHABLE, 3): "port unreachable",
    FRAGMENTATION_NEEDED: "fragmentation needed",
    (UNREACHABLE, 5): "source route failed",
    (UNREACHABLE, 6): "network unknown",
    (UNREACHABLE, 7): "host unknown",
    (UNREACHABLE, 9): "network administratively prohibited",
    (UNREACHABLE, 10): "host administratively prohibited",
    (UNREACHABLE, 13): "communication administratively prohibited",
    (TIME_EXCEEDED, 0): "time to live exceeded in transit",
    (TIME_EXCEEDED, 1): "fragment reassembly time exceeded",
}
"""Type and code (RFC 792, 1122, 1812) → words, as ping has them."""
