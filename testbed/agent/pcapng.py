"""pcapng (draft-ietf-opsawg-pcapng): the format in which captures travel and are stored.

What the agent writes and what the host reads, merges and writes again, so both import this module.
Only what a capture of named interfaces needs: section header, interface description (name, filter,
resolution), enhanced packet (with its direction), interface statistics. Other blocks and options
are skipped. Blocks are written little-endian with nanoseconds, and read in any order and
resolution.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = [
    "Interface",
    "Reader",
    "Record",
    "Statistics",
    "interface",
    "packet",
    "section",
    "statistics",
]

_SECTION, _INTERFACE, _PACKET, _STATISTICS = 0x0A0D0D0A, 1, 6, 5
_MAGIC = 0x1A2B3C4D
_APPLICATION = 4
_NAME, _RESOLUTION, _FILTER = 2, 9, 11
_FLAGS = 2
_RECEIVED, _DROPPED = 4, 5
_NANOSECONDS = 9
_DIRECTIONS = {"in": 1, "out": 2}
_WORDS = {1: "in", 2: "out"}
_HEADER = struct.Struct("<II")
_ENHANCED = struct.Struct("<IIIIIII")
_LARGEST = 1 << 24
"""A block beyond this is not one that anybody writes."""


class Interface(NamedTuple):
    """An interface description."""

    name: str
    link_type: int
    resolution: int = 1_000_000
    """Ticks of its timestamps in a second."""


class Record(NamedTuple):
    """A packet."""

    index: int  # type: ignore[assignment] # nobody needs tuple.index() here
    """Of its interface, in the order in which they were described, in all sections of a file."""
    time_ns: int
    """Since the epoch."""
    data: bytes
    """As far as it was captured."""
    length: int
    """Bytes on the wire."""
    direction: str = ""
    """``in``, ``out`` or unknown."""


class Statistics(NamedTuple):
    """What an interface counted until a time."""

    index: int  # type: ignore[assignment]
    time_ns: int
    received: int | None = None
    dropped: int | None = None


def section(application: str) -> bytes:
    """A section header block: the beginning of a file."""
    body = struct.pack("<IHHq", _MAGIC, 1, 0, -1)
    return _block(_SECTION, body + _options((_APPLICATION, application.encode())))


def interface(name: str, link_type: int, *, filter: str = "", snaplen: int = 0) -> bytes:  # noqa: A002 - pcapng's own word
    """An interface description block; a ``snaplen`` of 0 is none."""
    options = [(_NAME, name.encode()), (_RESOLUTION, bytes([_NANOSECONDS]))]
    if filter:
        options.append((_FILTER, b"\0" + filter.encode()))
    return _block(_INTERFACE, struct.pack("<HHI", link_type, 0, snaplen) + _options(*options))


def packet(index: int, time_ns: int, data: bytes, length: int, direction: str = "") -> bytes:
    """An enhanced packet block of interface number ``index``."""
    captured = len(data)
    padding = -captured % 4
    options = b""
    if direction:
        options = struct.pack("<HHII", _FLAGS, 4, _DIRECTIONS[direction], 0)
    total = 32 + captured + padding + len(options)
    head = _ENHANCED.pack(
        _PACKET, total, index, time_ns >> 32, time_ns & 0xFFFFFFFF, captured, length
    )
    return b"".join((head, data, bytes(padding), options, total.to_bytes(4, "little")))


def statistics(
    index: int, time_ns: int, *, received: int | None = None, dropped: int | None = None
) -> bytes:
    """An interface statistics block; without counts it only says that the time has come."""
    body = struct.pack("<III", index, time_ns >> 32, time_ns & 0xFFFFFFFF)
    counts = ((_RECEIVED, received), (_DROPPED, dropped))
    given = [(code, struct.pack("<Q", count)) for code, count in counts if count is not None]
    return _block(_STATISTICS, body + _options(*given))


class Reader:
    """A pcapng stream, fed as it comes."""

    def __init__(self) -> None:
        self.interfaces: list[Interface] = []
        """Those described so far."""
        self._first = 0
        """Number of this section's first one; sections count their own from 0."""
        self._pending = b""
        self._ordered("<")

    def feed(self, data: bytes) -> list[Interface | Record | Statistics]:
        """The blocks that are complete with ``data``; a block that is cut waits for its rest.

        Raises:
            ValueError: this is not pcapng.
        """
        pending = self._pending + data if self._pending else data
        found: list[Interface | Record | Statistics] = []
        at, end = 0, len(pending)
        while end - at >= 12:
            kind, total = self._two.unpack_from(pending, at)
            if kind == _SECTION:
                self._begin(pending[at + 8 : at + 12])
                kind, total = self._two.unpack_from(pending, at)
            if total < 12 or total % 4 or total > _LARGEST:
                raise ValueError(f"not pcapng: a block of {total} bytes")
            if end - at < total:
                break
            block = self._read(kind, pending[at + 8 : at + total - 4])
            if block is not None:
                found.append(block)
            at += total
        self._pending = pending[at:]
        return found

    def _begin(self, magic: bytes) -> None:
        """A section header: byte order and interfaces are its own."""
        for order in "<>":
            if struct.unpack(f"{order}I", magic)[0] == _MAGIC:
                self._ordered(order)
                self._first = len(self.interfaces)
                return
        raise ValueError("not pcapng: unknown byte order")

    def _ordered(self, order: str) -> None:
        self._order = order
        self._two = struct.Struct(f"{order}II")
        self._five = struct.Struct(f"{order}IIIII")

    def _read(self, kind: int, body: bytes) -> Interface | Record | Statistics | None:
        try:
            if kind == _PACKET:
                return self._packet(body)
            if kind == _INTERFACE:
                return self._interface(body)
            if kind == _STATISTICS:
                return self._statistics(body)
        except (struct.error, IndexError):
            raise ValueError(f"not pcapng: a damaged block of type {kind}") from None
        return None

    def _packet(self, body: bytes) -> Record:
        index, high, low, captured, length = self._five.unpack_from(body)
        index += self._first
        end = 20 + captured
        if end > len(body):
            raise IndexError
        direction = ""
        if len(body) - end >= 4:
            flags = self._options(body[end + -captured % 4 :]).get(_FLAGS)
            if flags is not None:
                direction = _WORDS.get(struct.unpack(f"{self._order}I", flags)[0] & 3, "")
        return Record(index, self._time(index, high, low), body[20:end], length, direction)

    def _interface(self, body: bytes) -> Interface:
        (link_type,) = struct.unpack_from(f"{self._order}H", body)
        options = self._options(body[8:])
        ticks = (options.get(_RESOLUTION) or b"\6")[0]
        resolution = 2 ** (ticks & 0x7F) if ticks & 0x80 else 10**ticks
        name = options.get(_NAME, b"").decode(errors="replace")
        self.interfaces.append(Interface(name, link_type, resolution))
        return self.interfaces[-1]

    def _statistics(self, body: bytes) -> Statistics:
        index, high, low = struct.unpack_from(f"{self._order}III", body)
        index += self._first
        options = self._options(body[12:])
        counts = [
            struct.unpack(f"{self._order}Q", options[code])[0] if code in options else None
            for code in (_RECEIVED, _DROPPED)
        ]
        return Statistics(index, self._time(index, high, low), *counts)

    def _time(self, index: int, high: int, low: int) -> int:
        resolution = self.interfaces[index].resolution
        ticks = high << 32 | low
        if resolution == 10**9:
            return ticks
        time_ns = ticks * 10**9 // resolution
        if time_ns >> 64:
            raise ValueError("not pcapng: a time after the year 2554")
        return time_ns

    def _options(self, data: bytes) -> dict[int, bytes]:
        """Code → value; of a code that occurs twice, the first."""
        found: dict[int, bytes] = {}
        at = 0
        while at + 4 <= len(data):
            code, length = struct.unpack_from(f"{self._order}HH", data, at)
            if code == 0:
                break
            found.setdefault(code, data[at + 4 : at + 4 + length])
            at += 4 + length + -length % 4
        return found


def _options(*options: tuple[int, bytes]) -> bytes:
    if not options:
        return b""
    parts = [
        struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)
        for code, value in options
    ]
    return b"".join(parts) + bytes(4)


def _block(kind: int, body: bytes) -> bytes:
    total = 12 + len(body)
    return _HEADER.pack(kind, total) + body + total.to_bytes(4, "little")
