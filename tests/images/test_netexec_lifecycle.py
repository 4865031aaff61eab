"""netexec's ends: signals, PID 1, /shutdown and /exit."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.images.netexec_client import DEADLINE, free_port, read_all

if TYPE_CHECKING:
    from tests.images.conftest import Programs
    from tests.images.netexec_client import Netexec, StartNetexec


class TestSignals:
    """SIGTERM and SIGINT."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_ends_with_status_0(self, start: StartNetexec, number: signal.Signals) -> None:
        """Idle connections do not hold it up."""
        netexec = start()
        with netexec.connect() as idle:
            begun = time.monotonic()
            netexec.process.send_signal(number)

            assert netexec.wait() == 0
            assert idle.recv(1) == b""
            assert time.monotonic() - begun < 0.9

    def test_delay_shutdown(self, start: StartNetexec) -> None:
        """Meanwhile it serves: /healthz is 200 and /readyz 503, so that endpoints are removed."""
        netexec = start("--delay-shutdown=1")
        begun = time.monotonic()
        netexec.process.terminate()
        netexec.wait_for_log("Sleeping 1 seconds before terminating...")
        netexec.process.terminate()

        assert netexec.get("/healthz").status == 200
        ready = netexec.get("/readyz")
        assert (ready.status, ready.body) == (503, "shutting down")
        assert netexec.wait() == 0
        assert 1 <= time.monotonic() - begun < 5

    def test_request_in_progress_is_answered(self, start: StartNetexec) -> None:
        """A request that is being worked on gets its answer."""
        netexec = start()
        with netexec.connect() as client:
            client.sendall(b"GET /shell?cmd=sleep+0.2%3Becho+x HTTP/1.1\r\nHost: x\r\n\r\n")
            netexec.wait_for_log("GET /shell?cmd=sleep 0.2;echo x")
            netexec.process.terminate()
            answer = read_all(client)

        assert b"\r\nConnection: close\r\n" in answer
        assert answer.endswith(b'{"output":"x\\n"}')
        assert netexec.wait() == 0

    def test_nobody_reads_the_log(self, start: StartNetexec) -> None:
        """A full pipe on stdout does not stop the server."""
        netexec = start()
        with netexec.connect() as client:
            request = b"GET /echo?code=200&msg=%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 1000)
            for _ in range(100):
                client.sendall(request)
                answer = b""
                while not answer.endswith(b"x" * 1000):
                    answer += client.recv(65536)

        assert netexec.get("/hostname").status == 200

    def test_log_lines_cannot_be_forged(self, start: StartNetexec) -> None:
        """Control characters of a request do not reach the log."""
        netexec = start()
        netexec.get("/echo?msg=a%0aGET%20/shutdown%1b")

        netexec.wait_for_log("GET /echo?msg=a?GET /shutdown?&code=")

    def test_reaps_orphans_as_pid_1(self, programs: Programs) -> None:
        """As PID 1 it ends on SIGTERM and leaves no zombies of its shells behind."""
        if os.geteuid() != 0:
            pytest.skip("needs root: unshare --pid")
        if shutil.which("unshare") is None:
            pytest.skip("needs unshare(1) of util-linux")
        port = free_port()
        flags = [f"--http-port={port}", f"--udp-port={free_port()}"]
        command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        with subprocess.Popen(
            [*command, str(programs.netexec), *flags], stdout=subprocess.PIPE
        ) as unshare:
            assert unshare.stdout is not None
            while b"Started HTTP" not in unshare.stdout.readline():
                pass
            child = int(Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text())
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
                client.sendall(b"GET /shell?cmd=(true%26)%3Btrue HTTP/1.0\r\n\r\n")
                read_all(client)
            deadline = time.monotonic() + DEADLINE
            while len(processes := processes_inside(child)) > 1 and time.monotonic() < deadline:
                time.sleep(0.002)
            os.kill(child, signal.SIGTERM)
            code = unshare.wait(DEADLINE)

        assert processes == ["1"]
        assert code == 0


def processes_inside(pid: int) -> list[str]:
    """Return the PIDs in the namespace of that process."""
    entries = Path(f"/proc/{pid}/root/proc").iterdir()
    return [entry.name for entry in entries if entry.name.isdigit()]


class TestExit:
    """/shutdown and /exit."""

    def test_shutdown(self, start: StartNetexec) -> None:
        """/shutdown ends it at once with status 0: there is no answer."""
        netexec = start()

        assert netexec.raw(b"GET /shutdown HTTP/1.0\r\n\r\n") == b""
        assert netexec.wait() == 0

    @pytest.mark.parametrize(
        ("query", "code"), [("", 0), ("?code=7", 7), ("?code=-1", 255), ("?code=300&wait=0s", 44)]
    )
    def test_exit_without_timeout(self, start: StartNetexec, query: str, code: int) -> None:
        """Without a timeout it ends at once with the code: there is no answer."""
        netexec = start()

        assert netexec.raw(f"GET /exit{query} HTTP/1.0\r\n\r\n".encode()) == b""
        assert netexec.wait() == code

    def test_exit_waits(self, start: StartNetexec) -> None:
        """During the wait it serves, even if the client that asked for it is gone."""
        netexec = start()
        begun = time.monotonic()
        with netexec.connect() as client:
            client.sendall(b"GET /exit?code=3&wait=300ms HTTP/1.0\r\n\r\n")
            netexec.wait_for_log("GET /exit?code=3&timeout=&wait=300ms")

        assert netexec.get("/hostname").status == 200
        assert netexec.wait() == 3
        assert time.monotonic() - begun >= 0.3

    def test_exit_lets_requests_finish(self, start: StartNetexec) -> None:
        """With a timeout requests in progress get their answers, then it ends before that."""
        netexec = start()
        begun = time.monotonic()
        with netexec.connect() as client:
            client.sendall(b"GET /shell?cmd=sleep+0.2%3Becho+x HTTP/1.1\r\nHost: x\r\n\r\n")
            netexec.wait_for_log("GET /shell?cmd=sleep 0.2;echo x")
            response = netexec.get("/exit?code=5&timeout=8s")
            answer = read_all(client)

        assert (response.status, response.body) == (200, "")
        assert answer.endswith(b'{"output":"x\\n"}')
        assert netexec.wait() == 5
        assert time.monotonic() - begun < 8
        netexec.wait_for_log("Graceful shutdown completed with: <nil>")

    def test_exit_does_not_wait_for_ever(self, start: StartNetexec) -> None:
        """A request that takes longer than the timeout is cut off."""
        netexec = start()
        with netexec.connect() as client:
            client.sendall(b"GET /shell?cmd=exec+sleep+0.8 HTTP/1.1\r\nHost: x\r\n\r\n")
            netexec.wait_for_log("GET /shell?cmd=exec sleep 0.8")
            netexec.get("/exit?code=6&timeout=100ms")

            assert netexec.wait() == 6
            assert read_all(client) == b""
        netexec.wait_for_log("Graceful shutdown completed with: context deadline exceeded")

    @pytest.mark.parametrize(
        ("query", "answer"),
        [
            ("code=x", "argument 'code' must be an integer [0-127] or empty, got \"x\"\n"),
            *(
                (
                    f"{name}={value}",
                    f"argument '{name}' must be a valid golang duration or empty, "
                    f'got "{value}"\n',
                )
                for name in ("wait", "timeout")
                for value in ("1", "x", "1x", "s", ".s", "-", "1s1", "1.2.3s", "9999999h")
            ),
        ],
    )
    def test_nonsense_is_complained_about(self, server: Netexec, query: str, answer: str) -> None:
        """Nothing ends, and the answer says what was expected."""
        response = server.get(f"/exit?{query}")

        assert (response.status, response.body) == (200, answer)

    @pytest.mark.parametrize(
        ("wait", "seconds"),
        [("0", 0), ("-5s", 0), ("+100ms", 0.1), (".1s", 0.1), ("1.5e", None), ("50ms50000us", 0.1),
         ("100000\u00b5s", 0.1), ("1ns", 0)],
    )  # fmt: skip
    def test_durations(self, start: StartNetexec, wait: str, seconds: float | None) -> None:
        """Go's durations are understood."""
        netexec = start()
        begun = time.monotonic()
        query = wait.replace("+", "%2b").replace("\u00b5", "%c2%b5")
        answer = netexec.raw(f"GET /exit?code=9&wait={query} HTTP/1.0\r\n\r\n".encode())

        if seconds is None:
            assert b"must be a valid golang duration" in answer
            return
        assert netexec.wait() == 9
        assert seconds <= time.monotonic() - begun < seconds + 1
