"""Classic pcap: what tcpdump writes, read as it comes.

Both sides read it: the agent from tcpdump's pipe and from the flight recorder's ring, the host from
files that users have.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["Reader", "Record"]

_MAGICS = {0xA1B2C3D4: 1_000, 0xA1B23C4D: 1}
"""Magic number → nanoseconds per unit of a timestamp's second field."""
_HEADER_BYTES, _RECORD_BYTES = 24, 16
_LINK_TYPE = 0xFFFF
"""The bits of the last word of the header that hold it."""


class Record(NamedTuple):
    """A captured frame."""

    time_ns: int
    """Since the epoch."""
    data: bytes
    """As far as it was captured."""
    length: int
    """Bytes on the wire."""


class Reader:
    """A pcap stream in any byte order, with microseconds or nanoseconds, fed as it comes."""

    def __init__(self) -> None:
        self.link_type: int | None = None
        """Known when the header was read."""
        self._pending = b""
        self._record = struct.Struct("=IIII")
        self._unit = 1

    def feed(self, data: bytes) -> list[Record]:
        """The frames that are complete with ``data``; one that is cut waits for its rest.

        Raises:
            ValueError: this is not pcap.
        """
        pending = self._pending + data if self._pending else data
        at, end = 0, len(pending)
        if self.link_type is None:
            if end < _HEADER_BYTES:
                self._pending = pending
                return []
            self._begin(pending)
            at = _HEADER_BYTES
        found, unpack, unit = [], self._record.unpack_from, self._unit
        while end - at >= _RECORD_BYTES:
            seconds, fraction, captured, length = unpack(pending, at)
            begin = at + _RECORD_BYTES
            if end - begin < captured:
                break
            at = begin + captured
            time_ns = seconds * 1_000_000_000 + fraction * unit
            found.append(Record(time_ns, pending[begin:at], length))
        self._pending = pending[at:]
        return found

    def _begin(self, header: bytes) -> None:
        for order in "<>":
            magic, *_, link = struct.unpack_from(f"{order}IHHiIII", header)
            if magic in _MAGICS:
                self.link_type, self._unit = link & _LINK_TYPE, _MAGICS[magic]
                self._record = struct.Struct(f"{order}IIII")
                return
        raise ValueError("not a capture file: unknown magic number")
