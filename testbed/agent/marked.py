"""Sending one marked packet, and what the sender's socket hears of it.

The answer is also what the packet can be recognized by, wherever it is seen: bytes that neither
encapsulation nor NAT changes. ICMP and UDP carry the marker in their payload; a TCP segment has
none, but its initial sequence number, which the socket tells and every answer acknowledges, is as
good.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from .icmp import ERRORS, FRAGMENTATION_NEEDED
from .netns import entered
from .probes import ECHO_REPLY, ECHO_REQUEST, checksum

__all__ = ["Packet", "words"]

_IP_MTU_DISCOVER, _DO, _DONT = 10, 2, 0
_IP_RECVERR = 11
_ERROR = struct.Struct("@IBBBxII")
"""struct sock_extended_err: errno, origin, type, code, info (an MTU), data."""
_FROM_ICMP = 2
_ECHO = b"echo "
"""What netexec's UDP server answers with what follows."""
_LEAST = 8
"""Shorter pieces of a marker may be anything."""
_TCP_REPAIR, _TCP_REPAIR_QUEUE, _TCP_QUEUE_SEQ = 19, 20, 21
_SEND_QUEUE = 2


class Packet:
    """One marked packet and the socket that it leaves through.

    ``wanted`` holds ``protocol`` (``icmp``, ``tcp`` or ``udp``), ``ip``, ``port``, ``size``,
    ``dont_fragment``, ``marker`` and ``seconds``, after which no answer is waited for.
    """

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        self._protocol: str = wanted["protocol"]
        self._wanted = wanted
        self._identity = os.urandom(4)
        self._socket: socket.socket | None = None
        self.answered = False
        self.error = ""
        """What the socket said, in words; empty: nothing."""
        self.sent_ns = 0
        self.local_port = 0
        self.sequence = 0
        """TCP's initial sequence number."""

    def send(self, path: str | None) -> None:
        """Send it in the namespace pinned at ``path``, and wait for an answer or an error."""
        self.sent_ns = time.time_ns()
        try:
            with entered(path):
                self._socket = _opened(self._protocol, bool(self._wanted["dont_fragment"]))
            self._begin(self._socket)
        except OSError as error:
            told = self._told(self._socket) if self._socket else ""
            self.error = told or error.strerror or str(error)
        else:
            self._wait(self._socket)

    def close(self) -> None:
        """Close the socket; a TCP connection is ended only now."""
        if self._socket:
            self._socket.close()

    def patterns(self) -> list[bytes]:
        """Bytes of which every frame of the packet and of its answers holds some."""
        if self._protocol == "tcp":
            following = self.sequence, (self.sequence + 1) % 2**32
            return [number.to_bytes(4, "big") for number in following]
        prefix = b"" if self._protocol == "icmp" else _ECHO
        piece = self._payload().removeprefix(prefix)[: len(self._wanted["marker"])]
        found = [piece] if len(piece) >= _LEAST else []
        if self._protocol == "icmp":
            return [*found, self._identity]
        here, there = self.local_port, self._wanted["port"]
        return [*found, struct.pack("!HH", here, there), struct.pack("!HH", there, here)]

    def _payload(self) -> bytes:
        size: int = self._wanted["size"]
        marker: bytes = self._wanted["marker"].encode()
        whole = marker * (size // len(marker) + 1)
        return (whole if self._protocol == "icmp" else _ECHO + whole)[:size]

    def _begin(self, opened: socket.socket) -> None:
        """Send, or begin to connect."""
        code = opened.connect_ex((self._wanted["ip"], self._wanted["port"]))
        if self._protocol == "tcp":
            following = opened.getsockopt(socket.IPPROTO_TCP, _TCP_QUEUE_SEQ)
            self.sequence = (following - 1) % 2**32
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        if self._protocol != "icmp":
            self.local_port = opened.getsockname()[1]
        if self._protocol == "icmp":
            head, body = struct.pack("!BBH", ECHO_REQUEST, 0, 0), self._identity + self._payload()
            total = checksum(head + body)
            opened.send(struct.pack("!BBH", ECHO_REQUEST, 0, total) + body)
        elif self._protocol == "udp":
            opened.send(self._payload())

    def _wait(self, opened: socket.socket) -> None:
        """Wait until the packet is answered, the socket has an error, or time runs out."""
        deadline = time.monotonic() + self._wanted["seconds"]
        poll = select.poll()
        poll.register(opened, select.POLLOUT if self._protocol == "tcp" else select.POLLIN)
        while not self.answered and not self.error:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                return
            self.error = self._told(opened)
            if not self.error:
                try:
                    self.answered = self._heard(opened)
                except BlockingIOError:  # only the error of another's packet was there
                    continue
                except OSError as error:
                    self.error = error.strerror or str(error)

    def _heard(self, opened: socket.socket) -> bool:
        """Whether the socket, which is ready, has the answer."""
        if self._protocol == "tcp":
            code = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == errno.ECONNREFUSED:
                raise OSError(code, f"{os.strerror(code)} (TCP reset)")
            if code:
                raise OSError(code, os.strerror(code))
            return True
        packet = opened.recv(65535)
        if self._protocol == "udp":
            return True
        message = packet[(packet[0] & 0xF) * 4 :]
        return message[0] == ECHO_REPLY and message[4:8] == self._identity

    def _told(self, opened: socket.socket) -> str:
        """What the kernel put into the socket's queue of errors, in words; empty: nothing.

        A raw socket also gets the errors of others' packets to the same address.
        """
        while True:
            try:
                about, ancillary, _, _ = opened.recvmsg(512, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return ""
            for level, kind, value in ancillary:
                if (level, kind) != (socket.IPPROTO_IP, _IP_RECVERR):
                    continue
                foreign = self._protocol == "icmp" and _ERROR.unpack_from(value)[1] == _FROM_ICMP
                if not foreign or self._identity in about:
                    return words(value)


def _opened(protocol: str, dont_fragment: bool) -> socket.socket:
    kind, number = {
        "icmp": (socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "tcp": (socket.SOCK_STREAM, 0),
        "udp": (socket.SOCK_DGRAM, 0),
    }[protocol]
    opened = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK, number)
    opened.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    discover = _DO if dont_fragment else _DONT
    opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, discover)
    if protocol == "tcp":
        _tell_sequences(opened)
    return opened


def _tell_sequences(opened: socket.socket) -> None:
    """Have ``TCP_QUEUE_SEQ`` read the next sequence number, as CRIU does to store a connection.

    The SYN's is known only when that is sent: also a number that was set would be replaced where a
    port in TIME-WAIT is used again.
    """
    for option, value in ((_TCP_REPAIR, 1), (_TCP_REPAIR_QUEUE, _SEND_QUEUE), (_TCP_REPAIR, 0)):
        opened.setsockopt(socket.IPPROTO_TCP, option, value)


def words(extended: bytes) -> str:
    """What an extended error (``struct sock_extended_err`` and the offender's address) says."""
    number, origin, kind, code, info, _ = _ERROR.unpack_from(extended)
    if origin != _FROM_ICMP:
        told = os.strerror(number)
        return f"{told} (path MTU {info})" if number == errno.EMSGSIZE and info else told
    offender = socket.inet_ntoa(extended[_ERROR.size + 4 : _ERROR.size + 8])
    said = ERRORS.get((kind, code), os.strerror(number))
    mtu = f", MTU {info}" if (kind, code) == FRAGMENTATION_NEEDED else ""
    return f"ICMP {kind}/{code} from {offender}: {said}{mtu}"
