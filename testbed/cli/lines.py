"""Captured packets as lines: for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.agent.pcapng import Record
    from testbed.packets.packet import Packet
    from testbed.topology.model import Cluster
    from testbed.verify.recording import Recording

__all__ = ["json", "text", "vxlan_ports"]


def text(recording: Recording, cluster: Cluster) -> Callable[[Record], str]:
    """When, where, and what, for people."""
    import time

    from testbed.packets.text import line

    decoded = _decoder(recording, cluster)
    width = max(len(each.name) for each in recording.interfaces)

    def shown(record: Record) -> str:
        packet = decoded(record)
        seconds, fraction = divmod(record.time_ns, 10**9)
        clock = time.strftime("%H:%M:%S", time.localtime(seconds))
        return f"{clock}.{fraction // 1000:06}  {packet.interface:{width}}  {line(packet)}"

    return shown


def json(recording: Recording, cluster: Cluster) -> Callable[[Record], str]:
    """When, where, and what, for programs: one object a line, as the capture may not end."""
    from json import dumps

    from testbed.packets.serialize import to_json

    decoded = _decoder(recording, cluster)

    def shown(record: Record) -> str:
        packet = decoded(record)
        seen = {"time_ns": record.time_ns, "interface": packet.interface}
        return dumps({**seen, "packet": to_json(packet)})

    return shown


def _decoder(recording: Recording, cluster: Cluster) -> Callable[[Record], Packet]:
    from testbed.packets.decoder import decode

    ports = vxlan_ports(cluster)

    def decoded(record: Record) -> Packet:
        seen = recording.interfaces[record.index]
        return decode(
            record.data, seen.link_type, ports=ports, length=record.length, interface=seen.name
        )

    return decoded


def vxlan_ports(cluster: Cluster) -> frozenset[int]:
    """UDP ports that carry VXLAN: the usual ones, and the topology's own."""
    from testbed.packets.decoder import VXLAN_PORTS
    from testbed.verify import oracle

    ways = oracle.encapsulations(cluster)
    return VXLAN_PORTS | {way.port for way in ways if isinstance(way, oracle.Vxlan)}
