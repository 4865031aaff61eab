"""The control socket."""

from __future__ import annotations

import json
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.agent import client
from testbed.agent.control import Server
from testbed.agent.errors import AgentError
from testbed.agent.loop import EventLoop

Reply = Callable[[dict[str, Any]], None]


def handle(request: dict[str, Any], reply: Reply) -> None:
    """Answers with progress, a lot of it, an error or a defect."""
    if request.get("command") == "fail":
        raise AgentError("cannot", "here", "because")
    if request.get("command") == "defect":
        raise KeyError("x")
    for number in range(request.get("lines", 0)):
        reply({"line": number, "text": "x" * 100})
    reply({"ok": True})
    reply({"late": "after the last reply"})


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """A server in a thread of its own."""
    loop = EventLoop()
    where = str(tmp_path / "agent.sock")
    server = Server(loop, handle, where)
    server.listen()
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield where
    loop.post(loop.stop)
    thread.join()
    server.close()
    loop.close()


def test_progress_and_the_last_reply(path: str) -> None:
    """Progress lines come one by one, the reply with ok is the answer."""
    lines: list[dict[str, Any]] = []
    assert client.request({"lines": 3}, lines.append, path) == {"ok": True}
    assert [line["line"] for line in lines] == [0, 1, 2]
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def test_errors_are_answered(path: str) -> None:
    """What, where and why; a defect names its place."""
    reply = client.request({"command": "fail"}, print, path)
    assert reply == {"ok": False, "error": {"what": "cannot", "where": "here", "why": "because"}}
    reply = client.request({"command": "defect"}, print, path)
    assert reply["error"]["why"] == "KeyError: 'x'"
    assert "test_control.py" in reply["error"]["where"]


@pytest.mark.parametrize(
    "request_line", [b"\n", b"{\n", b"[]\n", b"\xff\n", b"[" * 60000 + b"\n"], ids=range(5)
)
def test_malformed_requests_are_answered(path: str, request_line: bytes) -> None:
    """Anything but a JSON object is refused, and the server lives on."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(path)
        raw.sendall(request_line)
        answer = json.loads(raw.makefile().readline())
    assert answer["error"]["what"] == "malformed request"
    assert client.request({}, print, path) == {"ok": True}


@pytest.mark.parametrize("sent", [b"", b"half a line", b"x" * 200_000], ids=range(3))
def test_clients_that_go_or_send_too_much_are_dropped(path: str, sent: bytes) -> None:
    """The connection is closed without an answer, and the server lives on."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(path)
        try:
            raw.sendall(sent)
            raw.shutdown(socket.SHUT_WR)
            assert raw.recv(10) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert client.request({}, print, path) == {"ok": True}


def test_a_client_that_does_not_read_is_dropped(path: str) -> None:
    """Replies are not kept for ever."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(path)
        raw.sendall(b'{"lines": 20000}\n')
        assert client.request({}, print, path) == {"ok": True}


def test_without_an_agent(tmp_path: Path) -> None:
    """The error names the socket."""
    with pytest.raises(AgentError, match="the agent does not answer"):
        client.request({}, print, str(tmp_path / "none.sock"))
