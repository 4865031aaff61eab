"""Starts netexec and talks to it over loopback, as the tests' client."""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DEADLINE = 10.0
"""Seconds after which a test gives up waiting for a program."""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def free_port() -> int:
    """Return a port that was free a moment ago, for TCP and for UDP."""
    while True:
        with (
            socket.create_server(("127.0.0.1", 0)) as stream,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        ):
            port: int = stream.getsockname()[1]
            with contextlib.suppress(OSError):
                datagram.bind(("127.0.0.1", port))
                return port


@dataclass
class Response:
    """What came back over HTTP."""

    status: int
    body: str
    headers: dict[str, str]


@dataclass
class Netexec:
    """A running netexec."""

    process: subprocess.Popen[bytes]
    http_port: int
    udp_port: int
    sctp_port: int
    _log: bytes = field(default=b"", init=False)

    def get(
        self,
        target: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request(method, target, body=body, headers=headers or {})
            response = connection.getresponse()
            text = response.read().decode("utf-8", "surrogateescape")
            return Response(response.status, text, dict(response.getheaders()))

    def connect(self) -> socket.socket:
        """Open a TCP connection to the HTTP server."""
        return socket.create_connection(("127.0.0.1", self.http_port), timeout=DEADLINE)

    def raw(self, request: bytes) -> bytes:
        """Send bytes, close our direction, and read until the server closes its own."""
        with self.connect() as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

    def udp(self, datagram: bytes) -> str:
        """Send a datagram and return the answer."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(DEADLINE)
            client.connect(("127.0.0.1", self.udp_port))
            client.send(datagram)
            return client.recv(4096).decode()

    def wait_for_log(self, line: str) -> None:
        """Return once the line was logged."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + DEADLINE
        while f"{line}\n".encode() not in self._log:
            readable, _, _ = select.select(
                [self.process.stdout], [], [], max(0.0, deadline - time.monotonic())
            )
            part = os.read(self.process.stdout.fileno(), 65536) if readable else b""
            assert part, f"{line!r} was not logged, but: {self._log.decode()}"
            self._log += part

    def wait(self) -> int:
        """Return the exit status."""
        return self.process.wait(DEADLINE)

    def stop(self) -> None:
        """End it if it still runs, and fail if a sanitizer or anything else complained."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
        complaints = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        assert not complaints, complaints.decode()


def multipart(name: str, content: bytes, filename: str | None = None) -> tuple[bytes, str]:
    """Return a multipart body with one part, and its content type."""
    disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    head = f"--XyZ\r\nContent-Disposition: {disposition}\r\nContent-Type: text/plain\r\n\r\n"
    return head.encode() + content + b"\r\n--XyZ--\r\n", "multipart/form-data; boundary=XyZ"


def read_all(connection: socket.socket) -> bytes:
    """Read until the peer closes."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def receive_response(client: socket.socket) -> tuple[bytes, bytes]:
    """Read one response with a length; return its head and its body."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = client.recv(1)
        assert part, f"closed after {received!r}"
        received += part
    fields = dict(line.split(b": ", 1) for line in received.split(b"\r\n")[1:] if line)
    length = int(fields.get(b"Content-Length", b"0"))
    body = b""
    while len(body) < length:
        body += client.recv(length - len(body))
    return received, body


def run_netexec(program: Path, *flags: str, environment: dict[str, str] | None = None) -> Netexec:
    """Start netexec on free ports and return once it serves."""
    for _ in range(5):
        http_port, udp_port, sctp_port = free_port(), free_port(), free_port()
        ports = [f"--http-port={http_port}"]
        if not any(flag.startswith("--udp-port") for flag in flags):
            ports.append(f"--udp-port={udp_port}")
        chosen = [flag.replace("SCTP_PORT", str(sctp_port)) for flag in flags]
        process = subprocess.Popen(
            [program, "netexec", *ports, *chosen],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"DIAL_TIMEOUT": "5000"} | (environment or {}),
        )
        netexec = Netexec(process, http_port, udp_port, sctp_port)
        try:
            netexec.wait_for_log(f"Started HTTP server on port {http_port}")
        except AssertionError:
            process.wait(DEADLINE)
            _, errors = process.communicate()
            if b"address already in use" in errors:
                continue  # somebody took the port meanwhile
            raise
        return netexec
    raise AssertionError("found no free port")


StartNetexec = Callable[..., Netexec]
"""What the fixture `start` returns: takes flags, returns the running netexec."""
