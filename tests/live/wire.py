"""Captures on nodes, marked pings, and tshark as the independent judge of both."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed.node import archive
from testbed.packets import capturefile
from testbed.packets.packet import Packet
from tests.live.conftest import SLOWNESS, Running

__all__ = ["MARK", "Capture", "captured", "ping", "same_as_tshark"]

TRIES = math.ceil(100 * SLOWNESS)
"""How often a shell loop of 0.02 s looks."""
MARK = "7e57bed0"
"""Hexadecimal pattern of the pings, by which their frames are found."""


@dataclass
class Capture:
    """What a capture holds once it has ended."""

    pcap: bytes = b""
    frames: list[Packet] = field(default_factory=list)

    def marked(self) -> list[Packet]:
        """The frames of the test's own pings."""
        mark = bytes.fromhex(MARK)
        return [frame for frame in self.frames if mark in frame.innermost.payload]


@contextmanager
def captured(
    live: Running, node: str, interface: str, expression: str = "ip", replies: int = 3
) -> Iterator[Capture]:
    """Run tcpdump on a node's interface: open before the block starts, complete when it ends.

    Complete means that ``replies`` marked echo replies were seen: frames are written in wire order.
    """
    host = live.host(node)
    path = f"/tmp/live-{node}-{interface}.pcap"
    host.check_output(
        f"rm -f {path} {path}.log; "
        f"(tcpdump -i {interface} --immediate-mode -U -w {path} '{expression}' "
        f">/dev/null 2>{path}.log & echo $! >{path}.pid); "
        f"for try in $(seq {TRIES}); do grep -q listening {path}.log && exit 0; sleep 0.02; done; "
        "exit 1"
    )
    found = Capture()
    try:
        yield found
        deadline = time.monotonic() + 5 * SLOWNESS
        while time.monotonic() < deadline:
            found.pcap = archive.read(live.client, live.container(node), path)
            found.frames = list(capturefile.read(found.pcap))
            if len([each for each in found.marked() if each.innermost.icmp_type == 0]) >= replies:
                break
            time.sleep(0.02)
    finally:
        host.check_output(
            f"pid=$(cat {path}.pid); kill -INT $pid; "
            f"for try in $(seq {TRIES}); do test -e /proc/$pid || exit 0; sleep 0.02; done; exit 1"
        )


def ping(live: Running, source: str, ip: str, *options: str) -> str:
    """Three marked pings from a pod or node."""
    words = " ".join(options)
    wait = math.ceil(2 * SLOWNESS)
    return str(
        live.host(source).check_output(f"ping -n -c 3 -i 0.05 -W {wait} -p {MARK} {words} {ip}")
    )


def same_as_tshark(wire: Capture, tmp_path: Path) -> None:
    """Every marked frame, decoded by a program that none of us wrote."""
    path = tmp_path / "wire.pcap"
    path.write_bytes(wire.pcap)
    fields = (
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
    ours = [in_tshark_s_words(frame) for frame in wire.marked()]
    assert [normal(each) for each in theirs] == ours
    assert ours


def layers(frame: Packet) -> list[Packet]:
    """The frame and those inside it."""
    return [frame, *layers(frame.inner)] if frame.inner else [frame]


def in_tshark_s_words(frame: Packet) -> dict[str, list[str]]:
    """A frame as tshark's fields, outermost first; absent fields are left out."""
    stack = layers(frame)
    fields: dict[str, list[object | None]] = {
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
