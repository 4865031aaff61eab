"""A packet as plain data for ``-o json``: every key is always there, ``null`` where unknown.

Addresses are strings, and a packet holds what it carries as ``inner``.
"""

from __future__ import annotations

from typing import Any, overload

from testbed.packets.packet import Packet

__all__ = ["to_json"]

_ELSEWHERE = frozenset({"tcp", "quoted", "inner", "arp", "payload"})
"""Fields that are told in another form."""
_SEEN = frozenset({"time_ns", "interface", "direction"})
"""What is known of a whole frame only: whoever shows one says it in its own way."""
_FIELDS = tuple(name for name in Packet._fields if name not in _ELSEWHERE | _SEEN)
_TEXT = ("source", "destination")


@overload
def to_json(packet: Packet) -> dict[str, Any]: ...
@overload
def to_json(packet: None) -> None: ...
def to_json(packet: Packet | None) -> dict[str, Any] | None:
    """Every field but when and where it was seen, and of the payload the length alone."""
    if packet is None:
        return None
    value = {name: getattr(packet, name) for name in _FIELDS}
    value |= {name: None if value[name] is None else str(value[name]) for name in _TEXT}
    value["vlans"] = list(packet.vlans)
    value["payload_length"] = len(packet.payload)
    value["tcp"] = packet.tcp._asdict() if packet.tcp else None
    value["arp"] = _texts(packet.arp._asdict()) if packet.arp else None
    value["quoted"] = to_json(packet.quoted) if packet.quoted else None
    value["inner"] = to_json(packet.inner) if packet.inner else None
    return value


def _texts(arp: dict[str, Any]) -> dict[str, Any]:
    return {key: value if isinstance(value, int) else str(value) for key, value in arp.items()}
