"""netexec's HTTP connections: keep-alive, many, slow and silent ones."""

from __future__ import annotations

import resource
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.images.netexec_client import read_all, receive_response

if TYPE_CHECKING:
    from tests.images.conftest import Programs
    from tests.images.netexec_client import Netexec, StartNetexec

HOSTNAME = socket.gethostname().encode()


class TestConnections:
    """Keep-alive and close."""

    def test_http_1_1_stays_open(self, server: Netexec) -> None:
        """Many requests travel over one connection."""
        with server.connect() as client:
            for number in range(3):
                client.sendall(b"GET /echo?msg=%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
                head, body = receive_response(client)

                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                assert b"Connection:" not in head
                assert body == b"%d" % number

    @pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, close"])
    def test_close_is_honoured(self, server: Netexec, value: bytes) -> None:
        """Connection: close ends it after the answer, which says so."""
        with server.connect() as client:
            client.sendall(b"GET /hostname HTTP/1.1\r\nHost: x\r\nConnection: %b\r\n\r\n" % value)
            answer = read_all(client)

        assert b"\r\nConnection: close\r\n" in answer
        assert answer.endswith(b"\r\n\r\n" + HOSTNAME)

    def test_http_1_0_closes(self, server: Netexec) -> None:
        """HTTP/1.0 needs no Host and is answered in kind."""
        with server.connect() as client:
            client.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
            answer = read_all(client)

        assert answer.startswith(b"HTTP/1.0 200 OK\r\n")

    def test_http_1_0_keep_alive(self, server: Netexec) -> None:
        """HTTP/1.0 stays open on request."""
        with server.connect() as client:
            for _ in range(2):
                client.sendall(b"GET /hostname HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
                head, body = receive_response(client)

                assert b"\r\nConnection: keep-alive\r\n" in head
                assert body == HOSTNAME

    def test_pipelined_requests_are_answered_in_order(self, server: Netexec) -> None:
        """Also when one of them has to wait for a child process."""
        answer = server.raw(
            b"GET /echo?msg=first HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /shell?cmd=sleep+0.05%3Becho+second HTTP/1.1\r\nHost: x\r\n\r\n"
            b"POST /echo?msg=third HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
            b"GET /echo?msg=fourth HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            b"GET /echo?msg=never HTTP/1.1\r\nHost: x\r\n\r\n"
        )

        assert answer.count(b"HTTP/1.1 200 OK") == 4
        places = [answer.index(word) for word in (b"first", b"second", b"third", b"fourth")]
        assert places == sorted(places)

    def test_request_in_single_bytes(self, server: Netexec) -> None:
        """A request may arrive as slowly as it likes."""
        with server.connect() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in b"GET /echo?msg=slow HTTP/1.1\r\nHost: x\r\n\r\n":
                client.sendall(bytes([byte]))
                time.sleep(0.0005)

            assert receive_response(client)[1] == b"slow"

    def test_bare_line_feeds(self, server: Netexec) -> None:
        """A bare line feed ends a line, as in Go."""
        assert server.raw(b"GET /hostname HTTP/1.0\nX: y\n\n").endswith(HOSTNAME)

    def test_head_has_no_body(self, server: Netexec) -> None:
        """HEAD is answered like GET, without the body."""
        answer = server.raw(b"HEAD /hostname HTTP/1.0\r\n\r\n")

        assert b"Content-Length: %d\r\n" % len(HOSTNAME) in answer
        assert answer.endswith(b"\r\n\r\n")

    def test_absolute_target(self, server: Netexec) -> None:
        """A proxy's way of asking works too."""
        answer = server.raw(b"GET http://x:1/echo?msg=y HTTP/1.0\r\n\r\n")

        assert answer.endswith(b"\r\n\r\ny")

    def test_many_short_connections(self, start: StartNetexec) -> None:
        """A thousand connections one after the other, and two hundred at once."""
        netexec = start()
        for _ in range(1000):
            with netexec.connect() as client:
                client.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
                assert read_all(client).endswith(HOSTNAME)
        clients = [netexec.connect() for _ in range(200)]
        for client in clients:
            client.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
        for client in clients:
            assert read_all(client).endswith(HOSTNAME)
            client.close()

    def test_large_answer_to_a_slow_reader(self, server: Netexec) -> None:
        """An answer larger than any socket buffer arrives whole, others are served meanwhile."""
        with server.connect() as slow:
            slow.sendall(
                b"GET /shell?cmd=head+-c+3000000+%2Fdev%2Fzero+%7C+tr+%27%5C0%27+x HTTP/1.0\r\n\r\n"
            )
            slow.recv(1, socket.MSG_PEEK)

            assert server.get("/hostname").status == 200
            answer = read_all(slow)

        assert answer.count(b"x") >= 3_000_000

    def test_out_of_descriptors(self, start: StartNetexec) -> None:
        """Connections beyond the limit wait in the queue and are served when others close."""
        netexec = start()
        limit = len(netexec_descriptors(netexec)) + 4
        resource.prlimit(netexec.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        clients = [netexec.connect() for _ in range(8)]
        try:
            for client in clients:
                client.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
            answers = [read_all(client) for client in clients]
        finally:
            for client in clients:
                client.close()

        assert all(answer.endswith(HOSTNAME) for answer in answers)


def netexec_descriptors(netexec: Netexec) -> list[str]:
    """Return the open file descriptors of the server."""
    listed = subprocess.run(
        ["ls", f"/proc/{netexec.process.pid}/fd"], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


class TestTimeouts:
    """--idle-timeout, which agnhost does not have."""

    def test_idle_connections_are_closed(self, start: StartNetexec) -> None:
        """Without a request, or between two, the connection just ends."""
        netexec = start("--idle-timeout=100ms")
        with netexec.connect() as fresh, netexec.connect() as used:
            used.sendall(b"GET /hostname HTTP/1.1\r\nHost: x\r\n\r\n")
            assert receive_response(used)[1] == HOSTNAME

            assert fresh.recv(1) == b""
            assert used.recv(1) == b""

    def test_half_a_request_is_answered(self, start: StartNetexec) -> None:
        """Whoever began a request is told."""
        netexec = start("--idle-timeout=100ms")
        with netexec.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\n")

            assert read_all(client).startswith(b"HTTP/1.1 408 Request Timeout\r\n")

    def test_running_command_is_not_idle(self, start: StartNetexec) -> None:
        """A command may take longer than the timeout."""
        netexec = start("--idle-timeout=50ms")

        assert netexec.get("/shell?cmd=sleep+0.2%3Becho+x").body == '{"output":"x\\n"}'


def test_ipv4_only_kernel(start: StartNetexec, programs: Programs) -> None:
    """Without IPv6 it listens on IPv4 addresses."""
    netexec = start(
        environment={
            "LD_PRELOAD": str(programs.failing_calls),
            "FAIL_FAMILY": str(int(socket.AF_INET6)),
            "ASAN_OPTIONS": "verify_asan_link_order=0",
        }
    )

    assert netexec.get("/clientip").body.startswith("127.0.0.1:")
    assert netexec.udp(b"clientip").startswith("127.0.0.1:")
