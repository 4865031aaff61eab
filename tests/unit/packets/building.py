"""Frames made by hand."""

from __future__ import annotations

import struct

MACS = bytes.fromhex("020000000002020000000001")


def ethernet(payload: bytes, ethertype: int = 0x0800) -> bytes:
    """A frame from 02:…:01 to 02:…:02."""
    return MACS + struct.pack("!H", ethertype) + payload


def ipv4(protocol: int, payload: bytes, flags: int = 0, ttl: int = 64) -> bytes:
    """A packet from 10.0.0.1 to 10.0.0.2, checksums left out."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, flags, ttl, protocol, 0)
    return head + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + payload


def udp(source: int, destination: int, payload: bytes) -> bytes:
    """A datagram."""
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload


def ipv6(following: int, payload: bytes) -> bytes:
    """A packet from fd09::1 to fd09::2."""
    ends = bytes.fromhex("fd09" + "0" * 27 + "1" + "fd09" + "0" * 27 + "2")
    return struct.pack("!IHBB", 0x6B912345, len(payload), following, 64) + ends + payload


ECHO = ethernet(ipv4(1, struct.pack("!BBHHH", 8, 0, 0, 1, 1) + b"hello", ttl=63))
VXLAN = ethernet(ipv4(17, udp(50000, 8472, bytes.fromhex("0800000000000700") + ECHO)))
IPIP = ethernet(ipv4(4, ECHO[14:], flags=0x4000))
