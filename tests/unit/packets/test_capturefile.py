"""Reading and merging capture files, whole, of several sections, and damaged."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.agent import pcapng
from testbed.packets.capturefile import read
from testbed.packets.merging import merged
from testbed.packets.packet import Packet

FRAME = bytes.fromhex("020000000002020000000001" + "88b5") + b"payload"
CORPUS = Path(__file__).parent / "corpus"
WHOLE = [path.read_bytes()[:3000] for path in sorted(CORPUS.glob("*.pcap*"))]


def section(*names: str, link_type: int = 1) -> bytes:
    """A section with one frame of each interface."""
    described = [pcapng.interface(name, link_type) for name in names]
    frames = [pcapng.packet(number, 10**18, FRAME, 60) for number in range(len(names))]
    return b"".join([pcapng.section("testbed"), *described, *frames])


def test_every_section_has_interfaces_of_its_own() -> None:
    """pcapng files that were put one after the other, as `cat` does, are one file."""
    file = section("node1/eth0", "node1/cni0") + section("node2/eth0")
    assert [each.interface for each in read(file)] == ["node1/eth0", "node1/cni0", "node2/eth0"]


def test_sections_merge_with_the_interfaces_that_they_had() -> None:
    """One section of all; an interface that occurs in both is described once."""
    file = section("node1/eth0", "node1/cni0") + section("node2/eth0", "node1/eth0")
    blocks = pcapng.Reader().feed(merged([file], "testbed"))
    described = [each.name for each in blocks if isinstance(each, pcapng.Interface)]
    assert described == ["node1/eth0", "node1/cni0", "node2/eth0"]
    records = [each for each in blocks if isinstance(each, pcapng.Record)]
    assert [described[each.index] for each in records] == [
        "node1/eth0",
        "node1/cni0",
        "node2/eth0",
        "node1/eth0",
    ]


def test_a_file_cut_anywhere_has_the_packets_before() -> None:
    """Never more than the whole file, never an error."""
    file = section("node1/eth0", "node1/cni0") + section("node2/eth0")
    counts = [len(read(file[:end])) for end in range(12, len(file) + 1)]
    assert counts[-1] == 3
    assert all(after - before in (0, 1) for before, after in pairwise(counts))


@settings(max_examples=2_000, deadline=None, database=None, derandomize=True)
@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    st.integers(0, 3000),
)
def test_a_damaged_file_is_refused_or_read(
    file: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    """2,000 files, damaged in up to four places and cut anywhere: packets, or why not."""
    damaged = bytearray(file)
    for at, value in changes:
        if at < len(damaged):
            damaged[at] = value
    data = bytes(damaged[: len(damaged) - cut] if cut % 2 else damaged)
    for work in (read, lambda some: read(merged([some, section("node1/eth0")], "testbed"))):
        with suppress(ValueError):
            assert all(isinstance(each, Packet) for each in work(data))
