"""Taps: frames with their interface, direction and time."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from testbed.agent.tap import ETHERNET, RAW_IP, Sight, Tap, sight

TIMESTAMP, AUXILIARY = (socket.SOL_SOCKET, 35), (263, 8)
FRAME = bytes.fromhex("0242ac1400030242ac1400020800") + b"packet"


def auxiliary(status: int = 0, length: int = len(FRAME), tci: int = 0, tpid: int = 0) -> bytes:
    """A ``struct tpacket_auxdata``."""
    return struct.pack("@IIIHHHH", status, length, length, 0, 14, tci, tpid)


def address(kind: int = 0, hardware: int = 1) -> tuple[str, int, int, int, bytes]:
    """What Python says of a packet's ``struct sockaddr_ll``."""
    return ("eth0", 0x0800, kind, hardware, b"")


def test_time_is_in_nanoseconds() -> None:
    """Of the kernel's clock, since the epoch."""
    stamp = struct.pack("@ll", 1_700_000_000, 123_456_789)
    assert sight(FRAME, [(*TIMESTAMP, stamp)], address()).time_ns == 1_700_000_000_123_456_789


def test_only_what_the_kernel_sends_is_outgoing() -> None:
    """To this host, broadcast, multicast and for other hosts are all incoming."""
    ways = [sight(FRAME, [], address(kind)).outgoing for kind in range(5)]
    assert ways == [False, False, False, False, True]


def test_a_vlan_tag_is_put_back() -> None:
    """The kernel takes it out of the frame and tells it beside it."""
    tagged = sight(FRAME, [(*AUXILIARY, auxiliary(0x50, tci=0x2064, tpid=0x88A8))], address())
    assert tagged.data == FRAME[:12] + bytes.fromhex("88a82064") + FRAME[12:]
    assert tagged.length == len(FRAME) + 4
    plain = sight(FRAME, [(*AUXILIARY, auxiliary(0x10, tci=5))], address())
    assert plain.data[12:16] == bytes.fromhex("81000005")


def test_length_is_that_on_the_wire() -> None:
    """However much of the frame was received."""
    assert sight(FRAME, [(*AUXILIARY, auxiliary(length=9000))], address()).length == 9000
    assert sight(FRAME, [], address()).length == len(FRAME)


def test_tunnels_have_no_ethernet_header() -> None:
    """tunl0 (768), WireGuard and TUN (65534); the loopback device has one."""
    types = [sight(FRAME, [], address(0, kind)).link_type for kind in (1, 772, 768, 65534)]
    assert types == [ETHERNET, ETHERNET, RAW_IP, RAW_IP]


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets are root's")


@pytest.fixture
def tap() -> Iterator[Tap]:
    """A tap of this machine's own namespace."""
    if os.geteuid():
        pytest.skip("packet sockets are root's")
    tap = Tap()
    deadline = time.monotonic() + 5
    while not tap.stamped():
        assert time.monotonic() < deadline
    yield tap
    tap.close()


def seen(tap: Tap, payload: bytes) -> list[Sight]:
    """What the loopback device saw of one datagram."""
    datagrams = socket.AF_INET, socket.SOCK_DGRAM
    with socket.socket(*datagrams) as sender, socket.socket(*datagrams) as receiver:
        receiver.bind(("127.0.0.1", 0))
        sender.sendto(payload, receiver.getsockname())
        receiver.recv(100_000)
    return [each for each in tap.drain() if payload[:64] in each.data]


def test_a_datagram_is_in_the_tap_when_it_is_received(tap: Tap) -> None:
    """Out of the device and in again, with the kernel's own times, without any waiting."""
    began = time.time_ns()
    sights = seen(tap, os.urandom(64))
    assert [(each.interface, each.outgoing) for each in sights] == [("lo", True), ("lo", False)]
    assert began <= sights[0].time_ns <= sights[1].time_ns <= time.time_ns()
    assert {len(each.data) for each in sights} == {14 + 20 + 8 + 64}
    assert not [each for each in tap.drain() if each in sights], "told once"


def test_frames_of_64_kib_are_whole(tap: Tap) -> None:
    """As segmentation offload and the loopback device make them."""
    sights = seen(tap, os.urandom(60_000))
    assert {(each.length, len(each.data)) for each in sights} == {(60_042, 60_042)}
    assert tap.dropped == 0


def test_a_namespace_that_is_gone_has_no_tap() -> None:
    """An error for the caller to tell."""
    with pytest.raises(FileNotFoundError):
        Tap("/nowhere/netns")


def test_what_was_seen_before_times_are_right_is_dropped(tap: Tap) -> None:
    """Nothing of it has a time that can be relied on."""
    payload = os.urandom(64)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        sender.sendto(payload, sender.getsockname())
    assert tap.stamped()
    assert not [each for each in tap.drain() if payload in each.data]


class Flooded(Tap):
    """A tap of a namespace where frames come faster than they are read."""

    def _queued(self) -> Iterator[Sight]:
        yield from super()._queued()
        while True:
            yield Sight(time.time_ns(), "lo", ETHERNET, outgoing=True, length=0, data=b"")


@needs_root
def test_frames_that_come_while_it_reads_are_for_the_next_time() -> None:
    """So that reading ends, however busy an interface is; and so does waiting for times."""
    tap = Flooded()
    try:
        began = time.time_ns()
        assert len([each for each in tap.drain() if each.time_ns > began]) >= 1
        deadline = time.monotonic() + 5
        while not tap.stamped():  # its own frame is before the flood
            assert time.monotonic() < deadline
    finally:
        tap.close()
