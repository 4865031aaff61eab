"""Talking to a command while it runs, against an engine of two sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any, cast

import pytest

from testbed.errors import NodeError
from testbed.node.session import Session


class Engine:
    """The part of the Docker client that an exec needs; the other end of its stream is ours."""

    def __init__(self, code: int | None = 0) -> None:
        self.api = self
        self.code = code
        self.ours, self.theirs = socket.socketpair()
        self.argv: list[str] = []

    def exec_create(self, container: str, argv: list[str], *, stdin: bool) -> dict[str, str]:
        """Remember what is run."""
        assert (container, stdin) == ("box-node1", True)
        self.argv = argv
        return {"Id": "exec"}

    def exec_start(self, identity: str, *, socket: bool) -> Any:
        """Its stream."""
        assert (identity, socket) == ("exec", True)
        return self.theirs

    def exec_inspect(self, identity: str) -> dict[str, Any]:
        """Its exit code."""
        assert identity == "exec"
        return {"ExitCode": self.code}

    def prints(self, text: bytes, which: int = 1) -> None:
        """The command prints something."""
        self.ours.sendall(struct.pack(">BxxxL", which, len(text)) + text)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine whose sockets are closed at the end."""
    found = Engine()
    yield found
    found.ours.close()
    found.theirs.close()


def session(engine: Engine) -> Session:
    """An exec on it."""
    return Session(cast(Any, engine), "box-node1", ["testbed-agent", "trace", "inline:{}"])


def test_question_and_answer(engine: Engine) -> None:
    """Lines are put together from whatever pieces come; what follows is kept."""
    with session(engine) as talk:
        talk.send("hello")
        assert engine.ours.recv(100) == b"hello\n"
        engine.prints(b"first li")
        engine.prints(b"some complaint", which=2)
        engine.prints(b"ne\nsecond line\nrest")
        assert talk.line(1) == b"first line"
        assert talk.line(1) == b"second line"
        assert talk.errors == "some complaint"
        engine.ours.shutdown(socket.SHUT_WR)
        assert list(talk.chunks()) == [b"rest"]
        assert talk.finish(1) == 0
    assert engine.argv[:2] == ["testbed-agent", "trace"]


def test_leaving_hangs_up(engine: Engine) -> None:
    """So the command's input ends with the block."""
    with session(engine):
        pass
    assert engine.ours.recv(100) == b""


def test_no_answer_in_time(engine: Engine) -> None:
    """The message names the command by its first words only."""
    with (
        session(engine) as talk,
        pytest.raises(NodeError, match=r"^`testbed-agent trace` on box-node1 did not answer"),
    ):
        talk.line(0.02)


def test_a_command_that_ends_before_it_answers(engine: Engine) -> None:
    """Its own words are the reason."""
    with session(engine) as talk:
        engine.prints(b"no such device", which=2)
        engine.ours.shutdown(socket.SHUT_WR)
        with pytest.raises(NodeError, match="ended: no such device"):
            talk.line(1)


def test_a_node_that_stops(engine: Engine) -> None:
    """There is no exit code then."""
    engine.code = None
    with session(engine) as talk:
        engine.ours.shutdown(socket.SHUT_RDWR)
        with pytest.raises(NodeError, match="the node stopped"):
            talk.finish(1)
        with pytest.raises(NodeError, match="cannot be told"):
            talk.send("x" * 1_000_000)


def test_a_command_that_does_not_end(engine: Engine) -> None:
    """It is hung up on."""
    with session(engine) as talk, pytest.raises(NodeError, match="did not end within"):
        talk.finish(0.02)
