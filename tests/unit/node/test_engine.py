"""Reaching the engine: one ping, the engine's own API version, and messages that say what to do."""

from __future__ import annotations

import errno
import gc
import socketserver
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from requests.exceptions import ConnectionError as RequestsConnectionError
from urllib3.exceptions import ProtocolError

from testbed.errors import MissingCapabilityError
from testbed.node import engine


class FakeEngine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An engine at a Unix socket that answers pings and refuses API versions below its minimum."""

    daemon_threads = True

    def __init__(self, path: Path, version: str, minimum: str = "1.12") -> None:
        self.headers = {"Api-Version": version} if version else {}
        self.minimum = minimum
        self.asked: list[str] = []
        super().__init__(str(path), _Answer)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeEngine

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        refused = self.path.startswith("/v") and self.path < f"/v{self.server.minimum}"
        body = b"client version is too old" if refused else b"OK"
        self.send_response(400 if refused else 200)
        for name, value in {**self.server.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        """Say nothing."""


Start = Callable[..., FakeEngine]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a fake engine and point DOCKER_HOST at it."""
    started: list[FakeEngine] = []

    def start(version: str, minimum: str = "1.12") -> FakeEngine:
        path = tmp_path / "engine.sock"
        server = FakeEngine(path, version, minimum)
        started.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def test_connecting_costs_one_ping(start: Start) -> None:
    """Nothing but an unversioned ping is asked."""
    server = start("1.41")
    engine.connect().close()
    assert server.asked == ["/_ping"]


@pytest.mark.parametrize("version", ["1.41", "1.44", "1.52"])
def test_the_engines_own_api_version_is_spoken(start: Start, version: str) -> None:
    """Old and new engines alike are spoken to in their newest version."""
    server = start(version, minimum="1.41" if version == "1.41" else "1.44")
    client = engine.connect()
    client.ping()
    client.close()
    assert client.api.api_version == version
    assert server.asked[-1] == f"/v{version}/_ping"


def test_an_engine_that_is_too_old_is_refused(start: Start) -> None:
    """API 1.40 is Docker 19.03."""
    start("1.40")
    with pytest.raises(MissingCapabilityError, match=r"speaks API 1\.40, and testbed needs 1\.41"):
        engine.connect()


def test_what_is_no_engine_is_refused(start: Start) -> None:
    """An HTTP server without the engine's header is something else."""
    start("")
    with pytest.raises(MissingCapabilityError, match=r"is not a Docker engine \(HTTP 200: OK\)"):
        engine.connect()


def test_a_local_engine_is_known_by_its_socket(start: Start, tmp_path: Path) -> None:
    """The endpoint is what DOCKER_HOST would say."""
    start("1.41")
    client = engine.connect()
    client.close()
    assert engine.endpoint(client) == f"unix://{tmp_path}/engine.sock"
    assert engine.is_local(client)


def refusal() -> tuple[bool, str]:
    """How ``connect`` fails; the socket that the SDK leaves open is collected here."""
    outcome = (True, "it did not fail")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            engine.connect()
        except engine.NoEngineError as error:
            outcome = (error.startable, str(error))
        gc.collect()
    return outcome


def test_nothing_at_a_socket_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setup does not start an engine that the user chose himself."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    startable, message = refusal()
    assert not startable
    assert message == (
        f"no Docker engine answers at unix://{tmp_path}/none.sock: No such file or directory.\n"
        "Start that engine, or unset DOCKER_HOST to use this machine's own."
    )


@pytest.mark.parametrize("address", ["nonsense://x", "unix", "tcp://"])
def test_a_wrong_address_is_explained(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DOCKER_HOST that cannot be read ends in exit code 3, not in a traceback."""
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(MissingCapabilityError, match="DOCKER_HOST"):
        engine.connect()


def test_missing_certificates_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS is asked for and there is nothing in DOCKER_CERT_PATH."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(MissingCapabilityError, match="DOCKER_CERT_PATH"):
        engine.connect()


def wrapped(error: OSError) -> RequestsConnectionError:
    """An operating system error as requests and urllib3 hand it on."""
    return RequestsConnectionError(ProtocolError("Connection aborted.", error))


def test_the_machines_own_engine_is_startable() -> None:
    """Nothing at the default socket: setup can help."""
    error = wrapped(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
    found = engine.unreachable("unix:///var/run/docker.sock", error)
    assert isinstance(found, engine.NoEngineError)
    assert found.startable
    assert str(found) == (
        "no Docker engine answers at unix:///var/run/docker.sock: Connection refused.\n"
        "Run `testbed setup`: it installs and starts one."
    )


def test_permission_denied_names_the_group() -> None:
    """Who is not in the group docker is told how to get into it, and setup starts nothing."""
    error = wrapped(PermissionError(errno.EACCES, "Permission denied"))
    found = engine.unreachable("unix:///var/run/docker.sock", error)
    assert not isinstance(found, engine.NoEngineError)
    assert found.exit_code == 3
    assert "sudo usermod -aG docker" in str(found)
