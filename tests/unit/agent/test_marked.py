"""Marked packets over loopback, and the words for what goes wrong with them."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from testbed.agent.marked import Packet, words
from testbed.agent.tap import Tap

MARKER = "0123456789abcdef"


def wanted(protocol: str, port: int = 0, **more: Any) -> dict[str, Any]:
    """A request for one packet to this machine."""
    return {
        "protocol": protocol,
        "ip": "127.0.0.1",
        "port": port,
        "size": 56,
        "dont_fragment": False,
        "marker": MARKER,
        "seconds": 0.2,
    } | more


@contextmanager
def sent(request: dict[str, Any]) -> Iterator[Packet]:
    """A packet that was sent, until it is looked at."""
    with closing(Packet(request)) as packet:
        packet.send(None)
        yield packet


@pytest.fixture
def echo() -> Iterator[int]:
    """A UDP server that answers ``echo WORDS`` with WORDS, as netexec does; its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)

        def serve() -> None:
            data, sender = server.recvfrom(65535)
            server.sendto(data.removeprefix(b"echo "), sender)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets are root's")
needs_admin = pytest.mark.skipif(os.geteuid() != 0, reason="TCP_REPAIR is root's")


class Overhearing:
    """A raw socket that gets the ICMP error of another's packet, and then the answer to its own."""

    def __init__(self, reply: bytes) -> None:
        self.said: list[OSError | bytes] = [BlockingIOError(errno.EAGAIN, "nothing"), reply]
        self._ends = socket.socketpair()
        self._ends[0].send(b"ready")

    def fileno(self) -> int:
        """Always ready."""
        return self._ends[1].fileno()

    def recvmsg(self, *_: int) -> None:
        """The other's error was taken already."""
        raise BlockingIOError

    def recv(self, _: int) -> bytes:
        """What is there."""
        said = self.said.pop(0)
        if isinstance(said, OSError):
            raise said
        return said

    def close(self) -> None:
        """Both ends."""
        for end in self._ends:
            end.close()


def test_the_error_of_anothers_packet_is_no_answer() -> None:
    """It makes a raw socket ready, and there is nothing to read."""
    packet = Packet(wanted("icmp"))
    reply = b"\x45" + bytes(19) + struct.pack("!BBH", 0, 0, 0) + packet._identity
    with closing(Overhearing(reply)) as heard:
        packet._wait(heard)  # type: ignore[arg-type]
    assert (packet.answered, packet.error) == (True, "")


@needs_root
@pytest.mark.parametrize("size", [0, 4, 56, 3000])
def test_echo_of_any_size_is_answered(size: int) -> None:
    """Also where no marker fits: the identity of the echo is a pattern of its own."""
    with sent(wanted("icmp", size=size)) as packet:
        assert (packet.answered, packet.error) == (True, "")
        patterns = packet.patterns()
        assert (MARKER.encode() in patterns) == (size >= len(MARKER))
        assert len(patterns[-1]) == 4


def test_udp_is_answered(echo: int) -> None:
    """The patterns hold the marker and both orders of the ports."""
    with sent(wanted("udp", echo)) as packet:
        assert packet.answered
        here = packet.local_port
        assert packet.patterns() == [
            MARKER.encode(),
            struct.pack("!HH", here, echo),
            struct.pack("!HH", echo, here),
        ]


@needs_admin
def test_tcp_is_answered_by_a_connection() -> None:
    """It is open until the packet is closed, so that its end is not in the trace."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with sent(wanted("tcp", server.getsockname()[1])) as packet:
            assert packet.answered
            peer = server.accept()[0]
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)
        peer.setblocking(True)
        assert peer.recv(1) == b""
        peer.close()


@needs_admin
def test_the_patterns_of_tcp_are_in_segment_and_answer() -> None:
    """The SYN has the sequence number that is told, and the answer acknowledges the next one."""
    with closing(Tap(None)) as tap, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with sent(wanted("tcp", port)) as packet:
            first, following = packet.patterns()
            ends = struct.pack("!HH", packet.local_port, port)
        back = ends[2:] + ends[:2]
        # Until the kernel takes times, each reading ends with the first frame.
        seen = [sight.data for _ in range(20) for sight in tap.drain()]
    assert first == packet.sequence.to_bytes(4, "big")
    assert any(ends + first in each for each in seen)
    assert any(each[each.find(back) + 8 :].startswith(following) for each in seen if back in each)


def closed(kind: int) -> int:
    """A port where nobody listens."""
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@needs_admin
def test_a_refused_connection_is_an_error() -> None:
    """At once."""
    with sent(wanted("tcp", closed(socket.SOCK_STREAM))) as packet:
        assert (packet.answered, packet.error) == (False, "Connection refused (TCP reset)")


def test_an_icmp_error_is_told_with_type_and_code() -> None:
    """And with who sent it."""
    with sent(wanted("udp", closed(socket.SOCK_DGRAM))) as packet:
        assert packet.error == "ICMP 3/3 from 127.0.0.1: port unreachable"


def test_silence_ends_in_time() -> None:
    """A server that says nothing is no error."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        began = time.monotonic()
        with sent(wanted("udp", server.getsockname()[1])) as packet:
            assert (packet.answered, packet.error) == (False, "")
        assert 0.19 < time.monotonic() - began < 2


def test_what_the_kernel_refuses_is_an_error_at_once() -> None:
    """As without a route; here, broadcast without having asked for it."""
    with sent(wanted("udp", 9, ip="255.255.255.255", seconds=60)) as packet:
        assert (packet.answered, packet.error) == (False, "Permission denied")


def test_a_source_that_is_gone_is_an_error() -> None:
    """The pod's namespace was there a moment ago."""
    packet = Packet(wanted("udp", 9))
    packet.send("/nowhere/netns")
    assert (packet.answered, packet.error) == (False, "No such file or directory")
    packet.close()


@pytest.mark.parametrize(
    ("number", "origin", "kind", "code", "info", "said"),
    [
        (errno.EMSGSIZE, 1, 0, 0, 1450, "Message too long (path MTU 1450)"),
        (errno.EMSGSIZE, 1, 0, 0, 0, "Message too long"),
        (
            errno.EMSGSIZE,
            *(2, 3, 4, 1450),
            "ICMP 3/4 from 10.244.0.1: fragmentation needed, MTU 1450",
        ),
        (
            errno.EHOSTUNREACH,
            *(2, 3, 13, 0),
            "ICMP 3/13 from 10.244.0.1: communication administratively prohibited",
        ),
        (
            errno.EHOSTUNREACH,
            *(2, 11, 0, 0),
            "ICMP 11/0 from 10.244.0.1: time to live exceeded in transit",
        ),
        (errno.EOPNOTSUPP, 2, 12, 1, 0, "ICMP 12/1 from 10.244.0.1: Operation not supported"),
    ],
)
def test_words_for_extended_errors(
    number: int, origin: int, kind: int, code: int, info: int, said: str
) -> None:
    """Type, code, sender and MTU, as the kernel tells them."""
    error = struct.pack("@IBBBxII", number, origin, kind, code, info, 0)
    offender = struct.pack("@HH", socket.AF_INET, 0) + socket.inet_aton("10.244.0.1") + bytes(8)
    assert words(error + offender) == said
