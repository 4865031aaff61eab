"""One packet as one line, in the manner of tcpdump, with what carries it first."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.agent.icmp import ERRORS
from testbed.packets.packet import ICMP, ICMPV6, TCP, UDP, Packet

__all__ = ["ends", "line", "protocol", "table"]

_ROWS = 20

_ICMP = {
    0: "echo reply",
    3: "unreachable",
    5: "redirect",
    8: "echo request",
    11: "time exceeded",
    12: "parameter problem",
}
_ICMPV6 = {
    1: "unreachable",
    2: "packet too big",
    3: "time exceeded",
    4: "parameter problem",
    128: "echo request",
    129: "echo reply",
    130: "multicast listener query",
    131: "multicast listener report",
    132: "multicast listener done",
    133: "router solicitation",
    134: "router advertisement",
    135: "neighbor solicitation",
    136: "neighbor advertisement",
    137: "redirect",
    143: "multicast listener report",
}
_ETHERTYPES = {0x8100: "VLAN", 0x88CC: "LLDP", 0x0806: "ARP"}
_LARGEST_802_3 = 1500
"""Up to here it is the length of a frame, of spanning tree for example."""
_PROTOCOLS = {
    2: "IGMP",
    4: "IP-in-IP",
    41: "IPv6-in-IP",
    47: "GRE",
    50: "ESP",
    89: "OSPF",
    112: "VRRP",
    132: "SCTP",
}


def line(packet: Packet) -> str:
    """The packet, outermost header first: ``A > B: VXLAN VNI 1: C > D: ICMP echo request …``."""
    vlans = "".join(f"vlan {tag} " for tag in packet.vlans)
    return f"{vlans}{_line(packet)}"


def ends(packet: Packet) -> str:
    """``SOURCE > DESTINATION``, with ports where there are any."""
    return f"{_end(packet.source, packet.source_port)} > " + _end(
        packet.destination, packet.destination_port
    )


def protocol(packet: Packet) -> str:
    """What the packet is, without its addresses."""
    if packet.arp is not None:
        return _arp(packet)
    if packet.vni is not None:
        return f"VXLAN VNI {packet.vni}"
    if packet.protocol is None and 0 < packet.ethertype <= _LARGEST_802_3:
        return "802.3"
    if packet.protocol is None:
        return _ETHERTYPES.get(packet.ethertype, f"ethertype 0x{packet.ethertype:04x}")
    if packet.fragment_offset:
        return f"fragment at {packet.fragment_offset} of {packet.identification}"
    if packet.protocol in (ICMP, ICMPV6):
        return _icmp(packet)
    if packet.tcp is not None:
        return f"TCP [{packet.tcp.flags}] seq {packet.tcp.sequence}" + (
            f" ack {packet.tcp.acknowledgement}" if "." in packet.tcp.flags else ""
        )
    names = {UDP: "UDP", TCP: "TCP", **_PROTOCOLS}
    return names.get(packet.protocol, f"protocol {packet.protocol}")


def table(packets: Sequence[Packet], reasons: Sequence[str] = ()) -> str:
    """Packets one below the other: time since the first, interface, packet, and what is wrong."""
    if not packets:
        return "  (nothing)"
    first = packets[0].time_ns
    width = max(len(each.interface) for each in packets[:_ROWS])
    rows = [
        f"  {(each.time_ns - first) / 1e6:9.3f} ms  {each.interface:{width}}  {line(each)}"
        + (f"   <- {reasons[number]}" if number < len(reasons) and reasons[number] else "")
        for number, each in enumerate(packets[:_ROWS])
    ]
    if len(packets) > _ROWS:
        rows.append(f"  … and {len(packets) - _ROWS} more")
    return "\n".join(rows)


def _line(packet: Packet) -> str:
    if packet.arp is not None:
        return _arp(packet)
    if packet.source is None:
        return f"{packet.source_mac} > {packet.destination_mac}: {protocol(packet)}"
    if packet.inner is not None:
        return f"{ends(packet)}: {protocol(packet)}: {_line(packet.inner)}"
    words = f"{ends(packet)}: {protocol(packet)}, ttl {packet.ttl}"
    if packet.payload:
        words += f", length {len(packet.payload)}"
    if packet.more_fragments and not packet.fragment_offset:
        words += f", fragment at 0 of {packet.identification}"
    return words


def _end(address: object, port: int | None) -> str:
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"


def _arp(packet: Packet) -> str:
    assert packet.arp is not None
    if packet.arp.operation == 1:
        return f"ARP who has {packet.arp.target}? tell {packet.arp.sender}"
    return f"ARP {packet.arp.sender} is at {packet.arp.sender_mac}"


def _icmp(packet: Packet) -> str:
    kind = packet.icmp_type
    if kind is None:
        return "ICMP, cut short"
    if packet.protocol == ICMPV6:
        words = f"ICMPv6 {_ICMPV6.get(kind, f'type {kind}')}"
    else:
        said = ERRORS.get((kind, packet.icmp_code or 0)) or _ICMP.get(kind, f"type {kind}")
        words = f"ICMP {said}"
    if packet.icmp_identity is not None:
        words += f", id {packet.icmp_identity}, seq {packet.icmp_sequence}"
    if packet.icmp_mtu is not None:
        words += f", MTU {packet.icmp_mtu}"
    if packet.quoted is not None:
        words += f", about {ends(packet.quoted)}"
    return words
