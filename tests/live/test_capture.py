"""``testbed capture``: ready when it says so, complete when it ends, nothing left behind."""

from __future__ import annotations

import collections
import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from testbed.agent import pcapng
from testbed.packets import capturefile
from testbed.verify.capture import capturing
from tests.live.capturing import (
    ANSWERER,
    MARK,
    PINGER,
    begun,
    interrupted,
    nothing_runs,
    ping,
    running,
    wanted,
)
from tests.live.conftest import SLOWNESS, Cli, Running

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


def test_json_has_an_object_for_every_packet(live: Running, cli: Cli) -> None:
    """As soon as it comes, with what is carried inside of what carries it."""
    words = ["node1", "--filter", "udp port 8472", "--count", "2", "-o", "json"]
    with begun(cli, live, *words) as process:
        ping(live, "-c 1")
        out, err = process.communicate(timeout=20 * SLOWNESS)
    assert process.returncode == 0, err
    request, reply = map(json.loads, out.splitlines())
    assert (request["interface"], list(request)) == (
        "node1/eth0",
        ["time_ns", "interface", "packet"],
    )
    assert request["time_ns"] < reply["time_ns"]
    outer, inner = request["packet"], request["packet"]["inner"]
    assert (outer["vni"], outer["destination_port"], inner["icmp_type"]) == (1, 8472, 8)
    assert (inner["source"], inner["destination"]) == (live.ip(PINGER), live.ip(ANSWERER))
    assert reply["packet"]["inner"]["source"] == live.ip(ANSWERER)


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
