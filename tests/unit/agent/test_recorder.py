"""Reading a ring of tcpdump's files, and the texts of a node."""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from pathlib import Path

import pytest

from testbed.agent import evidence, pcapng, recorder

OUT, IN = 4, 0


def cooked(interface: int, kind: int = IN, payload: bytes = b"payload") -> bytes:
    """A frame with the header of LINUX_SLL2."""
    return struct.pack(">HHIHBB8s", 0x0800, 0, interface, 1, kind, 6, bytes(8)) + payload


def classic(*frames: tuple[int, bytes], cut: int = 0) -> bytes:
    """A pcap file with nanoseconds, as tcpdump writes it here; without its last ``cut`` bytes."""
    parts = [struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 256, 276)]
    for time_ns, data in frames:
        head = struct.pack("=IIII", time_ns // 10**9, time_ns % 10**9, len(data), len(data) + 9)
        parts.append(head + data)
    whole = b"".join(parts)
    return whole[: len(whole) - cut]


def answer(ring: Path, begin_ns: int, end_ns: int, files: int = 8) -> dict[str, object]:
    """What the agent answers to a request."""
    request = {"node": "node1", "ring": str(ring), "files": files}
    return recorder.run({**request, "begin_ns": begin_ns, "end_ns": end_ns})


def frames(told: dict[str, object]) -> list[tuple[str, int, str, int]]:
    """Interface, time, direction and length of an answer's frames."""
    reader = pcapng.Reader()
    blocks = reader.feed(b64decode(str(told["pcapng"])))
    return [
        (reader.interfaces[each.index].name, each.time_ns, each.direction, each.length)
        for each in blocks
        if isinstance(each, pcapng.Record)
    ]


def test_slice_of_all_files_in_order_of_time(tmp_path: Path) -> None:
    """The ring's files are in any order; interfaces and directions come from the cooked header."""
    (tmp_path / "links").write_text(
        "7: eth0@if9: <UP> mtu 1500\n8: gone: <>\nDeleted 8: gone: <>\n"
    )
    (tmp_path / "ring0").write_bytes(
        classic((3_000_000_005, cooked(8)), (4_000_000_000, cooked(7)))
    )
    (tmp_path / "ring1").write_bytes(
        classic((1_000_000_000, cooked(7)), (2_000_000_001, cooked(7, OUT)))
    )
    told = answer(tmp_path, 2_000_000_001, 3_000_000_005)
    length = len(cooked(7)) + 9
    assert frames(told) == [
        ("node1/eth0", 2_000_000_001, "out", length),
        ("node1/gone", 3_000_000_005, "in", length),
    ]
    assert told["oldest_ns"] == 0
    assert told["problems"] == ["tcpdump does not run"]
    assert told["texts"] == {}


@pytest.mark.parametrize("cut", [1, 20, 30, 40])
def test_frame_that_is_still_being_written_is_left_out(tmp_path: Path, cut: int) -> None:
    """What comes before it is complete."""
    file = classic((1_000_000_000, cooked(99)), (1_000_000_001, cooked(99)), cut=cut)
    (tmp_path / "ring0").write_bytes(file)
    assert [row[:2] for row in frames(answer(tmp_path, 0, 2**62))] == [
        ("node1/if99", 1_000_000_000)
    ]


def test_full_ring_tells_its_oldest_frame(tmp_path: Path) -> None:
    """Whatever was before it may have been overwritten."""
    (tmp_path / "ring0").write_bytes(classic((5_000_000_000, cooked(1))))
    (tmp_path / "ring1").write_bytes(classic((4_000_000_000, cooked(1))))
    (tmp_path / "ring2").write_bytes(classic())
    assert answer(tmp_path, 0, 1, files=2)["oldest_ns"] == 4_000_000_000


def test_ring_that_was_never_begun(tmp_path: Path) -> None:
    """An empty file, and a problem."""
    told = answer(tmp_path / "nowhere", 0, 2**62)
    assert frames(told) == []
    assert told["problems"] == ["tcpdump does not run"]


def test_another_process_is_not_stopped(tmp_path: Path) -> None:
    """A process identity may have gone to another program meanwhile."""
    (tmp_path / "pid").write_text("1")
    assert answer(tmp_path, 0, 1)["problems"] == ["tcpdump does not run"]


def test_existing_interfaces_outrank_the_log(tmp_path: Path) -> None:
    """The log's last word may be older than a name."""
    (tmp_path / "links").write_text("3: old: <>\n4: veth1@eth0: <>\n")
    assert recorder.names(tmp_path, [(3, "new")]) == {3: "new", 4: "veth1"}


def test_verb_prints_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The request is removed."""
    request = tmp_path / "request"
    words = {"node": "a", "ring": str(tmp_path), "files": 8, "begin_ns": 0, "end_ns": 1}
    request.write_text(json.dumps(words))
    assert recorder.main([str(request)]) == 0
    assert json.loads(capsys.readouterr().out)["problems"]
    assert not request.exists()


def test_texts_say_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command below its words; one that is missing or fails says so, in its place."""
    commands = {"a.txt": ("echo one", "no-such-command"), "b.txt": ("false",)}
    monkeypatch.setattr(evidence, "COMMANDS", commands)
    monkeypatch.setattr(evidence, "_filters", lambda: "")
    found = evidence.texts()
    assert found["a.txt"].startswith("$ echo one\none\n\n$ no-such-command\n")
    assert "No such file" in found["a.txt"]
    assert found["b.txt"] == "$ false\nexit status 1\n"
    assert "filters.txt" not in found
    assert "net/ipv4/ip_forward = " in found["sysctls.txt"]
