"""Captures on several interfaces, with a tcpdump that says and writes what a test wants."""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from testbed.agent import captures, pcapng, state
from testbed.agent.capture import Capture
from testbed.agent.errors import AgentError
from testbed.agent.tcpdump import Tcpdump

HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1960, 1)
TCPDUMP = """\
#!/bin/sh
while [ "$1" != -i ]; do shift; done
device=$2
while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
case "$2" in foo*) echo "tcpdump: can't parse filter expression: syntax error" >&2; exit 1;; esac
if [ ! -e "$PCAPS/$device" ]; then
    printf "tcpdump: $device: No such device exists\\n(No such device exists)\\n" >&2
    exit 1
fi
trap 'printf "1 packet captured\\n3 packets received by filter\\n" >&2
      printf "2 packets dropped by kernel\\n" >&2; exit 0' TERM
echo "tcpdump: listening on $device, link-type EN10MB" >&2
cat "$PCAPS/$device"
case $device in gone*) echo "tcpdump: pcap_loop: The interface disappeared" >&2; exit 1;; esac
read word 2>&- <"$PCAPS/forever"
"""


def record(time_ns: int, data: bytes, length: int = 60) -> bytes:
    """One frame of a pcap file."""
    return struct.pack("=IIII", time_ns // 10**9, time_ns % 10**9, len(data), length) + data


@pytest.fixture
def pcaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of files that stand for devices: what tcpdump writes when it begins."""
    (tmp_path / "tcpdump").write_text(TCPDUMP)
    (tmp_path / "tcpdump").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PCAPS", str(tmp_path))
    os.mkfifo(tmp_path / "forever")
    (tmp_path / "eth0").write_bytes(HEADER)
    return tmp_path


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    """Both ends of standard input, then of standard output."""
    ends = (*os.pipe(), *os.pipe())
    yield ends
    for each in ends:
        try:
            os.close(each)
        except OSError:
            continue


def wanted(*devices: str, expression: str = "") -> dict[str, object]:
    """A request for devices of the node."""
    return {
        "interfaces": [{"name": f"node1/{each}", "device": each, "pod": ""} for each in devices],
        "filter": expression,
    }


def captured(
    request: Mapping[str, object], pipes: tuple[int, int, int, int], seconds: float = 0
) -> tuple[list[pcapng.Interface | pcapng.Record | pcapng.Statistics], list[AgentError]]:
    """Capture until there is a watermark, and so long, then stop; what was written, and wrong."""
    stdin, tell, stdout, write = *pipes[:2], *pipes[2:]
    problems: list[AgentError] = []

    def serve() -> None:
        problems.extend(captures.run(request, {}, stdin, write))
        os.close(write)

    thread = threading.Thread(target=serve)
    thread.start()
    reader = pcapng.Reader()
    blocks: list[pcapng.Interface | pcapng.Record | pcapng.Statistics] = []
    while chunk := os.read(stdout, 65536):
        if not any(isinstance(block, pcapng.Statistics) for block in blocks):
            time.sleep(seconds)
            os.write(tell, b"stop\n")
        blocks += reader.feed(chunk)
    thread.join()
    return blocks, problems


def test_frames_of_all_interfaces_in_the_order_of_time(
    pcaps: Path, pipes: tuple[int, int, int, int]
) -> None:
    """Described first; then a watermark, the frames, and what every tcpdump counted."""
    now = time.time_ns() + 10**9  # after the first watermark, however slow this machine is
    (pcaps / "eth0").write_bytes(HEADER + record(now - 30, b"first") + record(now - 10, b"third"))
    (pcaps / "cni0").write_bytes(HEADER + record(now - 20, b"second", 9000))
    blocks, problems = captured(wanted("eth0", "cni0", "eth0"), pipes)
    assert problems == []
    names = [block.name for block in blocks if isinstance(block, pcapng.Interface)]
    assert names == ["node1/eth0", "node1/cni0"]
    assert isinstance(blocks[2], pcapng.Statistics)
    assert blocks[2].received is None
    records = [block for block in blocks if isinstance(block, pcapng.Record)]
    assert [(each.index, each.data) for each in records] == [
        (0, b"first"),
        (1, b"second"),
        (0, b"third"),
    ]
    assert (records[1].time_ns, records[1].length) == (now - 20, 9000)
    counts = [block for block in blocks[-2:] if isinstance(block, pcapng.Statistics)]
    assert [(each.index, each.received, each.dropped) for each in counts] == [(0, 3, 2), (1, 3, 2)]


def test_every_problem_of_a_request_at_once(
    pcaps: Path, pipes: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written, and nothing runs afterwards."""
    monkeypatch.setattr(captures, "up", lambda _: ["lo", "eth0"])
    request = wanted("eth0", "eth9", "eth8")
    interfaces = request["interfaces"]
    assert isinstance(interfaces, list)
    interfaces.append({"name": "default/web/eth0", "device": "eth0", "pod": "default/web"})
    problems = captures.run(request, {}, pipes[0], pipes[3])
    os.close(pipes[3])
    assert os.read(pipes[2], 100) == b""
    assert [str(problem) for problem in problems] == [
        "default/web/eth0: cannot capture there: the pod does not run",
        "node1/eth9: cannot capture there: No such device exists (up are lo, eth0)",
        "node1/eth8: cannot capture there: No such device exists (up are lo, eth0)",
    ]


def test_a_filter_that_tcpdump_refuses(pcaps: Path, pipes: tuple[int, int, int, int]) -> None:
    """In its own words."""
    (problem,) = captures.run(wanted("eth0", expression="foo bar"), {}, pipes[0], pipes[3])
    assert problem.as_dict() == {
        "what": "tcpdump refuses the filter",
        "where": "'foo bar'",
        "why": "can't parse filter expression: syntax error",
    }


def test_an_interface_that_disappears(pcaps: Path, pipes: tuple[int, int, int, int]) -> None:
    """What it had is there; that it went is said, and the others are captured to the end."""
    now = time.time_ns()
    (pcaps / "gone0").write_bytes(HEADER + record(now, b"last"))
    blocks, problems = captured(wanted("gone0", "eth0"), pipes, 0.3)
    assert [block.data for block in blocks if isinstance(block, pcapng.Record)] == [b"last"]
    (problem,) = problems
    assert (problem.where, problem.what) == ("node1/gone0", "the capture ended early")
    assert problem.why == "The interface disappeared"


def test_nothing_can_come_any_more(pcaps: Path, pipes: tuple[int, int, int, int]) -> None:
    """As when the only pod was deleted: the capture ends without being told to."""
    (pcaps / "gone0").write_bytes(HEADER)
    (problem,) = captures.run(wanted("gone0"), {}, pipes[0], pipes[3])
    assert str(problem) == "node1/gone0: the capture ended early: The interface disappeared"


def test_a_device_that_tcpdump_takes_for_a_number(
    pcaps: Path, pipes: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``1`` is the first of its devices to tcpdump; here it is one that is not there."""
    monkeypatch.setattr(captures, "up", lambda _: ["lo", "eth0"])
    (pcaps / "1").write_bytes(HEADER)
    tcpdump = pcaps / "tcpdump"
    tcpdump.write_text(tcpdump.read_text().replace("listening on $device", "listening on lo"))
    (problem,) = captures.run(wanted("1"), {}, pipes[0], pipes[3])
    assert str(problem) == (
        "node1/1: cannot capture there: No such device exists (up are lo, eth0)"
    )


def test_nobody_reads_any_longer(pcaps: Path, pipes: tuple[int, int, int, int]) -> None:
    """Then there is nobody to tell, and the capture ends."""
    os.close(pipes[2])
    assert captures.run(wanted("eth0"), {}, pipes[0], pipes[3]) == []


def test_whoever_wanted_it_is_gone(pcaps: Path, pipes: tuple[int, int, int, int]) -> None:
    """The end of the input ends the capture as a line does."""
    os.close(pipes[1])
    assert captures.run(wanted("eth0"), {}, pipes[0], pipes[3]) == []
    assert pcapng.Reader().feed(os.read(pipes[2], 65536))


def test_every_device_that_is_up(
    pcaps: Path, pipes: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``all`` is expanded on the node, and named by what was found."""
    assert "lo" in captures.up(None)
    monkeypatch.setattr(captures, "up", lambda _: ["eth0"])
    request = {"interfaces": [{"name": "node1/all", "device": "all", "pod": ""}]}
    blocks, problems = captured(request, pipes)
    assert (problems, blocks[0]) == ([], pcapng.Interface("node1/eth0", 1, 10**9))


def test_more_interfaces_than_can_be_captured(
    pcaps: Path, pipes: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said at once, and nothing is begun."""
    monkeypatch.setattr(captures, "up", lambda _: [f"veth{number}" for number in range(257)])
    (problem,) = captures.run(wanted("all"), {}, pipes[0], pipes[3])
    assert str(problem) == (
        "node1/all: cannot capture on so many interfaces: 257 of them, and at most 256 of a node "
        "can be: each has a tcpdump"
    )


def test_the_verb(
    pcaps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Problems are lines of JSON on standard error; the request is gone afterwards."""
    request = tmp_path / "request.json"
    request.write_text(
        json.dumps({"interfaces": [{"name": "a/b/eth0", "device": "eth0", "pod": "a/b"}]})
    )
    monkeypatch.setattr(state, "read", lambda: {"pods": []})
    monkeypatch.setattr(sys, "stdin", (tmp_path / "tcpdump").open())
    monkeypatch.setattr(sys, "stdout", (tmp_path / "out").open("w"))
    assert captures.main([str(request)]) == 1
    assert json.loads(capsys.readouterr().err)["where"] == "a/b/eth0"
    assert not request.exists()
    sys.stdin.close()
    sys.stdout.close()


def test_a_bounded_capture(pcaps: Path) -> None:
    """Ready when it is made; complete when its condition holds; counted when it has ended."""
    (pcaps / "eth0").write_bytes(HEADER + record(1, b"only"))
    with Capture("eth0", "icmp") as capture:
        assert capture.wait(lambda raw: b"only" in raw, 5).startswith(HEADER)
        assert capture.wait(lambda raw: b"never" in raw, 0.01).endswith(b"only")
    assert capture.summary == (
        "1 packet captured, 3 packets received by filter, 2 packets dropped by kernel"
    )


def test_a_tcpdump_without_a_device(pcaps: Path) -> None:
    """Its own words are the reason, and it has ended."""
    with pytest.raises(AgentError, match=r"eth9: tcpdump did not start: .*No such device"):
        Capture("eth9", "")


def test_a_namespace_that_is_gone() -> None:
    """As that of a pod that has just been removed."""
    with pytest.raises(AgentError, match=r"cannot be started: .*No such file"):
        Tcpdump("eth0", netns="/var/run/netns/cni-gone")
