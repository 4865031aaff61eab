"""What ends ``testbed capture``: signals, readers that go away, full disks, nodes that stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from testbed.packets import capturefile
from tests.live.capturing import (
    PINGER,
    begun,
    interrupted,
    nothing_runs,
    ping,
    running,
)
from tests.live.conftest import SLOWNESS, Cli, Running


def test_killed(live: Running, cli: Cli) -> None:
    """Nothing stays in the nodes when the command has no chance to end anything."""
    with begun(cli, live, "node1:all", "node2:all", PINGER) as process:
        assert set(running(live)) == {"node1", "node2"}
        process.kill()
        process.wait()
        assert nothing_runs(live)


def test_a_signal_while_a_pipe_is_full(live: Running, cli: Cli) -> None:
    """Nothing is cut out of the file, also where Python does not buffer its output."""
    unbuffered = Cli({**cli.environment, "PYTHONUNBUFFERED": "1"})
    with begun(unbuffered, live, "node1:flannel.1", "--filter", "icmp", "-w", "-") as process:
        ping(live, "-f -c 500 -s 1000")
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.stdout is not None
        with open(process.stdout.fileno(), "rb", closefd=False) as unread:
            written = unread.read()
        assert process.wait(20 * SLOWNESS) == 0
    assert len(capturefile.read(written)) == 1000


def test_the_reader_of_a_pipe_goes_away(live: Running, cli: Cli) -> None:
    """As with ``| head -c 100``: the capture ends, and leaves nothing."""
    with begun(cli, live, "node1:flannel.1", "--filter", "icmp", "-w", "-") as process:
        assert process.stdout is not None
        process.stdout.close()
        ping(live, "-c 2 -i 0.2")
        assert process.wait(20 * SLOWNESS) == 1
    assert nothing_runs(live)


def test_output_that_takes_no_more(live: Running, cli: Cli, tmp_path: Path) -> None:
    """A full disk, a pipe that nobody reads, no standard output: said, and nothing is left."""
    words = ["capture", "--name", live.name, "node1", "--duration", "0.2"]
    done = cli(*words, "-w", "/dev/full")
    assert done.returncode == 1
    assert done.stderr.endswith("error: -w /dev/full: No space left on device\n")
    for closed, code, said in (
        ("-w - >/dev/full", 1, "error: standard output: No space left on device\n"),
        (">&-", 0, " dropped by the kernel\n"),
        ("-w - >&-", 0, " dropped by the kernel\n"),
    ):
        line = f"{sys.executable} -m testbed.cli.main {' '.join(words)} {closed}"
        ended = subprocess.run(
            ["sh", "-c", line], env=cli.environment, capture_output=True, text=True, timeout=60
        )
        assert (ended.returncode, ended.stderr[-len(said) :]) == (code, said)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    process = cli.start(*words, "-w", str(path))
    deadline = time.monotonic() + 10 * SLOWNESS
    while not running(live) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5 * SLOWNESS)
    code, _, err = interrupted(process)
    assert (code, "capturing on" in err) == (130, False), err
    assert nothing_runs(live)


def test_wireshark_is_closed(live: Running, cli: Cli, tmp_path: Path) -> None:
    """The capture ends at once, also when no packets come; that Wireshark failed is said."""
    command = tmp_path / "wireshark"
    for code, said in ((0, "0 packets captured"), (7, "error: Wireshark ended with exit code 7")):
        command.write_text(f"#!/bin/sh\nsleep 1\nexit {code}\n")
        command.chmod(0o755)
        path = f"{tmp_path}:{cli.environment['PATH']}"
        done = Cli({**cli.environment, "PATH": path})(
            *("capture", "--name", live.name, "--wireshark", "--filter", "tcp port 1"), seconds=30
        )
        assert (done.returncode, said in done.stderr) == (min(code, 1), True), done.stderr
    assert nothing_runs(live)


def test_a_node_that_stops_meanwhile(make: Callable[..., Running], cli: Cli) -> None:
    """What came before is there, and that it may not be all is an error."""
    live = make("flannel", nodes=2, pods_per_node=1)
    words = ["node1", "node2:flannel.1", "--filter", "icmp or udp port 8472"]
    with begun(cli, live, *words) as process:
        ping(live, "-c 1")
        assert process.stdout is not None
        places = sorted(process.stdout.readline().split()[1] for _ in range(4))
        assert places == ["node1/eth0"] * 2 + ["node2/flannel.1"] * 2
        live.client.api.stop(live.container("node2"), timeout=5)
        code, _, err = interrupted(process)
    assert code == 1
    assert f"error: `testbed-agent capture` on {live.name}-node2 did not end well" in err
    live.client.api.kill(live.container("node1"))
    done = cli("capture", "--name", live.name, "node1")
    assert (done.returncode, done.stderr) == (2, "error: node1: node1 does not run\n")
