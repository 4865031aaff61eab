"""netexec's reading of requests: bodies, limits, and what makes no sense."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.images.netexec_client import read_all, receive_response

if TYPE_CHECKING:
    from tests.images.netexec_client import Netexec

HOSTNAME = socket.gethostname().encode()


class TestBodies:
    """Lengths, chunks, Expect."""

    @pytest.mark.parametrize(
        "body",
        [
            b"5\r\nmsg=a\r\n3;x=y\r\n+b+\r\n0\r\nTrailer: x\r\n\r\n",
            b"8\r\nmsg=a+b+\r\n0\r\n\r\n",
            b"00008\r\nmsg=a+b+\r\n000\r\n\r\n",
        ],
    )
    def test_chunked(self, server: Netexec, body: bytes) -> None:
        """A chunked body is put together, and the next request is found behind it."""
        head = (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n\r\n"
        )
        with server.connect() as client:
            client.sendall(head)
            for byte in body:
                client.sendall(bytes([byte]))
            assert receive_response(client)[1] == b"a b "
            client.sendall(b"GET /hostname HTTP/1.1\r\nHost: x\r\n\r\n")
            assert receive_response(client)[1] == HOSTNAME

    @pytest.mark.parametrize(
        "body", [b"x\r\n", b"-1\r\n", b"\r\n", b"5\r\nabcdefgh\r\n", b"f" * 300, b"f" * 20 + b"\n"]
    )
    def test_malformed_chunks(self, server: Netexec, body: bytes) -> None:
        """Chunks that make no sense are refused."""
        answer = server.raw(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        )

        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")

    def test_expect_continue(self, server: Netexec) -> None:
        """A client that waits for permission gets it, once."""
        with server.connect() as client:
            client.sendall(
                b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n"
                b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
            )
            assert receive_response(client) == (b"HTTP/1.1 100 Continue\r\n\r\n", b"")
            client.sendall(b"msg")
            client.sendall(b"=x")
            assert receive_response(client)[1] == b"x"

    def test_body_of_8_mib_is_the_limit(self, server: Netexec) -> None:
        """A longer body is refused before it is sent; the sender can read why."""
        for framing in (b"Content-Length: 8388609", b"Content-Length: 99999999999999999999999"):
            with server.connect() as client:
                client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % framing)
                client.sendall(b"x" * 100_000)
                answer = read_all(client)

            assert answer.startswith(b"HTTP/1.1 413 Request Entity Too Large\r\n")
            assert b"\r\nConnection: close\r\n" in answer

    def test_chunked_body_has_the_same_limit(self, server: Netexec) -> None:
        """Its length shows only on the way."""
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        with server.connect() as client:
            client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(9):
                client.sendall(chunk)

            assert read_all(client).startswith(b"HTTP/1.1 413 ")


class TestRefusals:
    """Requests that are wrong."""

    @pytest.mark.parametrize(
        ("request_bytes", "status", "body"),
        [
            (b"\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
            (b"GET\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
            (b"GET /\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
            (b"GET  HTTP/1.1\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
            (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
            (b"GET / HTTP/x.y\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
            (b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
            (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
            (b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
            (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
            (
                b"GET / HTTP/1.1\r\n\r\n",
                b"400 Bad Request",
                b"400 Bad Request: missing required Host header",
            ),
            (
                b"GET / HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n",
                b"400 Bad Request",
                b"400 Bad Request: too many Host headers",
            ),
            (
                b"GET / HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n",
                b"400 Bad Request",
                b"400 Bad Request: invalid header value",
            ),
            (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
            (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", b"400 Bad Request", None),
            (b"GET / HTTP/1.1\r\nHost: x\r\nnothing\r\n\r\n", b"400 Bad Request", None),
            (
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                b"400 Bad Request",
                None,
            ),
            (
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                b"400 Bad Request",
                None,
            ),
            (
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
                b"400 Bad Request",
                None,
            ),
            (
                b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
                b"501 Not Implemented",
                b"501 Not Implemented: Unsupported transfer encoding",
            ),
            (
                b"POST / HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\n\r\n",
                b"417 Expectation Failed",
                b"417 Expectation Failed",
            ),
            (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"505 HTTP Version Not Supported",
                b"505 HTTP Version Not Supported: unsupported protocol version",
            ),
            (
                b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 128 + b"\r\n",
                b"431 Request Header Fields Too Large",
                None,
            ),
            (
                b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                b"431 Request Header Fields Too Large",
                None,
            ),
            (b"x" * 70_000, b"431 Request Header Fields Too Large", None),
            (
                b"GET /echo?" + b"a=b&" * 129 + b" HTTP/1.0\r\n\r\n",
                b"400 Bad Request",
                b"400 Bad Request: too many query fields",
            ),
        ],
    )
    def test_status_and_reason(
        self, server: Netexec, request_bytes: bytes, status: bytes, body: bytes | None
    ) -> None:
        """The refusal names its reason and ends the connection."""
        with server.connect() as client:
            client.sendall(request_bytes)
            answer = read_all(client)

        assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        assert body is None or answer.endswith(b"\r\n\r\n" + body)

    def test_options_of_the_server(self, server: Netexec) -> None:
        """OPTIONS * is answered, with nothing."""
        answer = server.raw(b"OPTIONS * HTTP/1.0\r\n\r\n")

        assert answer.startswith(b"HTTP/1.0 200 OK\r\n")

    @pytest.mark.parametrize("beginning", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\n"])
    def test_incomplete_request_and_close(self, server: Netexec, beginning: bytes) -> None:
        """A client that leaves halfway gets no answer."""
        assert server.raw(beginning) == b""

    def test_client_resets(self, server: Netexec) -> None:
        """A connection that is reset at any stage does not harm the server."""
        reset_on_close = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        for stage in (b"", b"GET /", b"GET /shell?cmd=sleep+0.1 HTTP/1.0\r\n\r\n"):
            client = server.connect()
            client.sendall(stage)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_on_close)
            client.close()

        assert server.get("/hostname").status == 200
