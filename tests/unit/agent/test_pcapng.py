"""pcapng blocks: written, read back, and read by tshark and from other programs' files."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.agent import pcapng

FRAME = bytes.fromhex("020000000002020000000001" + "88b5") + b"payload"
TIME = 1_795_252_853_823_752_225


def file() -> bytes:
    """Two interfaces, two packets, counts at the end."""
    return b"".join(
        (
            pcapng.section("testbed"),
            pcapng.interface("node1/eth0", 1, filter="icmp"),
            pcapng.interface("default/web/eth0", 1, snaplen=256),
            pcapng.packet(1, TIME, FRAME, 1500, "in"),
            pcapng.packet(0, TIME + 1, FRAME[:-1], len(FRAME)),
            pcapng.statistics(0, TIME + 2),
            pcapng.statistics(0, TIME + 3, received=12, dropped=1),
        )
    )


BLOCKS = [
    pcapng.Interface("node1/eth0", 1, 10**9),
    pcapng.Interface("default/web/eth0", 1, 10**9),
    pcapng.Record(1, TIME, FRAME, 1500, "in"),
    pcapng.Record(0, TIME + 1, FRAME[:-1], len(FRAME), ""),
    pcapng.Statistics(0, TIME + 2, None, None),
    pcapng.Statistics(0, TIME + 3, 12, 1),
]


def test_what_is_written_is_read_back() -> None:
    """Names, nanoseconds, both lengths, directions, counts."""
    assert pcapng.Reader().feed(file()) == BLOCKS


@given(st.integers(1, 40))
def test_a_stream_may_come_in_any_pieces(size: int) -> None:
    """A block that is cut waits for its rest."""
    reader, whole = pcapng.Reader(), file()
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert [block for piece in pieces for block in reader.feed(piece)] == BLOCKS


def test_tshark_reads_it(tmp_path: Path) -> None:
    """Interface names, times and lengths as another program sees them."""
    path = tmp_path / "own.pcapng"
    path.write_bytes(file())
    tshark = shutil.which("tshark")
    assert tshark, "`make test-tools` installs tshark"
    fields = ("frame.interface_name", "frame.time_epoch", "frame.len", "frame.cap_len")
    words = [word for name in fields for word in ("-e", name)]
    shown = subprocess.run(
        [tshark, "-n", "-r", str(path), "-T", "fields", *words],
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout.splitlines() == [
        "default/web/eth0\t1795252853.823752225\t1500\t21",
        "node1/eth0\t1795252853.823752226\t21\t20",
    ]


@pytest.mark.parametrize(("resolution", "unit"), [(None, 1_000), (3, 1_000_000), (0x94, 953)])
def test_files_of_other_programs(resolution: int | None, unit: int) -> None:
    """Big-endian, microseconds unless said otherwise, powers of two, unknown blocks and options."""

    def block(kind: int, body: bytes) -> bytes:
        total = struct.pack(">I", 12 + len(body))
        return struct.pack(">I", kind) + total + body + total

    options = struct.pack(">HH4s", 1, 4, b"note")
    if resolution is not None:
        options += struct.pack(">HHBxxx", 9, 1, resolution)
    data = block(0x0A0D0D0A, struct.pack(">IHHq", 0x1A2B3C4D, 1, 0, -1))
    data += block(0xBAD, b"what is this") + block(1, struct.pack(">HHI", 1, 0, 0) + options)
    data += block(6, struct.pack(">IIIII", 0, 0, 7, 4, 4) + b"abcd")
    (described, record) = pcapng.Reader().feed(data)
    assert isinstance(described, pcapng.Interface)
    assert isinstance(record, pcapng.Record)
    assert abs(record.time_ns - 7 * unit) <= 7
    assert (record.data, described.name) == (b"abcd", "")


def test_a_new_section_begins_anew() -> None:
    """It numbers its interfaces from 0 again, the reader on: files may simply be joined."""
    reader = pcapng.Reader()
    blocks = reader.feed(file() + file())
    assert blocks[: len(BLOCKS)] == BLOCKS
    records = [each for each in blocks if isinstance(each, pcapng.Record)]
    assert [each.index for each in records] == [1, 0, 3, 2]
    assert reader.interfaces == BLOCKS[:2] * 2


def test_a_time_that_nanoseconds_do_not_hold() -> None:
    """Refused when it is read, so that whatever was read can be written."""
    described = struct.pack("<HHIHHB3xI", 1, 0, 0, 9, 1, 0, 0)  # in seconds
    block = struct.pack("<II", 1, 12 + len(described)) + described
    file = pcapng.section("x") + block + struct.pack("<I", 12 + len(described))
    assert pcapng.Reader().feed(file + pcapng.packet(0, 2**34, FRAME, 21))
    with pytest.raises(ValueError, match="not pcapng: a time after"):
        pcapng.Reader().feed(file + pcapng.packet(0, 2**35, FRAME, 21))


@pytest.mark.parametrize(
    "data",
    [
        bytes(12),
        b"\x0a\x0d\x0d\x0a" + bytes(24),
        pcapng.section("x") + struct.pack("<II", 6, 13) + bytes(8),
        pcapng.section("x") + struct.pack("<II", 6, 1 << 30) + bytes(8),
        pcapng.section("x") + pcapng.packet(0, TIME, FRAME, 21),
        pcapng.section("x") + struct.pack("<III", 5, 16, 0) + struct.pack("<I", 16),
    ],
)
def test_what_is_no_pcapng(data: bytes) -> None:
    """Refused with one kind of error; so is a packet of an interface that was not described."""
    with pytest.raises(ValueError, match="not pcapng"):
        pcapng.Reader().feed(data)


@given(st.binary(max_size=60), st.integers(0, 200))
def test_damage_is_a_value_error(noise: bytes, at: int) -> None:
    """Never another exception."""
    damaged = bytearray(file())
    damaged[at : at + len(noise)] = noise
    try:
        pcapng.Reader().feed(bytes(damaged))
    except ValueError:
        return
