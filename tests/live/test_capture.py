"""``testbed capture``: ready when it says so, complete when it ends, nothing left behind."""

from __future__ import annotations

import collections
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed import existing
from testbed.agent import pcapng
from testbed.node import inventory
from testbed.packets import capturefile
from testbed.verify.capture import Source, capturing, sources
from testbed.verify.observed import Observed
from tests.live.conftest import SLOWNESS, Cli, Running

MARK = "7e57bed1"
PINGER, ANSWERER = "netexec-node1-1", "netexec-node2-1"
WAY = ["netexec-node1-1", "node1:cni0", "node1:flannel.1", "node1", "node2", "netexec-node2-1"]
"""Interfaces on the way of a ping, in its order."""
NAMES = [
    "default/netexec-node1-1/eth0",
    "node1/cni0",
    "node1/flannel.1",
    "node1/eth0",
    "node2/eth0",
    "default/netexec-node2-1/eth0",
]
FILTER = "icmp or udp port 8472"
OURS = r"tcpdump .*-w -( |$)"
"""The flight recorder's writes to files."""


def ping(live: Running, *flags: str) -> None:
    """Marked pings between pods of two nodes, all answered."""
    words = ["ping", "-n", "-q", "-p", MARK, *flags, live.ip(ANSWERER)]
    assert " 0% packet loss" in live.host(PINGER).check_output(" ".join(words))


def running(live: Running) -> dict[str, str]:
    """Node → its processes of captures."""
    listings = inventory.containers(live.client, live.name)
    found = {node: live.host(node).run(f"pgrep -a -f '{OURS}'").stdout for node in listings}
    return {node: lines for node, lines in found.items() if lines}


def nothing_runs(live: Running) -> bool:
    """Whether no capture is left, soon."""
    deadline = time.monotonic() + 5 * SLOWNESS
    while left := running(live):
        if time.monotonic() >= deadline:
            raise AssertionError(f"left running: {left}")
        time.sleep(0.05)
    return True


@contextmanager
def begun(cli: Cli, live: Running, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A ``testbed capture`` that has said that it captures."""
    process = cli.start("capture", "--name", live.name, *words)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        assert said.startswith("capturing on "), said + process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Press Ctrl-C; exit code, output and messages."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20 * SLOWNESS)
    return process.returncode, out, err


def wanted(live: Running, *words: str) -> tuple[Source, ...]:
    """The interfaces that these words mean."""
    listings = inventory.containers(live.client, live.name)
    addresses = {node: inventory.address(listing) for node, listing in listings.items()}
    cluster = existing.cluster_of(live.client, live.name, listings)
    return sources(cluster, Observed.of(addresses, {}), words)


def tshark(path: Path, *fields: str) -> list[list[str]]:
    """The fields of every packet, as tshark finds them."""
    chosen = [word for field in fields for word in ("-e", field)]
    argv = ["tshark", "-n", "-r", str(path), "-d", "udp.port==8472,vxlan", "-T", "fields", *chosen]
    shown = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    return [line.split("\t") for line in shown.stdout.splitlines()]


def test_one_file_of_many_interfaces(live: Running, cli: Cli, tmp_path: Path) -> None:
    """Names as tshark shows them, the order of time, every packet on every interface of its way.

    Ctrl-C ends it well.
    """
    path = tmp_path / "way.pcapng"
    with begun(cli, live, *WAY, "--filter", FILTER, "-w", str(path)) as process:
        ping(live, "-c 3 -i 0.05")
        code, out, err = interrupted(process)
    assert (code, out) == (0, ""), err
    assert re.search(r"^\d+ packets captured, 0 dropped by the kernel$", err, re.MULTILINE), err
    rows = tshark(path, "frame.interface_name", "frame.time_epoch", "data.data", "vxlan.vni")
    times = [row[1] for row in rows]
    assert times == sorted(times)
    marked = [row for row in rows if MARK in row[2]]
    assert collections.Counter(row[0] for row in marked) == dict.fromkeys(NAMES, 6)
    assert {row[0] for row in marked if row[3] == "1"} == {"node1/eth0", "node2/eth0"}
    packets = capturefile.read(path.read_bytes())
    assert [packet.interface for packet in packets] == [row[0] for row in rows]
    first = [each.interface for each in packets if bytes.fromhex(MARK) in each.innermost.payload]
    assert first[: len(NAMES)] == NAMES
    assert nothing_runs(live)


def test_text_shows_what_carries_what(live: Running, cli: Cli) -> None:
    """Port 8472 is VXLAN; ``--count`` ends the capture by itself."""
    words = ["node1", "--filter", "udp port 8472", "--count", "2"]
    with begun(cli, live, *words) as process:
        ping(live, "-c 1")
        out, err = process.communicate(timeout=20 * SLOWNESS)
    assert process.returncode == 0, err
    request, reply = out.splitlines()
    when_and_where = r"\d\d:\d\d:\d\d\.\d{6}  node1/eth0  "
    assert re.match(when_and_where + r"[\d.]+:\d+ > [\d.]+:8472: VXLAN VNI 1: ", request)
    assert f"{live.ip(PINGER)} > {live.ip(ANSWERER)}: ICMP echo request" in request
    assert f"{live.ip(ANSWERER)} > {live.ip(PINGER)}: ICMP echo reply" in reply
    assert err.startswith("2 packets captured, ")
    assert nothing_runs(live)


def test_duration(live: Running, cli: Cli) -> None:
    """Without targets it is the uplinks; after the time it ends by itself."""
    began = time.monotonic()
    done = cli("capture", "--name", live.name, "--duration", "0.5", "--filter", "tcp port 1")
    assert 0.5 <= time.monotonic() - began < 0.5 + 10 * SLOWNESS
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "capturing on 3 interfaces of 3 nodes\n0 packets captured, 0 dropped by the kernel\n"
    )


def test_every_interface_that_is_up(live: Running, cli: Cli, tmp_path: Path) -> None:
    """``all`` of a node and of a pod."""
    path = tmp_path / "all.pcapng"
    done = cli(
        "capture", "--name", live.name, "node3:all", f"{PINGER}:all", "--duration", "0.1",
        "-w", str(path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    blocks = pcapng.Reader().feed(path.read_bytes())
    names = {block.name for block in blocks if isinstance(block, pcapng.Interface)}
    up = live.host("node3").check_output("ls /sys/class/net").split()
    assert names == {f"default/{PINGER}/lo", f"default/{PINGER}/eth0"} | {
        f"node3/{each}" for each in up
    }


def test_killed(live: Running, cli: Cli) -> None:
    """Nothing stays in the nodes when the command has no chance to end anything."""
    with begun(cli, live, "node1:all", "node2:all", PINGER) as process:
        assert set(running(live)) == {"node1", "node2"}
        process.kill()
        process.wait()
        assert nothing_runs(live)


def test_a_pipe_is_fed_live(live: Running, cli: Cli) -> None:
    """tshark prints a packet while the capture goes on."""
    with begun(cli, live, "node1:flannel.1", PINGER, "--filter", "icmp", "-w", "-") as process:
        assert process.stdout is not None
        argv = ["tshark", "-l", "-n", "-r", "-", "-T", "fields", "-e", "frame.interface_name"]
        with subprocess.Popen(
            argv, stdin=process.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as shown:
            assert shown.stdout is not None
            ping(live, "-c 1")
            names = [shown.stdout.readline().strip() for _ in range(4)]
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            process.stdout.close()
            assert process.wait(20 * SLOWNESS) == 0
            assert shown.stdout.read() == ""
    there, back = [f"default/{PINGER}/eth0", "node1/flannel.1"], ["node1/flannel.1"]
    assert names == [*there, *back, there[0]]


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


def test_wireshark(live: Running, cli: Cli, tmp_path: Path) -> None:
    """A local one gets the stream live, with 8472 as VXLAN; without one, how to get it is said."""
    command, arguments, fed = (tmp_path / name for name in ("wireshark", "arguments", "fed"))
    command.write_text(f'#!/bin/sh\necho "$@" >{arguments}\nexec cat >{fed}\n')
    command.chmod(0o755)
    path = f"{tmp_path}:{cli.environment['PATH']}"
    with begun(Cli({**cli.environment, "PATH": path}), live, "node1", "--wireshark") as process:
        ping(live, "-c 1")
        code, out, err = interrupted(process)
    assert (code, out) == (0, ""), err
    assert arguments.read_text() == "-k -i - -d udp.port==4789,vxlan -d udp.port==8472,vxlan\n"
    deadline = time.monotonic() + 5 * SLOWNESS
    while time.monotonic() < deadline and not fed.read_bytes().count(bytes.fromhex(MARK)):
        time.sleep(0.02)
    marked = [each for each in capturefile.read(fed.read_bytes()) if each.vni == 1]
    assert {each.interface for each in marked} == {"node1/eth0"}
    none = Cli({**cli.environment, "PATH": str(tmp_path / "empty")})
    done = none("capture", "--name", live.name, "--wireshark")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Install Debian's wireshark" in done.stderr


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (
            ["nope", "node1:", "nobody/web:eth0"],
            ["nope: there is no node", "node1:: an interface is missing", "nobody/web:eth0: there"],
        ),
        (
            ["node1:eth9", "node2:wlan0", f"{PINGER}:foo", "node3"],
            ["node1/eth9: ", "node2/wlan0: ", f"default/{PINGER}/foo: ", "up are lo, eth0)"],
        ),
        (["--filter", "icmp foo"], ["tcpdump refuses the filter: can't parse filter expression"]),
        (["--filter=-r /etc/passwd"], ["tcpdump refuses the filter"]),
        (
            ["--count", "0", "--duration", "nan", "--snaplen", "x", "-w", "/nowhere/file"],
            ["--count 0: ", "--duration nan: ", "--snaplen x: ", "-w /nowhere/file: "],
        ),
    ],
)
def test_wrong_usage(live: Running, cli: Cli, words: list[str], messages: list[str]) -> None:
    """Everything that is wrong is said at once, and nothing is started."""
    done = cli("capture", "--name", live.name, *words)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert [message for message in messages if message not in done.stderr] == []
    assert running(live) == {}


def test_every_frame_of_a_flood(live: Running) -> None:
    """1000 pings as fast as they go, on six interfaces: complete as soon as it is stopped."""
    with capturing(live.client, live.cluster, wanted(live, *WAY), FILTER) as recording:
        ping(live, "-f -c 1000")
        recording.stop()
    assert recording.dropped == 0
    packets = capturefile.read(recording.pcapng())
    marked = [each for each in packets if bytes.fromhex(MARK) in each.innermost.payload]
    assert collections.Counter(each.interface for each in marked) == dict.fromkeys(NAMES, 2000)
    sequences = {each.innermost.icmp_sequence for each in marked if each.interface == NAMES[-1]}
    assert sequences == set(range(1, 1001))
    times = [each.time_ns for each in packets]
    assert times == sorted(times)


def test_two_captures_at_once(live: Running) -> None:
    """The one does not know of the other, also on the same interface."""
    chosen = wanted(live, "node1:flannel.1")
    with (
        capturing(live.client, live.cluster, chosen, "icmp") as one,
        capturing(live.client, live.cluster, chosen, "tcp") as other,
    ):
        ping(live, "-c 1")
        one.stop()
        other.stop()
    assert (len(one.records), len(other.records)) == (2, 0)


def test_a_node_that_stops_meanwhile(make: Callable[..., Running], cli: Cli) -> None:
    """What came before is there, and that it may not be all is an error."""
    live = make("flannel", nodes=2, pods_per_node=1)
    words = ["node1", "node2:flannel.1", "--filter", FILTER]
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


def test_ready_in_time(live: Running) -> None:
    """20 interfaces of three nodes: 250 ms on an idle machine, of which 100 are the engine's."""
    devices = ["lo", "eth0", "flannel.1", "cni0"]
    words = [f"node{number}:{device}" for number in (1, 2, 3) for device in devices]
    pods = [f"netexec-node{number}-{pod}" for number in (1, 2, 3) for pod in (1, 2)]
    chosen = wanted(live, *words, *pods, f"{pods[0]}:lo", f"{pods[1]}:lo")
    assert len(chosen) == 20
    seconds: list[float] = []
    for _ in range(5):
        began = time.monotonic()
        with capturing(live.client, live.cluster, chosen):
            seconds.append(time.monotonic() - began)
    assert min(seconds) < 1.0 * SLOWNESS, seconds
