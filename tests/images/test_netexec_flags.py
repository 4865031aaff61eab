"""netexec's command line, and ports that cannot be had."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.images.netexec_client import DEADLINE, free_port

if TYPE_CHECKING:
    from tests.images.conftest import Programs
    from tests.images.netexec_client import StartNetexec


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=DEADLINE)


class TestFlags:
    """The command line."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--unknown"], "--unknown: unknown flag"),
            (["--unknown=1"], "--unknown: unknown flag"),
            (["-x"], "-x: unknown flag"),
            (["--http-port"], "--http-port: flag needs an argument"),
            (["--http-port=x"], "--http-port: expected a port, 1 to 65535"),
            (["--http-port="], "--http-port: expected a port, 1 to 65535"),
            (["--http-port", "0"], "--http-port: expected a port, 1 to 65535"),
            (["--http-port", "65536"], "--http-port: expected a port, 1 to 65535"),
            (["--udp-port", "0"], "--udp-port: expected a port, 1 to 65535, or -1 for none"),
            (["--sctp-port=-2"], "--sctp-port: expected a port, 1 to 65535, or -1 for none"),
            (["--delay-shutdown=-1"], "--delay-shutdown: expected seconds, 0 to 86400"),
            (["--udp-listen-addresses=1.2.3"], None),
            (["--udp-listen-addresses=127.0.0.1,"], None),
            (["--udp-listen-addresses=,127.0.0.1"], None),
            (["--udp-listen-addresses", "localhost"], None),
            (["--http-override=echo"], "--http-override: expected a path that starts with a slash"),
            (["--tls-cert-file=/x"], "--tls-cert-file: this netexec has no TLS"),
            (["--tls-private-key-file", "/x"], "--tls-private-key-file: this netexec has no TLS"),
            (["--idle-timeout=1"], "--idle-timeout: expected a duration like 90s or 0"),
            (["extra"], "extra: unexpected argument"),
            (["netexec", "netexec"], "netexec: unexpected argument"),
        ],
    )
    def test_wrong_usage(
        self, programs: Programs, arguments: list[str], message: str | None
    ) -> None:
        """Wrong usage is status 2; stderr says what is wrong and what is right."""
        result = run(programs.netexec, *arguments)

        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith(f"netexec: {message or arguments[0].split('=')[0]}")
        assert "usage: netexec" in result.stderr

    @pytest.mark.parametrize("flag", ["--help", "-h"])
    def test_help(self, programs: Programs, flag: str) -> None:
        """Help goes to stdout and is no error."""
        result = run(programs.netexec, "netexec", flag)

        assert result.returncode == 0
        assert "--http-port" in result.stdout

    def test_value_as_a_word_of_its_own(self, start: StartNetexec) -> None:
        """Both --flag=value and --flag value are understood."""
        netexec = start("--udp-port", "-1", "--tls-cert-file=", "--http-override", "/echo?msg=x")

        assert netexec.get("/").body == "x"

    def test_command_line_stays_visible(self, start: StartNetexec) -> None:
        """Ps and lsns show the command line as it was given."""
        netexec = start("--udp-port=-1")

        line = Path(f"/proc/{netexec.process.pid}/cmdline").read_text()

        assert line.endswith(f"\0netexec\0--http-port={netexec.http_port}\0--udp-port=-1\0")

    def test_http_override(self, start: StartNetexec) -> None:
        """Every request is answered like a bare GET of the path: without client and headers."""
        echo = start("--http-override=/echo?msg=always%20this&code=202")
        header = start("--http-override=/header")

        assert (echo.get("/shutdown").status, echo.get("/exit").body) == (202, "always this")
        assert echo.raw(b"HEAD / HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n")
        assert header.get("/clientip").body == "{}"


class TestPorts:
    """Ports that cannot be had."""

    @pytest.mark.parametrize(
        ("kind", "flags", "message"),
        [
            (socket.SOCK_STREAM, ["--udp-port=-1"], "listen tcp :{port}: bind: address already"),
            (socket.SOCK_DGRAM, [], "listen udp :{port}: bind: address already in use"),
        ],
    )
    def test_in_use(
        self, programs: Programs, kind: socket.SocketKind, flags: list[str], message: str
    ) -> None:
        """A port in use is status 1, and stderr names it."""
        with socket.socket(socket.AF_INET, kind) as owner:
            owner.bind(("0.0.0.0", 0))
            if kind == socket.SOCK_STREAM:
                owner.listen()
            port = owner.getsockname()[1]
            ports = [f"--http-port={port}", f"--udp-port={port}"]
            result = run(programs.netexec, *ports, *flags)

        assert result.returncode == 1
        assert result.stderr.startswith(f"netexec: {message.format(port=port)}")

    def test_foreign_udp_address(self, programs: Programs) -> None:
        """An address that the machine does not have is status 1."""
        ports = [f"--http-port={free_port()}", f"--udp-port={free_port()}"]
        result = run(programs.netexec, *ports, "--udp-listen-addresses=192.0.2.1")

        assert result.returncode == 1
        assert "listen udp 192.0.2.1:" in result.stderr
        assert "cannot assign requested address" in result.stderr

    def test_sctp_without_kernel_support(self, programs: Programs) -> None:
        """Where the kernel has no SCTP, asking for it is status 1 and says what is missing."""
        try:
            socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).close()
        except OSError:
            pass
        else:
            pytest.skip("needs a kernel without SCTP")
        result = run(programs.netexec, "--sctp-port=5000", f"--udp-port={free_port()}")

        assert result.returncode == 1
        assert "this kernel has no SCTP (CONFIG_IP_SCTP, module sctp)" in result.stderr
