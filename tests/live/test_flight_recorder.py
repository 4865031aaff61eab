"""The flight recorder: rings on running nodes, and a pytest whose tests fail."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.agent import pcapng
from testbed.flight_recorder import FlightRecorder
from testbed.node import container
from tests.live.conftest import SLOWNESS, Running

SECONDS = 5.0 * SLOWNESS
CONFTEST = """
import os
from types import SimpleNamespace
import pytest
from testbed import existing
from testbed.node import engine
from testbed.node.container import run
from testbed.pytest_recorder import Recorder, pytest_addoption

def pytest_configure(config):
    config.pluginmanager.register(Recorder(config), "recorder")

@pytest.fixture(scope="session")
def attached(request):
    recorder = request.config.pluginmanager.get_plugin("recorder")
    client, name = engine.connect(), os.environ["TESTBED_UNDER_TEST"]
    cluster = existing.cluster_of(client, name)
    recorder.watch(SimpleNamespace(name=name, client=client, cluster=cluster))
    if "TESTBED_GONE" in os.environ:
        recorder.watch(SimpleNamespace(name="gone", client=client, cluster=cluster))
    yield lambda *argv: run(client, f"{name}-node1", list(argv))
    client.close()
"""
TESTS = """
import os, time

def test_passes(attached):
    attached("ping", "-c", "1", "-s", "111", os.environ["PING"])

def test_fails(attached):
    attached("ping", "-c", "1", "-s", "222", os.environ["PING"])
    attached("ip", "route", "add", "blackhole", "192.0.2.0/24")
    assert not "a failure"

def test_waits(attached):
    print("waiting", flush=True)
    time.sleep(60)
"""


@contextmanager
def recording(live: Running) -> Iterator[FlightRecorder]:
    """A flight recorder that records on all nodes."""
    containers = {node.name: live.container(node.name) for node in live.cluster.nodes}
    recorder = FlightRecorder(live.client, live.cluster, containers)
    recorder.start()
    try:
        recorder.wait(SECONDS)
        yield recorder
    finally:
        recorder.stop()


def run(live: Running, *argv: str) -> str:
    """Run something on node1."""
    code, out, err = container.run(live.client, live.container("node1"), list(argv))
    assert code == 0, err.decode()
    return out.decode()


def rings(live: Running) -> set[str]:
    """Directories of rings on node1, and the processes that write them."""
    script = "ls -d /dev/shm/testbed-flight-*; pgrep -a 'tcpdump|ip'; true"
    return {*run(live, "sh", "-c", script).splitlines()}


def soon(holds: Callable[[], bool]) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return False


def frames(data: bytes) -> list[tuple[str, int, str]]:
    """Interface, length and direction of every frame."""
    reader = pcapng.Reader()
    blocks = [block for block in reader.feed(data) if isinstance(block, pcapng.Record)]
    assert [each.time_ns for each in blocks] == sorted(each.time_ns for each in blocks)
    return [(reader.interfaces[each.index].name, each.length, each.direction) for each in blocks]


@pytest.fixture
def inner(live: Running, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a pytest of its own on the same testbed: ``inner("-k", "fails")``."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_inner.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    ours = {"TESTBED_UNDER_TEST": live.name, "PING": live.ip("published")}

    def start(*words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:testbed", "-q", *words],
            cwd=tmp_path,
            env={**os.environ, **ours, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def finish(process: subprocess.Popen[str]) -> str:
    """What a pytest printed, when it has ended."""
    try:
        return process.communicate(timeout=60 * SLOWNESS)[0]
    finally:
        process.kill()
        process.wait()


def test_slice_holds_what_happened_in_its_time_and_nothing_else(live: Running) -> None:
    """Frames are there without a wait, of all nodes, with interfaces and directions."""
    with recording(live) as recorder:
        run(live, "ping", "-c", "1", "-s", "333", live.ip("published"))
        begin = time.time_ns()
        run(live, "ping", "-c", "1", "-s", "444", live.ip("published"))
        end = time.time_ns()
        found = frames(recorder.slice(begin, end))
    echoes = [(name, way) for name, length, way in found if length >= 444]
    expected = [
        ("node1/flannel.1", "out"),
        ("node1/eth0", "out"),
        ("node2/eth0", "in"),
        ("node2/flannel.1", "in"),
    ]
    assert echoes[:4] == expected
    assert not any(333 <= length < 444 for _, length, _ in found)


def test_interface_that_is_gone_keeps_its_name(live: Running) -> None:
    """What the kernel no longer knows was written down when it came and went."""
    with recording(live) as recorder:
        begin = time.time_ns()
        script = (
            "ip link add gone0 type veth peer gone1; ip link set gone0 up; ip link set gone1 up; "
            "ip addr add 192.0.2.1/24 dev gone0; ping -c 1 -W 0.1 192.0.2.2; ip link del gone0"
        )
        run(live, "sh", "-c", script)
        names = {name for name, _, _ in frames(recorder.slice(begin, time.time_ns()))}
    assert {"node1/gone0", "node1/gone1"} <= names


def test_full_ring_keeps_the_latest_and_says_so(live: Running) -> None:
    """Old frames are overwritten, memory is bounded, and the last frame is complete."""
    with recording(live) as recorder:
        begin = time.time_ns()
        run(live, "ping", "-f", "-q", "-s", "300", "-c", "20000", "127.0.0.1")
        run(live, "ping", "-c", "1", "-s", "555", "127.0.0.1")
        node1, *others = recorder.collect(begin, time.time_ns(), texts=False)
        size = int(run(live, "sh", "-c", "du -sk /dev/shm | cut -f 1"))
    full = [any("the ring was full" in text for text in each.problems) for each in (node1, *others)]
    assert full == [True, False, False]
    assert sum(length >= 555 for _, length, _ in frames(node1.pcapng)) == 2
    assert size < 17_000  # a recorder of the whole test run may have another ring


def recorded(live: Running, recorder: FlightRecorder) -> bool:
    """Whether what passes node1 now is in its ring."""
    begin = time.time_ns()
    run(live, "ping", "-c", "1", "127.0.0.1")
    return bool(frames(recorder.slice(begin, time.time_ns())))


def anew(recorder: FlightRecorder, begin: int) -> list[str]:
    """What is told of a recording that was begun again since then, on the first node."""
    found = recorder.collect(begin, time.time_ns(), texts=False)[0]
    return [problem for problem in found.problems if "begun anew" in problem]


def test_recorder_goes_on_after_a_restart(make: Callable[..., Running]) -> None:
    """A node that restarts is recorded again, and the loss is told."""
    testbed = make("flannel", nodes=1)
    with recording(testbed) as recorder:
        begin = time.time_ns()
        testbed.client.api.restart(testbed.container("node1"), timeout=1)
        assert soon(lambda: recorded(testbed, recorder))
        (problem,) = anew(recorder, begin)
        assert problem.startswith("recording was begun anew ("), problem


def test_recorder_goes_on_when_tcpdump_was_killed(live: Running) -> None:
    """A new one takes over, in an empty ring."""
    with recording(live) as recorder:
        begin = time.time_ns()
        assert recorded(live, recorder)
        ring = recorder._rings[0].directory
        run(live, "sh", "-c", f"kill -KILL $(cat {ring}/pid)")
        assert soon(lambda: recorded(live, recorder))
        (problem,) = anew(recorder, begin)
        assert "Killed" in problem, problem
        assert problem.endswith(": what passed before is lost")


def test_failed_test_leaves_a_folder(
    live: Running, inner: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Packets of that test only, texts of every node as the test left it, and links to them."""
    printed = finish(inner("-k", "not waits", "--junit-xml=junit.xml"))
    run(live, "ip", "route", "del", "blackhole", "192.0.2.0/24")
    folder = tmp_path / ".testbed/flight/test_inner.py--test_fails"
    assert [*folder.parent.iterdir()] == [folder]
    assert "1 failed, 1 passed" in printed
    assert re.search(f"^-+ testbed flight recorder -+\n{re.escape(str(folder))}$", printed, re.M)
    assert re.search("^  node2/ .*routes.txt", printed, re.MULTILINE)
    assert "problem" not in (folder / "summary.txt").read_text()

    junit = (tmp_path / "junit.xml").read_text()
    assert junit.count(f'<property name="testbed_flight_recorder" value="{folder}" />') == 1
    files = {path.name for path in (folder / "node1").iterdir()}
    wanted = {"routes.txt", "neighbours.txt", "fdb.txt", "rules.txt", "conntrack.txt", "agent.log"}
    assert wanted <= files
    assert all((folder / node.name / "fdb.txt").exists() for node in live.cluster.nodes)
    assert "blackhole 192.0.2.0/24" in (folder / "node1/routes.txt").read_text()
    assert "flannel" in (folder / "node1/rules.txt").read_text()
    state = json.loads((folder / "node1/agent-state.json").read_text())
    assert state["phase"] == "ready"
    found = frames((folder / "packets.pcapng").read_bytes())
    assert ("node1/eth0", "out") in {(name, way) for name, length, way in found if length > 222}
    assert not any(111 <= length < 222 for name, length, _ in found if name.endswith("flannel.1"))


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_saved_packets_open_in_tshark(
    live: Running, inner: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """An independent reader sees the interfaces' names and the test's own ping."""
    finish(inner("-k", "fails", "--flight-dir", str(tmp_path / "chosen")))
    run(live, "ip", "route", "del", "blackhole", "192.0.2.0/24")
    file = tmp_path / "chosen/test_inner.py--test_fails/packets.pcapng"
    fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "icmp.type"]
    seen = subprocess.run(
        ["tshark", "-r", str(file), "-Y", "icmp && frame.len > 222", *fields],
        check=True,
        capture_output=True,
        text=True,
        timeout=30 * SLOWNESS,
    )
    rows = [line.split("\t") for line in seen.stdout.splitlines()]
    assert ["node1/flannel.1", "8"] in rows
    assert ["node2/flannel.1", "0"] in rows


def test_recorder_that_fails_fails_no_test(
    live: Running, inner: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Containers that are not there are a line of the report; the rest is saved."""
    printed = finish(inner("-k", "not waits", TESTBED_GONE="1"))
    run(live, "ip", "route", "del", "blackhole", "192.0.2.0/24")
    assert "1 failed, 1 passed" in printed
    assert "No such container: gone-node1" in printed
    folder = tmp_path / ".testbed/flight/test_inner.py--test_fails"
    assert (folder / live.name / "packets.pcapng").exists()


def test_recorder_can_be_turned_off(
    live: Running, inner: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Nothing runs on the nodes, and nothing is saved."""
    before = rings(live)
    process = inner("-s", "-k", "waits", "--no-flight-recorder")
    try:
        assert process.stdout is not None
        assert soon(lambda: "waiting" in (process.stdout or sys.stdin).readline())
        assert rings(live) == before
    finally:
        process.send_signal(signal.SIGINT)
        finish(process)
    assert not (tmp_path / ".testbed").exists()


def test_killed_pytest_leaves_nothing_running(
    live: Running, inner: Callable[..., subprocess.Popen[str]]
) -> None:
    """Not even kill -9 leaves a tcpdump, a file or a shell on a node."""
    before = rings(live)
    process = inner("-s", "-k", "waits")
    try:
        assert process.stdout is not None
        assert soon(lambda: "waiting" in (process.stdout or sys.stdin).readline())
        assert len(rings(live) - before) == 3  # a directory, tcpdump, and ip monitor
    finally:
        process.kill()
        finish(process)
    assert soon(lambda: rings(live) == before)
