"""Marked pings with any of ping's options, and tshark as the independent judge of captures."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

from testbed.api.packets import Captured
from testbed.api.ping import MARK as MARK_BYTES
from testbed.packets.packet import Packet
from testbed.packets.selection import Packets
from tests.live.conftest import SLOWNESS, Running

__all__ = ["MARK", "marked", "ping", "replies", "requests", "same_as_tshark"]

MARK = MARK_BYTES.hex()
"""Hexadecimal pattern of the pings, by which their frames are found."""


def marked(packets: Packets) -> Packets:
    """The packets of the test's own pings."""
    return packets.containing(MARK_BYTES)


def requests(packets: Packets) -> Packets:
    """The marked echo requests, as they were captured: outer headers first."""
    return marked(packets).icmp(8)


def replies(packets: Packets) -> Packets:
    """The marked echo replies."""
    return marked(packets).icmp(0)


def ping(live: Running, source: str, ip: str, *options: str) -> str:
    """Three marked pings from a pod or node, with options that only ``ping`` itself has."""
    words = " ".join(options)
    wait = math.ceil(2 * SLOWNESS)
    return str(
        live.host(source).check_output(f"ping -n -c 3 -i 0.05 -W {wait} -p {MARK} {words} {ip}")
    )


def same_as_tshark(wire: Captured, tmp_path: Path) -> None:
    """Every marked frame of a capture, decoded by a program that none of us wrote."""
    path = tmp_path / "wire.pcapng"
    path.write_bytes(wire.pcapng)
    fields = (
        "frame.interface_name",
        "eth.src",
        "eth.dst",
        "ip.src",
        "ip.dst",
        "ip.ttl",
        "ip.flags.df",
        "ip.proto",
        "udp.srcport",
        "udp.dstport",
        "vxlan.vni",
        "icmp.type",
    )
    words = [word for name in fields for word in ("-e", name)]
    pattern = ":".join(MARK[at : at + 2] for at in range(0, len(MARK), 2))
    chosen = ["-d", "udp.port==8472,vxlan", "-Y", f"data contains {pattern}"]
    shown = subprocess.run(
        ["tshark", "-r", str(path), *chosen, "-T", "json", *words],
        check=True,
        capture_output=True,
        text=True,
    )
    theirs = [each["_source"]["layers"] for each in json.loads(shown.stdout)]
    ours = [in_tshark_s_words(frame) for frame in marked(wire)]
    assert [normal(each) for each in theirs] == ours
    assert ours


def layers(frame: Packet) -> list[Packet]:
    """The frame and those inside it."""
    return [frame, *layers(frame.inner)] if frame.inner else [frame]


def in_tshark_s_words(frame: Packet) -> dict[str, list[str]]:
    """A frame as tshark's fields, outermost first; absent fields are left out."""
    stack = layers(frame)
    fields: dict[str, list[object | None]] = {
        "frame.interface_name": [frame.interface],
        "eth.src": [each.source_mac for each in stack],
        "eth.dst": [each.destination_mac for each in stack],
        "ip.src": [each.source for each in stack],
        "ip.dst": [each.destination for each in stack],
        "ip.ttl": [each.ttl for each in stack],
        "ip.flags.df": [int(bool(each.dont_fragment)) for each in stack],
        "ip.proto": [each.protocol for each in stack],
        "udp.srcport": [each.source_port for each in stack if each.protocol == 17],
        "udp.dstport": [each.destination_port for each in stack if each.protocol == 17],
        "vxlan.vni": [each.vni for each in stack],
        "icmp.type": [each.icmp_type for each in stack],
    }
    there = {name: [each for each in values if each is not None] for name, values in fields.items()}
    return {name: [str(each) for each in values] for name, values in there.items() if values}


def normal(fields: dict[str, list[str]]) -> dict[str, list[str]]:
    """tshark 4.0 prints flags as 0 and 1, later versions as False and True."""
    words = {"False": "0", "True": "1"}
    return {name: [words.get(value, value) for value in values] for name, values in fields.items()}
