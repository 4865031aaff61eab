"""A tap: one packet socket that hears every interface of a network namespace.

tcpdump tells an interface or a direction; a tap tells both, with the time in nanoseconds, and is
ready as soon as it is open. The kernel hands a frame to packet sockets before anything else
happens to it: whoever has received an answer finds every frame that led to it in the taps.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from .netns import entered

__all__ = ["ETHERNET", "RAW_IP", "Sight", "Tap", "sight"]

ETHERNET, RAW_IP = 1, 101
"""Link types of capture files."""
_EVERYTHING = 0x0003
"""ETH_P_ALL"""
_BUFFER = 16 << 20
_MOST = 1 << 17
"""More frames than the buffer holds."""
_LONGEST = 1 << 18
"""More than the longest frame that segmentation offload makes."""
_ETHERNET_HARDWARE = (1, 772)
"""ARPHRD_ETHER and ARPHRD_LOOPBACK; tunl0, WireGuard and TUN have packets without a header."""
_OUTGOING = 4

_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_SOL_PACKET, _AUXDATA, _STATISTICS = 263, 8, 6
_TIMESPEC = struct.Struct("@ll")
_AUX = struct.Struct("@IIIHHHH")
"""struct tpacket_auxdata: status, length, captured, MAC, network, VLAN's TCI and TPID."""
_VLAN, _VLAN_TPID = 0x10, 0x40
_TAGGED = 0x8100


class Sight(NamedTuple):
    """One frame, as one interface saw it once."""

    time_ns: int
    """Since the epoch."""
    interface: str
    link_type: int
    outgoing: bool
    length: int
    """Bytes on the wire; several segments where offload joins them."""
    data: bytes


class Tap:
    """Everything that the interfaces of the namespace pinned at ``path`` see, from now on.

    ``None`` is the namespace of this thread.

    Raises:
        OSError: the namespace is gone.
    """

    def __init__(self, path: str | None = None) -> None:
        with entered(path):
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_EVERYTHING)
            )
        self._buffer = bytearray(_LONGEST)
        self._room = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(_AUX.size)
        self.dropped = 0
        """How many frames found no room."""
        with suppress(PermissionError):  # then the default buffer must do
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(_SOL_PACKET, _AUXDATA, 1)

    def drain(self) -> list[Sight]:
        """Every frame that was seen since the last time, in the order in which it was.

        What comes while this reads is for the next time: a busy interface brings more than that.
        """
        began = time.time_ns()
        sights = []
        for seen in self._queued():
            sights.append(seen)
            if seen.time_ns > began:
                break
        _, dropped = struct.unpack("@II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
        self.dropped += dropped
        return sights

    def stamped(self) -> bool:
        """Whether frames have the time at which they were seen, found out by one on ``lo``.

        The kernel takes times as soon as any socket wants them, but switches that on later, in a
        work queue; until then a frame has the time at which it is read. What was seen is dropped.
        """
        token = os.urandom(16)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            try:
                sender.bind(("127.0.0.1", 0))
                sender.sendto(token, sender.getsockname())
            except OSError:  # lo is down: nothing to find it out by
                return True
        sent = time.time_ns()
        for seen in islice(self._queued(), _MOST):
            if token in seen.data:
                return seen.time_ns <= sent
        return False

    def _queued(self) -> Iterator[Sight]:
        """What is in the socket's buffer, as long as anything is."""
        received = self._socket.recvmsg_into
        while True:
            try:
                size, ancillary, _, address = received([self._buffer], self._room)
            except BlockingIOError:
                return
            yield sight(bytes(memoryview(self._buffer)[:size]), ancillary, address)

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


def sight(
    data: bytes, ancillary: list[tuple[int, int, bytes]], address: tuple[str, int, int, int, bytes]
) -> Sight:
    """What a packet socket received: the data, the kernel's messages with it, its address."""
    interface, _, kind, hardware, _ = address
    time_ns, length = 0, len(data)
    for level, name, value in ancillary:
        if (level, name) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            time_ns = seconds * 10**9 + nanoseconds
        elif (level, name) == (_SOL_PACKET, _AUXDATA):
            status, length, _, _, _, tci, tpid = _AUX.unpack(value)
            if status & _VLAN and len(data) >= 12:  # the kernel took the tag out
                tag = struct.pack("!HH", tpid if status & _VLAN_TPID else _TAGGED, tci)
                data = data[:12] + tag + data[12:]
                length += len(tag)
    link_type = ETHERNET if hardware in _ETHERNET_HARDWARE else RAW_IP
    return Sight(time_ns, interface, link_type, kind == _OUTGOING, length, data)
