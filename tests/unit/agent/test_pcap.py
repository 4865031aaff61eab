"""Reading classic pcap as it comes."""

from __future__ import annotations

import struct

import pytest

from testbed.agent.pcap import Reader, Record


def header(order: str = "<", magic: int = 0xA1B23C4D, link_type: int = 1) -> bytes:
    """The beginning of a file."""
    return struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)


def record(data: bytes, order: str = "<", length: int | None = None) -> bytes:
    """A frame at 3 seconds and 5 units."""
    return struct.pack(f"{order}IIII", 3, 5, len(data), length or len(data)) + data


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "fraction"), [(0xA1B2C3D4, 5_000), (0xA1B23C4D, 5)])
def test_both_byte_orders_and_both_units(order: str, magic: int, fraction: int) -> None:
    """The magic number tells both."""
    reader = Reader()
    file = header(order, magic, 101) + record(b"abc", order, 60)
    assert reader.feed(file) == [Record(3_000_000_000 + fraction, b"abc", 60)]
    assert reader.link_type == 101


def test_a_stream_that_comes_byte_by_byte() -> None:
    """What is cut waits for its rest; nothing comes twice."""
    reader = Reader()
    file = header() + record(b"abc") + record(b"") + record(b"defg")
    found = [each.data for at in range(len(file)) for each in reader.feed(file[at : at + 1])]
    assert found == [b"abc", b"", b"defg"]


def test_the_link_type_is_known_once_the_header_is_complete() -> None:
    """Not before."""
    reader = Reader()
    assert reader.feed(header()[:23]) == []
    assert reader.link_type is None
    assert reader.feed(header()[23:]) == []
    assert reader.link_type == 1


def test_what_is_said_of_checksums_is_not_link_type() -> None:
    """The upper bits of that word tell how long the frames' checksums are."""
    reader = Reader()
    reader.feed(header(link_type=0x14000001))
    assert reader.link_type == 1


def test_another_file_is_refused() -> None:
    """Whatever has another magic number."""
    with pytest.raises(ValueError, match="magic number"):
        Reader().feed(bytes(24))
