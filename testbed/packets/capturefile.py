"""Capture files as packets: pcapng, as testbed and Wireshark write it, and classic pcap."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from testbed import collection
from testbed.agent import pcap, pcapng
from testbed.packets.decoder import LINK_TYPES, VXLAN_PORTS, decode
from testbed.packets.packet import Packet

__all__ = ["read"]

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
    reader = pcap.Reader()
    records = reader.feed(data)
    if reader.link_type is None:
        if data:
            raise ValueError("not a capture file: shorter than a header")
        return
    _known(reader.link_type)
    for time_ns, frame, length in records:
        yield decode(
            frame,
            reader.link_type,
            ports=ports,
            time_ns=time_ns,
            length=length,
            interface=interface,
        )


def _known(link_type: int) -> None:
    if link_type not in LINK_TYPES:
        raise ValueError(f"link type {link_type} instead of Ethernet (1), raw IP (101) or cooked")
