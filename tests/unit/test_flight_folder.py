"""What a flight recorder's folder is called and holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed.agent import pcapng
from testbed.flight_folder import cleared, folder_name, save
from testbed.flight_recorder import Evidence
from testbed.packets.merging import merged

STATE = {"pods": [{"namespace": "default", "name": "web", "host_interface": "veth1"}]}


def file(name: str, *times: int) -> bytes:
    """A node's packets."""
    packets = [pcapng.packet(0, time, bytes([time]), 60, "in") for time in times]
    return b"".join([pcapng.section("x"), pcapng.interface(name, 276), *packets])


def test_names_are_files_and_differ() -> None:
    """Parameters stay readable; long names end with a digest."""
    assert folder_name("tests/live/test_a.py::test_b[x-1]") == "tests.live.test_a.py--test_b-x-1"
    assert folder_name("a.py::test[ip route del 10.0.0.0/8]").startswith("a.py--test-ip-route-del-")
    assert "/" not in folder_name("../../etc/x")
    assert not folder_name("../../etc/x").startswith(".")
    long, longer = (folder_name("a.py::test[" + "z" * length) for length in (300, 301))
    assert len({folder_name("test[a b]"), folder_name("test[a-b]"), long, longer}) == 4
    assert len(long) < 140
    assert len(folder_name(f"a.py::test[{'字' * 100}]").encode()) < 140


@pytest.mark.parametrize(
    ("one", "other"),
    [("a/b", "a.b"), ("a::b", "a--b"), ("a]b", "ab"), ("a[b", "a-b"), ("\udc80", "\udc81")],
)
def test_names_of_different_parameters_differ(one: str, other: str) -> None:
    """However much alike they are: one test's folder must not replace another's."""
    assert folder_name(f"a.py::test[{one}]") != folder_name(f"a.py::test[{other}]")


def test_merged_by_time() -> None:
    """Every file's interfaces are kept apart."""
    reader = pcapng.Reader()
    blocks = reader.feed(merged([file("a/eth0", 1, 4), b"", file("b/eth0", 2, 3)], "test"))
    records = [block for block in blocks if isinstance(block, pcapng.Record)]
    assert [reader.interfaces[each.index].name for each in records] == [
        "a/eth0",
        "b/eth0",
        "b/eth0",
        "a/eth0",
    ]
    assert [(each.time_ns, each.data, each.length, each.direction) for each in records] == [
        (time, bytes([time]), 60, "in") for time in (1, 2, 3, 4)
    ]


def test_folder_and_its_list(tmp_path: Path) -> None:
    """Texts in a folder per node; the summary names pods and what is missing."""
    texts = {"routes.txt": "default", "agent-state.json": json.dumps(STATE)}
    counts = "2 packets captured, 0 packets dropped by kernel"
    found = [
        Evidence("node1", file("node1/veth1", 1, 2), texts, ("late",), 1_000_000_000, counts),
        Evidence("node2", problems=("No such container",)),
    ]
    listed = save(
        tmp_path / "x", found, headline="t failed", slice_ns=(1_000_000_000, 1_500_000_000)
    )
    assert listed == [
        "summary.txt",
        "packets.pcapng: 2 frames",
        "node1/ agent-state.json routes.txt",
        "node1: late",
        "node2/ (nothing)",
        "node2: No such container",
    ]
    assert (tmp_path / "x/node1/routes.txt").read_text() == "default"
    assert (tmp_path / "x/summary.txt").read_text() == (
        "t failed\n"
        "from 1970-01-01 00:00:01.000 to 1970-01-01 00:00:01.500 UTC, 0.500 s\n"
        "\n"
        f"node1: recording since 1970-01-01 00:00:01.000; {counts}\n"
        "  problem: late\n"
        f"  {'node1/veth1':32}      2 frames  default/web\n"
        "node2: recording since (never)\n"
        "  problem: No such container\n"
    )


def test_only_own_folders_are_cleared(tmp_path: Path) -> None:
    """A failure of an earlier run goes, with one testbed or several; what others made stays."""
    for path in ("one/summary.txt", "two/bed/summary.txt", "other/notes.txt"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("")
    for name in ("one", "two", "other", "none"):
        cleared(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
