"""Several pcapng files as one, ordered by time."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from testbed.agent import pcapng

__all__ = ["merged"]


def merged(files: Iterable[bytes], application: str) -> bytes:
    """One pcapng file of several; of packets with the same time, those of the first file first.

    Raises:
        ValueError: one of them is no pcapng.
    """
    described: dict[pcapng.Interface, int] = {}
    records: list[pcapng.Record] = []
    for file in files:
        reader = pcapng.Reader()
        blocks = reader.feed(file)
        numbers = [described.setdefault(each, len(described)) for each in reader.interfaces]
        records += [
            each._replace(index=numbers[each.index])
            for each in blocks
            if isinstance(each, pcapng.Record)
        ]
    records.sort(key=attrgetter("time_ns"))
    interfaces = (pcapng.interface(each.name, each.link_type) for each in described)
    packets = (pcapng.packet(*each) for each in records)
    return b"".join([pcapng.section(application), *interfaces, *packets])
