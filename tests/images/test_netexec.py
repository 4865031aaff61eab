"""netexec's endpoints that answer at once: the bodies and statuses of agnhost's netexec."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import pytest

from tests.images.netexec_client import FORM, multipart

if TYPE_CHECKING:
    from tests.images.netexec_client import Netexec, StartNetexec


class TestRoot:
    """/ and everything unknown."""

    @pytest.mark.parametrize("path", ["/", "/unknown/path", "/clientip/", "/?a=b"])
    def test_tells_the_time_in_go_notation(self, server: Netexec, path: str) -> None:
        """Any path without an endpoint answers like /."""
        response = server.get(path)

        assert response.status == 200
        assert re.fullmatch(
            r"NOW: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,9})? [+-]\d{4} \S+ m=\+\d+\.\d{9}",
            response.body,
        )

    def test_logs_the_request(self, start: StartNetexec) -> None:
        """One line per request goes to stdout."""
        netexec = start()
        netexec.get("/clientip")

        netexec.wait_for_log("GET /clientip")


class TestClientIp:
    """/clientip."""

    def test_ipv4_is_plain(self, server: Netexec) -> None:
        """An IPv4 client is printed as such although the listener is dual-stack."""
        with server.connect() as client:
            client.sendall(b"GET /clientip HTTP/1.0\r\n\r\n")
            body = client.recv(4096).split(b"\r\n\r\n")[1].decode()

            assert body == "{}:{}".format(*client.getsockname())

    def test_ipv6_is_bracketed(self, server: Netexec) -> None:
        """An IPv6 client is printed in brackets."""
        try:
            client = socket.create_connection(("::1", server.http_port), timeout=10)
        except OSError as error:
            pytest.skip(f"needs IPv6 on the loopback device: {error}")
        with client:
            client.sendall(b"GET /clientip HTTP/1.0\r\n\r\n")
            body = client.recv(4096).split(b"\r\n\r\n")[1].decode()

            assert body == f"[::1]:{client.getsockname()[1]}"


class TestIdentity:
    """/hostname, /healthz, /readyz, /header."""

    @pytest.mark.parametrize("path", ["/hostname", "/hostName", "/host%6eame"])
    def test_hostname(self, server: Netexec, path: str) -> None:
        """Both spellings answer with the host's name and nothing else."""
        response = server.get(path)

        assert (response.status, response.body) == (200, socket.gethostname())

    def test_healthy_with_udp(self, server: Netexec) -> None:
        """/healthz is 200 with an empty body once the UDP server runs, /readyz says ok."""
        assert (server.get("/healthz").status, server.get("/healthz").body) == (200, "")
        assert (server.get("/readyz").status, server.get("/readyz").body) == (200, "ok")

    def test_unhealthy_without_datagram_server(self, start: StartNetexec) -> None:
        """Without UDP and SCTP both are 412, as in agnhost."""
        netexec = start("--udp-port=-1")

        assert netexec.get("/healthz").status == 412
        assert netexec.get("/readyz").status == 412

    def test_one_header(self, server: Netexec) -> None:
        """/header?key= finds a header whatever the case of its name; the first one counts."""
        headers = {"X-Forwarded-For": "192.0.2.1, 10.0.0.1"}

        assert (
            server.get("/header?key=x-FORWARDED-for", headers=headers).body
            == headers["X-Forwarded-For"]
        )
        assert server.get("/header?key=missing").body == ""
        assert server.get("/header?key=host").body == ""

    def test_all_headers(self, server: Netexec) -> None:
        """/header gives all as JSON: canonical sorted names, lists of values, without Host."""
        request = (
            b"GET /header HTTP/1.1\r\nHost: a\r\nx-b: 2\r\nACCEPT: */*\r\nX-B: <1>\r\n"
            b"Connection: close\r\n\r\n"
        )

        body = server.raw(request).split(b"\r\n\r\n")[1]

        assert body == (b'{"Accept":["*/*"],"Connection":["close"],"X-B":["2","\\u003c1\\u003e"]}')


class TestEcho:
    """/echo."""

    @pytest.mark.parametrize("msg", ["hello", "a b+c&d=é%", "<tag>", "%00\n"])
    def test_returns_the_message(self, server: Netexec, msg: str) -> None:
        """The decoded message comes back byte for byte."""
        response = server.get("/echo?" + urlencode({"msg": msg}))

        assert (response.status, response.body.encode("utf-8", "surrogateescape")) == (
            200,
            msg.encode(),
        )

    @pytest.mark.parametrize(
        ("code", "body"), [(200, "x"), (404, "x"), (503, "x"), (299, "x"), (204, ""), (304, "")]
    )
    def test_status(self, server: Netexec, code: int, body: str) -> None:
        """The status is the one asked for; 204 and 304 have no body."""
        response = server.get(f"/echo?msg=x&code={code}")

        assert (response.status, response.body) == (code, body)

    @pytest.mark.parametrize(
        ("code", "quoted"), [("abc", '"abc"'), ("1%22%0a", r'"1\"\n"'), ("1e3", '"1e3"')]
    )
    def test_status_that_is_no_number(self, server: Netexec, code: str, quoted: str) -> None:
        """A code that is no integer is complained about, with status 200 as in agnhost."""
        response = server.get(f"/echo?msg=x&code={code}")

        assert (response.status, response.body) == (
            200,
            f"argument 'code' must be an integer or empty, got {quoted}\n",
        )

    @pytest.mark.parametrize("code", [0, 42, -1, 1000, 99999])
    def test_status_that_is_none(self, server: Netexec, code: int) -> None:
        """A number that cannot be a status closes the connection: Go panics there."""
        assert server.raw(b"GET /echo?code=%d HTTP/1.0\r\n\r\n" % code) == b""

    def test_informational_status_precedes_the_answer(self, server: Netexec) -> None:
        """A 1xx code is sent first and followed by 200."""
        answer = server.raw(b"GET /echo?msg=x&code=103 HTTP/1.0\r\n\r\n")

        assert answer.startswith(b"HTTP/1.0 103 Early Hints\r\n\r\nHTTP/1.0 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nx")

    def test_form_wins_over_query(self, server: Netexec) -> None:
        """Fields of a posted form come before those of the query; multipart fields after."""
        posted = server.get("/echo?msg=query", method="POST", body=b"msg=a+form", headers=FORM)
        body, content_type = multipart("msg", b"a part")
        headers = {"Content-Type": content_type}
        both = server.get("/echo?msg=query", method="POST", body=body, headers=headers)
        part = server.get("/echo", method="POST", body=body, headers=headers)

        assert [posted.body, both.body, part.body] == ["a form", "query", "a part"]

    @pytest.mark.parametrize("query", ["msg=%zz", "msg=%2", "msg=a;b", "", "&&=&msg", "Msg=x"])
    def test_broken_fields_are_ignored(self, server: Netexec, query: str) -> None:
        """A field with a broken escape or a semicolon does not count."""
        response = server.get(f"/echo?{query}")

        assert (response.status, response.body) == (200, "")


class TestRedirect:
    """/redirect, and paths that are not clean."""

    @pytest.mark.parametrize(
        ("location", "header"),
        [
            ("/echo?msg=foobar", "/echo?msg=foobar"),
            ("echo", "/echo"),
            ("", "/"),
            ("/a/../b//c/", "/b/c/"),
            ("http://192.0.2.1:81/x/../y", "http://192.0.2.1:81/x/../y"),
            ("//192.0.2.1/x", "//192.0.2.1/x"),
            ("/é", "/%c3%a9"),
            ("/x\r\nSet-Cookie: y", "/x  Set-Cookie: y"),
        ],
    )
    def test_location(self, server: Netexec, location: str, header: str) -> None:
        """The default is 302; relative places are resolved as Go resolves them."""
        response = server.get(f"/redirect?location={quote(location)}")

        assert response.status == 302
        assert response.headers["Location"] == header
        assert "Set-Cookie" not in response.headers

    def test_body_is_escaped(self, server: Netexec) -> None:
        """The little page that comes with it is Go's."""
        response = server.get("/redirect?location=/%3Ca%26%22%27%3E&code=307")

        assert response.status == 307
        assert response.body == ('<a href="/&lt;a&amp;&#34;&#39;&gt;">Temporary Redirect</a>.\n\n')

    def test_only_get_has_a_body(self, server: Netexec) -> None:
        """Other methods get the header only."""
        assert server.get("/redirect?location=/x", method="POST").body == ""

    def test_bad_code(self, server: Netexec) -> None:
        """A code that is no integer is complained about."""
        assert server.get("/redirect?location=/&code=x").body == (
            "argument 'code' must be an integer or empty, got \"x\"\n"
        )

    @pytest.mark.parametrize(
        ("path", "clean"), [("//hostname?a=%20", "/hostname?a=%20"), ("/x/%2e%2e/hostname", None)]
    )
    def test_unclean_path(self, server: Netexec, path: str, clean: str | None) -> None:
        """Like Go's ServeMux, an unclean path is redirected to the clean one."""
        response = server.get(path)

        assert (response.status, response.headers["Location"]) == (301, clean or "/hostname")
