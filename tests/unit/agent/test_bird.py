"""BIRD's control protocol, as BIRD 2.0.12 speaks it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.agent import bird

ANSWER = """\
2002-Name       Proto      Table      State  Since         Info
1002-kernel1    Kernel     master4    up     06:50:50.227  
 Mesh_172_30_0_3 BGP        ---        up     06:51:10.493  Established   
 Mesh_172_30_0_4 BGP        ---        start  06:51:10.493  Connect       Socket: Connection refused
 static1    Static     master4    up     06:50:50.227  
0000 
"""  # noqa: W291


def test_bgp_rows() -> None:
    """Name, state and info; other protocols are left out."""
    assert bird.parse(ANSWER) == [
        {"name": "Mesh_172_30_0_3", "state": "up", "info": "Established"},
        {
            "name": "Mesh_172_30_0_4",
            "state": "start",
            "info": "Connect Socket: Connection refused",
        },
    ]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A control socket that gives one answer to each question."""
    path = str(tmp_path / "bird.ctl")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()

    def serve() -> None:
        while True:
            try:
                control, _ = server.accept()
            except OSError:
                return
            with control:
                control.sendall(b"0001 BIRD 2.0.12 ready.\n")
                assert control.recv(100) == b"show protocols\n"
                control.sendall(ANSWER.encode())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield path
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def test_sessions_are_read_from_the_socket(served: str) -> None:
    """The welcome line first, then the answer."""
    assert [each["name"] for each in bird.sessions(served)] == [
        "Mesh_172_30_0_3",
        "Mesh_172_30_0_4",
    ]


def test_no_bird_has_no_sessions(tmp_path: Path) -> None:
    """It does not run, or not yet."""
    assert bird.sessions(str(tmp_path / "nothing")) == []


def test_waiting_ends_when_what_is_wanted_is_established(served: str) -> None:
    """At once for the one, at the deadline for the other."""
    began = time.monotonic()
    assert bird.established(["Mesh_172_30_0_3"], 5.0, served)
    assert time.monotonic() - began < 2.0
    found = bird.established(["Mesh_"], 0.05, served)
    assert len(found) == 2
