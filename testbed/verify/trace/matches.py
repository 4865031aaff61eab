"""What a rule demands of a packet, as far as it is understood: enough to rule others' rules out."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from testbed.packets.packet import ICMP, IPIP, TCP, UDP, Packet

__all__ = ["Match", "of_iptables", "of_nftables"]

_PROTOCOLS = {
    "icmp": ICMP,
    "tcp": TCP,
    "udp": UDP,
    "ipencap": IPIP,
    "ipv4": IPIP,
    "ipip": IPIP,
    "udplite": 136,
    "sctp": 132,
    "esp": 50,
    "gre": 47,
    "igmp": 2,
    "ipv6": 41,
    "ipv6-icmp": 58,
}
_OTHER = -1


@dataclass(frozen=True, slots=True)
class Match:
    """Demands; ``None`` stands for anything."""

    source: IPv4Network | None = None
    destination: IPv4Network | None = None
    protocol: int | None = None
    source_ports: tuple[tuple[int, int], ...] = ()
    destination_ports: tuple[tuple[int, int], ...] = ()
    devices: tuple[str, ...] = field(default=())
    """Of ``-i`` and ``-o``; a trailing ``+`` or ``*`` stands for any ending."""

    def packet(self, packet: Packet) -> bool:
        """Whether ``packet`` can be meant; what it does not have excludes nothing."""
        return (
            _within(packet.source, self.source)
            and _within(packet.destination, self.destination)
            and (None in (self.protocol, packet.protocol) or self.protocol == packet.protocol)
            and _among(packet.source_port, self.source_ports)
            and _among(packet.destination_port, self.destination_ports)
        )

    def interfaces(self, names: Collection[str]) -> bool:
        """Whether one of the interfaces that the packet passes can be meant by each demand."""
        return all(any(_is(name, device) for name in names) for device in self.devices)


def _within(address: object, network: IPv4Network | None) -> bool:
    return network is None or not isinstance(address, IPv4Address) or address in network


def _among(port: int | None, ranges: Sequence[tuple[int, int]]) -> bool:
    return port is None or not ranges or any(low <= port <= high for low, high in ranges)


def _is(name: str, device: str) -> bool:
    return name.startswith(device[:-1]) if device[-1:] in ("+", "*") else name == device


def of_iptables(words: Sequence[str]) -> Match:
    """Of the words of an iptables rule; negated demands are not looked at."""
    found: dict[str, str] = {}
    devices = []
    for before, option, value in zip(("", *words), words, words[1:], strict=False):
        if before == "!":
            continue
        if option in ("-i", "-o"):
            devices.append(value)
        elif option.startswith("-"):
            found.setdefault(option, value)
    return Match(
        _network(found.get("-s")),
        _network(found.get("-d")),
        _protocol(found.get("-p")),
        _ports(found.get("--sport") or found.get("--sports"), ":"),
        _ports(found.get("--dport") or found.get("--dports"), ":"),
        tuple(devices),
    )


def of_nftables(text: str) -> Match:
    """Of a rule as nft lists it; sets by name and negated demands are not looked at."""
    protocol = re.search(r"\b(?:ip protocol|meta l4proto) (\w+)", text)
    transport = re.search(r"\b(icmp|tcp|udp) (?:type|[sd]port)\b", text)
    named = protocol or transport
    return Match(
        _network(_value(text, r"ip saddr")),
        _network(_value(text, r"ip daddr")),
        _protocol(named[1]) if named else None,
        _ports(_value(text, r"(?:tcp|udp|th) sport"), "-"),
        _ports(_value(text, r"(?:tcp|udp|th) dport"), "-"),
        tuple(name.strip('"') for name in re.findall(r'\b[io]if(?:name)? ("[^"]+"|[\w.]+)', text)),
    )


def _value(text: str, name: str) -> str | None:
    found = re.search(rf"\b{name} (\{{[^}}]*\}}|[\w./-]+)", text)
    return found[1] if found else None


def _network(text: str | None) -> IPv4Network | None:
    try:
        return IPv4Network(text, strict=False) if text else None
    except ValueError:
        return None


def _protocol(text: str | None) -> int | None:
    if text is None:
        return None
    return int(text) if text.isdigit() else _PROTOCOLS.get(text, _OTHER)


def _ports(text: str | None, dash: str) -> tuple[tuple[int, int], ...]:
    ranges = []
    for each in (text or "").strip("{} ").split(","):
        low, _, high = each.strip().partition(dash)
        if not low.isdigit():
            return ()
        ranges.append((int(low), int(high) if high.isdigit() else int(low)))
    return tuple(ranges)
