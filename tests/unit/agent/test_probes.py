"""Probes over loopback, and the checksum they carry."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.agent import mesh, probes
from testbed.agent.capture import frames


@pytest.fixture
def server() -> Iterator[int]:
    """An HTTP server that answers ``/clientip`` once per connection; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def serve() -> None:
            with listener.accept()[0] as peer:
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n127.0.0.1:4242")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


def run(*wanted: dict[str, Any], timeout: float = 3.0) -> dict[int, dict[str, Any]]:
    """Run probes from this machine's own namespace."""
    request = {"marker": "t", "timeout": timeout, "probes": list(wanted), "capture": None}
    return {result["id"]: result for result in mesh.run(request, {})["results"]}


def test_checksum_of_rfc_1071() -> None:
    """The RFC's own example, and an odd length."""
    assert probes.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    assert probes.checksum(b"\x01") == 0xFEFF


def test_payloads_do_not_contain_each_other() -> None:
    """Probe 1 is not found in the payload of probe 11."""
    assert probes.payload("m", 1) not in probes.payload("m", 11)


def test_tcp_probe_reads_the_source_that_the_target_saw(server: int) -> None:
    """The port is cut off."""
    probe = {"id": 1, "source": "", "protocol": "tcp", "ip": "127.0.0.1", "port": server}
    assert run(probe)[1]["seen_as"] == "127.0.0.1"


def test_refused_connection_is_a_failure() -> None:
    """Nobody listens on a port that was just closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    probe = {"id": 1, "source": "", "protocol": "tcp", "ip": "127.0.0.1", "port": port}
    assert run(probe, timeout=0.2)[1]["error"] == "Connection refused"


def test_a_listener_that_comes_late_is_waited_for() -> None:
    """A container that has just started may not listen yet."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = b"HTTP/1.1 200 OK\r\n\r\n127.0.0.1:1"

    def serve() -> None:
        time.sleep(0.1)
        with socket.create_server(("127.0.0.1", port)) as late, late.accept()[0] as peer:
            peer.recv(4096)
            peer.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    probe = {"id": 1, "source": "", "protocol": "tcp", "ip": "127.0.0.1", "port": port}
    assert run(probe)[1]["ok"]


def test_unknown_source_is_a_failure() -> None:
    """A pod that is not on this node cannot send."""
    probe = {"id": 7, "source": "default/x", "protocol": "icmp", "ip": "127.0.0.1", "port": 0}
    assert run(probe)[7]["error"] == "the source pod does not run on this node"


def test_silence_is_a_failure_when_time_is_up() -> None:
    """A listener that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        probe = {"id": 1, "source": "", "protocol": "tcp", "ip": "127.0.0.1", "port": port}
        assert run(probe, timeout=0.2)[1]["error"] == "connected, but no answer came"


def test_frames_of_a_pcap_that_is_still_written() -> None:
    """A record that is not complete yet is left for later."""
    header = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    record = struct.pack("=IIII", 1, 2, 3, 3) + b"abc"
    assert frames(header + record + record[:-1]) == [b"abc"]
