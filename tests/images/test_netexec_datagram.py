"""netexec's UDP and SCTP servers."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.images.netexec_client import Netexec, StartNetexec


class TestUdp:
    """The UDP server."""

    @pytest.mark.parametrize(
        ("datagram", "answer"),
        [
            (b"hostname", socket.gethostname()),
            (b"  HostName\r\n", socket.gethostname()),
            (b"echo Hello World\n", "hello world"),
            (b"ECHO  x", " x"),
        ],
    )
    def test_commands(self, server: Netexec, datagram: bytes, answer: str) -> None:
        """Commands are trimmed and put into lower case, what is echoed too."""
        assert server.udp(datagram) == answer

    def test_client_ip(self, server: Netexec) -> None:
        """Clientip answers with the sender's address, IPv4 as such."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.connect(("127.0.0.1", server.udp_port))
            client.send(b"clientIP")

            assert client.recv(100).decode() == "{}:{}".format(*client.getsockname())

    @pytest.mark.parametrize("silent", [b"", b" \n", b"echo", b"echo ", b"unknown", b"\xff\x00"])
    def test_everything_else_is_not_answered(self, server: Netexec, silent: bytes) -> None:
        """The next command is answered first: nothing came before it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.connect(("127.0.0.1", server.udp_port))
            client.send(silent)
            client.send(b"echo next")

            assert client.recv(100) == b"next"

    def test_long_datagrams_are_cut(self, server: Netexec) -> None:
        """The buffer has 2048 bytes, "echo " among them."""
        assert len(server.udp(b"echo " + b"x" * 5000)) == 2048 - 5

    def test_listens_on_given_addresses_only(self, start: StartNetexec) -> None:
        """--udp-listen-addresses takes a list, with duplicates."""
        netexec = start("--udp-listen-addresses=127.0.0.1,127.0.0.2,127.0.0.1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            for address in ("127.0.0.1", "127.0.0.2"):
                client.sendto(b"echo x", (address, netexec.udp_port))
                assert client.recvfrom(100) == (b"x", (address, netexec.udp_port))
            client.connect(("127.0.0.3", netexec.udp_port))
            client.send(b"echo x")
            with pytest.raises(ConnectionRefusedError):
                client.recv(100)


class TestSctp:
    """The SCTP server, here compiled to speak TCP: the commands are what is tested."""

    @pytest.mark.parametrize(
        ("message", "answer"),
        [(b"HOSTNAME\n", socket.gethostname().encode()), (b"echo A", b"a"), (b"unknown", b"")],
    )
    def test_one_command_and_closed(self, server: Netexec, message: bytes, answer: bytes) -> None:
        """One command is answered, then the association is closed."""
        with socket.create_connection(("127.0.0.1", server.sctp_port), timeout=10) as client:
            client.sendall(message)

            assert client.recv(100) == answer
            assert not answer or client.recv(100) == b""
