"""The two probes: ICMP echo with a marker, and an HTTP request for the source the target sees.

Each is a small state machine on one non-blocking socket, driven by :mod:`.mesh`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import selectors
import socket
import struct
import time
from typing import Any, Protocol

__all__ = [
    "ECHO_REPLY",
    "ECHO_REQUEST",
    "TICK_SECONDS",
    "Probe",
    "checksum",
    "failure",
    "icmp_type",
    "payload",
    "start",
]

TICK_SECONDS = 0.02
"""How often :meth:`Probe.tick` should be called."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.2
"""Before an unanswered echo request is sent again, doubling: the other side may not have its routes
yet, or the path is cold."""

ECHO_REPLY, ECHO_REQUEST = 0, 8
_UNREACHABLE, _TIME_EXCEEDED = 3, 11
_SO_ATTACH_FILTER = 26


class Probe(Protocol):
    """One probe under way."""

    wanted: dict[str, Any]
    started: float
    """:func:`time.monotonic` when it was first sent."""
    socket: socket.socket
    events: int

    def ready(self) -> dict[str, Any] | None:
        """Go on after the socket became ready; return the result once there is one.

        A result with ``refused`` may be tried again: nobody listened *yet*.
        """

    def tick(self, now: float) -> None:
        """Send again what may have been lost."""

    def expired(self) -> dict[str, Any]:
        """The result when time has run out."""


def start(wanted: dict[str, Any], marker: str) -> Probe:
    """Open the probe's socket in the current network namespace and send.

    Raises:
        OSError: the kernel refuses at once, for example without a route.
    """
    return _Echo(wanted, marker) if wanted["protocol"] == "icmp" else _ClientIp(wanted)


def payload(marker: str, identity: int) -> bytes:
    """What an echo request of probe ``identity`` carries; no probe's payload holds another's."""
    return f"testbed {marker} {identity};".encode()


def icmp_type(frame: bytes, marker: bytes) -> int | None:
    """The type of the ICMP message in ``frame`` whose payload starts with ``marker``, if any."""
    at = frame.find(marker)
    return frame[at - 8] if at >= 8 else None


def failure(wanted: dict[str, Any], error: str) -> dict[str, Any]:
    """The result of a probe that got no answer."""
    return {"id": wanted["id"], "ok": False, "error": error}


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = int(sum(struct.unpack(f"!{len(data) // 2}H", data)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _hear_only(listener: socket.socket, identity: int) -> None:
    """Let a raw ICMP socket hear only messages with its identity, and ICMP errors.

    The kernel gives every raw socket of a namespace every ICMP packet there: with many probes at
    once, each answer would wake all of them. Classic BPF on the packet from its IP header on.
    """
    program = struct.pack(
        "HBBI" * 8,
        *(0xB1, 0, 0, 0),  # x = length of the IP header
        *(0x48, 0, 0, 4),  # a = half word at x + 4: the ICMP identity
        *(0x15, 3, 0, identity),  # equal: accept
        *(0x50, 0, 0, 0),  # a = byte at x: the ICMP type
        *(0x15, 1, 0, _UNREACHABLE),
        *(0x15, 0, 1, _TIME_EXCEEDED),
        *(0x06, 0, 0, 0xFFFFFFFF),  # accept
        *(0x06, 0, 0, 0),  # drop
    )
    buffer = ctypes.create_string_buffer(program)
    fprog = struct.pack("HL", 8, ctypes.addressof(buffer))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


class _Echo:
    events = selectors.EVENT_READ

    def __init__(self, wanted: dict[str, Any], marker: str) -> None:
        self.wanted = wanted
        self._payload = payload(marker, wanted["id"])
        self._identity = (os.getpid() ^ wanted["id"]) & 0xFFFF
        self._error = "no echo reply"
        self._pause = _FIRST_PAUSE
        self.started = self._sent = time.monotonic()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        try:
            self.socket.setblocking(False)
            _hear_only(self.socket, self._identity)
            self._send()
        except BaseException:
            self.socket.close()
            raise

    def _send(self) -> None:
        head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, self._identity, 1)
        total = checksum(head + self._payload)
        head = struct.pack("!BBHHH", ECHO_REQUEST, 0, total, self._identity, 1)
        self._sent = time.monotonic()
        self.socket.sendto(head + self._payload, (self.wanted["ip"], 0))

    def ready(self) -> dict[str, Any] | None:
        try:
            packet, (sender, _) = self.socket.recvfrom(65535)
        except OSError as error:
            self._error = error.strerror or str(error)
            return None
        icmp = packet[(packet[0] & 0xF) * 4 :]
        if self._payload not in icmp:
            return None
        if icmp[0] in (_UNREACHABLE, _TIME_EXCEEDED):
            self._error = f"ICMP type {icmp[0]} code {icmp[1]} from {sender}"
            return None
        if icmp[0] != ECHO_REPLY or sender != self.wanted["ip"]:
            return None
        return {
            "id": self.wanted["id"],
            "ok": True,
            "milliseconds": round((time.monotonic() - self._sent) * 1000, 3),
            "ttl": packet[8],
        }

    def tick(self, now: float) -> None:
        if now - self._sent >= self._pause:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            try:
                self._send()
            except OSError as error:
                self._error = error.strerror or str(error)

    def expired(self) -> dict[str, Any]:
        return failure(self.wanted, self._error)


class _ClientIp:
    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        self.started = time.monotonic()
        self._answer = b""
        self._error = "the connection was not answered"
        self.events = selectors.EVENT_WRITE
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.socket.setblocking(False)
            self._connect()
        except BaseException:
            self.socket.close()
            raise

    def _connect(self) -> None:
        code = self.socket.connect_ex((self.wanted["ip"], self.wanted["port"]))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))

    def ready(self) -> dict[str, Any] | None:
        try:
            if self.events == selectors.EVENT_WRITE:
                return self._request()
            chunk = self.socket.recv(65536)
        except BlockingIOError:
            return None
        except OSError as error:
            return failure(self.wanted, error.strerror or str(error))
        self._answer += chunk
        return None if chunk else self._result()

    def _request(self) -> dict[str, Any] | None:
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            refused = code == errno.ECONNREFUSED
            return {**failure(self.wanted, os.strerror(code)), "refused": refused}
        host = self.wanted["ip"]
        self.socket.sendall(
            f"GET /clientip HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
        self.events = selectors.EVENT_READ
        self._error = "connected, but no answer came"
        return None

    def _result(self) -> dict[str, Any]:
        head, _, body = self._answer.partition(b"\r\n\r\n")
        status = head.split(b"\r\n")[0].decode(errors="replace")
        if " 200 " not in f"{status} ":
            return failure(self.wanted, f"answered {status!r}")
        return {
            "id": self.wanted["id"],
            "ok": True,
            "milliseconds": round((time.monotonic() - self.started) * 1000, 3),
            "seen_as": body.decode(errors="replace").strip().rpartition(":")[0],
        }

    def tick(self, now: float) -> None:
        """The kernel sends lost segments again by itself."""

    def expired(self) -> dict[str, Any]:
        return failure(self.wanted, self._error)
