"""The TUN that passes for the ipip driver's device, and what the tc programs leave to the agent.

Copies of packets that somebody captures on the device are read and discarded. A raw socket for
protocol 4 makes the kernel learn the path MTU from ICMP errors; what it receives, such as outer
fragments that the stack has reassembled, is decapsulated here.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

from .errors import AgentError

__all__ = ["INDEX", "Device", "decapsulate"]

INDEX = 0x6970
"""The device's ifindex in every node: compiled into the programs."""

_TUNSETIFF, _TUNGETIFF, _TUNSETPERSIST = 0x400454CA, 0x800454D2, 0x400454CB
_TUNSETLINK, _TUNSETOFFLOAD, _TUNSETIFINDEX = 0x400454CD, 0x400454D0, 0x400454DA
_TUN, _NO_PACKET_INFORMATION, _VIRTIO_HEADER = 0x1, 0x1000, 0x4000
_ARPHRD_TUNNEL = 768
_CHECKSUM, _TSO4, _TSO6, _TSO_ECN = 1, 2, 4, 8
_EMPTY_VIRTIO_HEADER = bytes(10)
_LONGEST = 1 << 17
_ECN, _NOT_ECT, _CE = 3, 0, 3


def decapsulate(packet: bytes) -> bytes | None:
    """The inner packet of one that the stack gave; ``None``: not IPv4, or to be dropped.

    A congestion mark on the outer header moves to the inner one (RFC 6040, section 4.2).
    """
    inner = packet[(packet[0] & 15) * 4 :]
    size = (inner[0] & 15) * 4 if inner else 0
    if size < 20 or len(inner) < size or inner[0] >> 4 != 4:
        return None
    if packet[1] & _ECN != _CE or inner[1] & _ECN == _CE:
        return inner
    if inner[1] & _ECN == _NOT_ECT:
        return None
    header = bytearray(inner[:size])
    header[1] |= _CE
    header[10:12] = bytes(2)
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = struct.pack("!H", ~total & 0xFFFF)
    return bytes(header) + inner[size:]


class Device:
    """The TUN as long as it is held: without a holder it has no carrier."""

    def __init__(self, name: str) -> None:
        self.programs: dict[str, int] = {}
        """Device and direction → ID of the program that was attached there."""
        self._tun = _open(name)
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def current_name(self) -> str:
        """What the device is called now; empty if somebody deleted it."""
        try:
            shown = fcntl.ioctl(self._tun, _TUNGETIFF, bytes(40))
        except OSError:
            return ""
        return shown[:16].rstrip(b"\0").decode()

    def close(self) -> None:
        """Let go of the device; it stays, without carrier."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        for descriptor in (self._tun, self._stop):
            os.close(descriptor)
        self._raw.close()

    def _serve(self) -> None:
        poll = select.poll()
        for descriptor in (self._stop, self._tun, self._raw.fileno()):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, events in poll.poll():
                if descriptor == self._stop:
                    return
                if descriptor == self._tun and events & select.POLLERR:
                    poll.unregister(self._tun)  # deleted
                    continue
                # the device is down, or an ICMP error came for the raw socket
                with suppress(OSError):
                    self._receive(descriptor)

    def _receive(self, descriptor: int) -> None:
        if descriptor == self._tun:
            os.read(self._tun, _LONGEST)
            return
        inner = decapsulate(self._raw.recv(_LONGEST, socket.MSG_DONTWAIT))
        if inner is not None:
            os.write(self._tun, _EMPTY_VIRTIO_HEADER + inner)


def _open(name: str) -> int:
    new = not Path("/sys/class/net", name).exists()
    flags = _TUN | _NO_PACKET_INFORMATION | _VIRTIO_HEADER
    try:
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise AgentError("no TUN device", "/dev/net/tun", str(error.strerror)) from None
    try:
        if new:
            fcntl.ioctl(tun, _TUNSETIFINDEX, struct.pack("i", INDEX))
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        if new:
            fcntl.ioctl(tun, _TUNSETLINK, _ARPHRD_TUNNEL)  # as long as it is down
        fcntl.ioctl(tun, _TUNSETOFFLOAD, _CHECKSUM | _TSO4 | _TSO6 | _TSO_ECN)
        fcntl.ioctl(tun, _TUNSETPERSIST, 1)
    except OSError as error:
        os.close(tun)
        raise AgentError("cannot make an IP-in-IP device", name, str(error.strerror)) from None
    return tun
