"""Capture files as packets: pcapng, as testbed and Wireshark write it, and classic pcap."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator

from testbed import collection
from testbed.agent import pcapng
from testbed.packets.decoder import LINK_TYPES, VXLAN_PORTS, decode
from testbed.packets.packet import Packet

__all__ = ["read"]

_MAGICS = {0xA1B2C3D4: 1_000, 0xA1B23C4D: 1}
"""Magic number → nanoseconds per unit of a timestamp's second field."""
_SECTION = b"\x0a\x0d\x0d\x0a"


def read(data: bytes, ports: Collection[int] = VXLAN_PORTS, interface: str = "") -> list[Packet]:
    """Decode every frame of a capture file, up to where it ends or is cut.

    Args:
        data: the file.
        ports: UDP destination ports that carry VXLAN.
        interface: where a classic pcap file was captured; a pcapng file says so itself.

    Raises:
        ValueError: not a capture file, or of a link type that is not decoded.
    """
    with collection.paused():  # a quarter of the time
        if data.startswith(_SECTION):
            return list(_pcapng(data, ports))
        return list(_pcap(data, ports, interface))


def _pcapng(data: bytes, ports: Collection[int]) -> Iterator[Packet]:
    interfaces: list[pcapng.Interface] = []
    for block in pcapng.Reader().feed(data):
        if isinstance(block, pcapng.Interface):
            _known(block.link_type)
            interfaces.append(block)
        elif isinstance(block, pcapng.Record):
            seen = interfaces[block.index]
            yield decode(
                block.data,
                seen.link_type,
                ports=ports,
                time_ns=block.time_ns,
                length=block.length,
                interface=seen.name,
                direction=block.direction,
            )


def _pcap(data: bytes, ports: Collection[int], interface: str) -> Iterator[Packet]:
    if len(data) < 24:
        if data:
            raise ValueError("not a capture file: shorter than a header")
        return
    for order in "<>":
        magic, *_, link_type = struct.unpack_from(f"{order}IHHiIII", data)
        if magic in _MAGICS:
            break
    else:
        raise ValueError("not a capture file: unknown magic number")
    _known(link_type)
    record = struct.Struct(f"{order}IIII")
    at = 24
    while at + record.size <= len(data):
        seconds, fraction, captured, length = record.unpack_from(data, at)
        at += record.size
        if at + captured > len(data):
            return
        yield decode(
            data[at : at + captured],
            link_type,
            ports=ports,
            time_ns=seconds * 10**9 + fraction * _MAGICS[magic],
            length=length,
            interface=interface,
        )
        at += captured


def _known(link_type: int) -> None:
    if link_type not in LINK_TYPES:
        raise ValueError(f"link type {link_type} instead of Ethernet (1), raw IP (101) or cooked")
