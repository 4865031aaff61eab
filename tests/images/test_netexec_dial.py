"""netexec's /dial: requests to another pod, over HTTP, UDP and SCTP."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from tests.images.netexec_client import free_port, read_all

if TYPE_CHECKING:
    from tests.images.netexec_client import Netexec, StartNetexec

HOSTNAME = socket.gethostname()
IMPATIENT = {"DIAL_TIMEOUT": "50"}


def dial(
    server: Netexec, *, port: int | str, request: str, host: str = "127.0.0.1", **query: str | int
) -> dict[str, list[str]]:
    """Let the server dial; return what it reports."""
    query |= {"host": host, "port": port, "request": request}
    response = server.get(f"/dial?{urlencode(query)}")
    assert response.status == 200, response.body
    report: dict[str, list[str]] = json.loads(response.body)
    return report


@contextlib.contextmanager
def peer(*answers: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Answer one connection after the other with the given bytes; yields port and requests."""
    requests: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                requests.append(connection.recv(65536))
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve, args=[listener])
        thread.start()
        try:
            yield listener.getsockname()[1], requests
        finally:
            thread.join()


class TestProtocols:
    """What can be dialed."""

    @pytest.mark.parametrize("query", [{}, {"protocol": "http"}, {"protocol": "HTTP"}])
    def test_http(self, server: Netexec, query: dict[str, str]) -> None:
        """HTTP is the default; the body is the response whatever the status."""
        assert dial(server, port=server.http_port, request="hostname", **query) == {
            "responses": [HOSTNAME]
        }
        assert dial(server, port=server.http_port, request="echo?msg=a b&code=500", **query) == {
            "responses": ["a b"]
        }

    @pytest.mark.parametrize(
        ("request_text", "response"), [("hostname", HOSTNAME), ("echo Hello", "hello")]
    )
    def test_udp(self, server: Netexec, request_text: str, response: str) -> None:
        """UDP sends the request as a datagram."""
        report = dial(server, port=server.udp_port, request=request_text, protocol="udp")

        assert report == {"responses": [response]}

    def test_sctp(self, server: Netexec) -> None:
        """SCTP sends the request over an association (here compiled to be TCP)."""
        report = dial(server, port=server.sctp_port, request="hostname", protocol="sctp")

        assert report == {"responses": [HOSTNAME]}

    def test_tries(self, server: Netexec) -> None:
        """Every try is a connection of its own."""
        report = dial(server, port=server.http_port, request="clientip", tries=5)

        assert len(set(report["responses"])) == 5
        assert dial(server, port=server.http_port, request="clientip", tries=0) == {}

    def test_name(self, server: Netexec) -> None:
        """A name is resolved, IPv4 first."""
        report = dial(server, host="localhost", port=server.udp_port, request="clientip",
                      protocol="udp")  # fmt: skip

        assert report["responses"][0].startswith("127.0.0.1:")

    def test_ipv6(self, server: Netexec) -> None:
        """An IPv6 address needs no brackets."""
        with socket.socket(socket.AF_INET6) as probe:
            if probe.connect_ex(("::1", server.http_port)) != 0:
                pytest.skip("needs IPv6 on the loopback device")
        report = dial(server, host="::1", port=server.http_port, request="clientip")

        assert report["responses"][0].startswith("[::1]:")

    def test_does_not_block_the_server(self, server: Netexec) -> None:
        """The server dials itself, through a server that dials itself."""
        inner = urlencode(
            {"host": "127.0.0.1", "port": server.http_port, "request": "echo?msg=inner"}
        )

        report = dial(server, port=server.http_port, request=f"dial?{inner}")

        assert report == {"responses": ['{"responses":["inner"]}']}


class TestFailures:
    """Tries that bring nothing, in Go's words."""

    def test_http_refused(self, server: Netexec) -> None:
        """A refused connection is an error that names the URL."""
        port = free_port()
        report = dial(server, port=port, request="hostname", tries=2)

        assert report == {
            "errors": [
                f'Get "http://127.0.0.1:{port}/hostname": dial tcp 127.0.0.1:{port}: '
                "connect: connection refused"
            ]
            * 2
        }

    def test_udp_refused(self, server: Netexec) -> None:
        """An ICMP error ends the try at once."""
        port = free_port()
        (error,) = dial(server, port=port, request="hostname", protocol="udp")["errors"]

        assert re.fullmatch(
            rf"reading from udp connection failed\. err:'read udp 127\.0\.0\.1:\d+->"
            rf"127\.0\.0\.1:{port}: read: connection refused'",
            error,
        )

    def test_udp_timeout(self, start: StartNetexec) -> None:
        """Without an answer a try ends after its timeout, and the next one begins."""
        server = start(environment=IMPATIENT)
        begun = time.monotonic()
        report = dial(server, port=server.udp_port, request="unknown", protocol="udp", tries=2)

        assert [error.endswith(": i/o timeout'") for error in report["errors"]] == [True] * 2
        assert 0.1 <= time.monotonic() - begun < 5

    @pytest.mark.parametrize(
        ("beginning", "while_doing"),
        [
            ("", "Client.Timeout exceeded while awaiting headers"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart",
                "Client.Timeout or context cancellation while reading body",
            ),
        ],
    )
    def test_http_timeout(self, start: StartNetexec, beginning: str, while_doing: str) -> None:
        """A peer that accepts and falls silent costs one timeout."""
        server = start(environment=IMPATIENT)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with server.connect() as client:
                query = f"host=127.0.0.1&port={port}&request=x"
                client.sendall(f"GET /dial?{query} HTTP/1.0\r\n\r\n".encode())
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(beginning.encode())
                    answer = read_all(client)

        report = json.loads(answer.split(b"\r\n\r\n")[1])
        assert report == {
            "errors": [
                f'Get "http://127.0.0.1:{port}/x": context deadline exceeded ({while_doing})'
            ]
        }

    def test_sctp_refused(self, server: Netexec) -> None:
        """A refused association is an error."""
        report = dial(server, port=free_port(), request="x", protocol="sctp")

        assert report == {"errors": ["sctp dial failed. err:connection refused"]}

    def test_responses_vanish_when_the_last_try_fails(self, server: Netexec) -> None:
        """Agnhost reports responses only if the last try brought one, and so does this."""
        ok = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
        with peer(ok, b"", ok) as (port, _):
            failed_last = dial(server, port=port, request="x", tries=2)
            assert dial(server, port=port, request="x", tries=1) == {"responses": ["x"]}

        assert failed_last == {"errors": [f'Get "http://127.0.0.1:{port}/x": EOF']}

    @pytest.mark.parametrize(
        ("query", "body"),
        [
            ("port=1", "request parameter not specified. <nil>\n"),
            (
                "request=x&tries=a",
                'tries parameter is invalid. strconv.Atoi: parsing "a": invalid syntax\n',
            ),
            (
                "request=x&tries=99999999999999999999",
                "tries parameter is invalid. strconv.Atoi: parsing "
                '"99999999999999999999": value out of range\n',
            ),
            ("request=x&protocol=icmp", "unsupported protocol. icmp\n"),
            ("request=x&port=80", "host and/or port param are invalid. missing host\n"),
            ("request=x&host=::1", "host and/or port param are invalid. missing port\n"),
        ],
    )
    def test_invalid_parameters(self, server: Netexec, query: str, body: str) -> None:
        """What cannot be dialed is status 400 with the reason."""
        response = server.get(f"/dial?{query}")

        assert (response.status, response.body) == (400, body)

    def test_unresolvable(self, server: Netexec) -> None:
        """A port that is none is status 400 (names are not tried: that would ask a server)."""
        response = server.get("/dial?request=x&host=127.0.0.1&port=nonsense")

        assert response.status == 400
        assert response.body.startswith("host and/or port param are invalid. lookup ")


class TestHttpClient:
    """The HTTP that /dial speaks."""

    def test_request(self, server: Netexec) -> None:
        """It looks like Go's: the request text becomes path and query."""
        with peer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (port, requests):
            report = dial(server, port=port, request="echo?msg=\u00e9 x#fragment")

        assert report == {}
        assert requests == [
            b"GET /echo?msg=%%C3%%A9%%20x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
            b"User-Agent: Go-http-client/1.1\r\n\r\n" % port
        ]

    def test_control_characters_are_refused(self, server: Netexec) -> None:
        """A line end cannot smuggle a header in."""
        report = dial(server, port=1, request="x HTTP/1.1\r\nEvil: yes")

        assert report == {"errors": ["net/url: invalid control character in URL"]}

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbodyrest",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nbody",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\nbody",
        ],
    )
    def test_bodies(self, server: Netexec, answer: bytes) -> None:
        """Every way to delimit a body is understood."""
        with peer(answer) as (port, _):
            assert dial(server, port=port, request="x") == {"responses": ["body"]}

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (b"", "EOF"),
            (b"HTTP/1.1 200 OK\r\n", "unexpected EOF"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody", "unexpected EOF"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "malformed HTTP response"),
            (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "malformed HTTP response"),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
                "malformed HTTP response",
            ),
            (b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 2_500_000, "response is larger than 2 MiB"),
        ],
    )
    def test_broken_answers(self, server: Netexec, answer: bytes, reason: str) -> None:
        """An answer that is not whole is an error."""
        with peer(answer) as (port, _):
            report = dial(server, port=port, request="x")

        assert report == {"errors": [f'Get "http://127.0.0.1:{port}/x": {reason}']}

    def test_redirects_are_followed(self, server: Netexec) -> None:
        """To another path and to another place."""
        there = f"http://127.0.0.1:{server.http_port}/redirect?location=/echo%3Fmsg=there"
        with peer(
            b"HTTP/1.1 302 Found\r\nLocation: /next?a=b\r\nContent-Length: 0\r\n\r\n",
            f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {there}\r\n\r\n".encode(),
        ) as (port, requests):
            report = dial(server, port=port, request="first")

        assert report == {"responses": ["there"]}
        assert [request.split(b" ")[1] for request in requests] == [b"/first", b"/next?a=b"]

    def test_slash_in_front_works_by_redirect(self, server: Netexec) -> None:
        """The common request=/hostname asks for //hostname, which is redirected."""
        assert dial(server, port=server.http_port, request="/hostname") == {"responses": [HOSTNAME]}

    def test_endless_redirects(self, start: StartNetexec) -> None:
        """Ten redirects are enough."""
        netexec = start("--http-override=/redirect?location=/again")
        server = start()

        (error,) = dial(server, port=netexec.http_port, request="x")["errors"]

        assert error.endswith(": stopped after 10 redirects")

    @pytest.mark.parametrize("location", ["https://127.0.0.1/", "relative", "ftp://x/"])
    def test_unsupported_redirects(self, server: Netexec, location: str) -> None:
        """What cannot be followed is said."""
        answer = f"HTTP/1.1 301 Moved\r\nLocation: {location}\r\n\r\n"
        with peer(answer.encode()) as (port, _):
            report = dial(server, port=port, request="x")

        assert report == {"errors": [f'unsupported redirect to "{location}"']}
