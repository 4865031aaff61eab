"""How many frames a second are decoded and judged: one process, one core, CPU time.

``python -m tests.benchmarks.decoding`` decodes frames of a real VXLAN capture (the corpus of the
decoder's tests) over and over, then writes 100,000 of them as a capture file, reads that, selects
the packets between two pods and asks whether they were encapsulated, as an assertion does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from testbed.agent import pcap, pcapng
from testbed.packets.capturefile import read
from testbed.packets.decoder import decode
from testbed.packets.encapsulation import VXLAN
from testbed.packets.selection import Packets
from tests.benchmarks.measure import Promise

__all__ = ["promises"]

CORPUS = Path(__file__).parents[1] / "unit" / "packets" / "corpus"
_FRAMES, _ROUNDS = 100_000, 5


def promises() -> list[Promise]:
    """Frames a second by kind, and the seconds that a capture of 100,000 frames takes."""
    vxlan = [each for each in frames("vxlan-8472") if len(each) < 200]
    kinds = {"VXLAN": vxlan, "IP-in-IP": frames("ipip"), "TCP": frames("nat-before")}
    file = capture(vxlan)
    seconds = statistics.median(timed(lambda: judged(file)) for _ in range(_ROUNDS))
    return [
        *(
            Promise(f"{name} decoded", rate(some) / 1000, 50, "thousand frames/s", at_least=True)
            for name, some in kinds.items()
        ),
        Promise("100,000 VXLAN frames read, selected from and judged", seconds, 2.5, "s"),
    ]


def frames(name: str) -> list[bytes]:
    """The frames of one capture of the corpus."""
    file = (CORPUS / f"{name}.pcap").read_bytes()
    return [each.data for each in pcap.Reader().feed(file)]


def rate(some: list[bytes]) -> float:
    """Frames a second: the median of several rounds of 20,000."""
    times = 20_000 // len(some)

    def work() -> None:
        for _ in range(times):
            for frame in some:
                decode(frame)

    return times * len(some) / statistics.median(timed(work) for _ in range(_ROUNDS))


def capture(some: list[bytes]) -> bytes:
    """A capture file of 100,000 of these frames."""
    blocks = [pcapng.section("benchmark"), pcapng.interface("node1/eth0", 1)]
    for number in range(_FRAMES):
        frame = some[number % len(some)]
        blocks.append(pcapng.packet(0, 10**18 + number, frame, len(frame)))
    return b"".join(blocks)


def judged(file: bytes) -> None:
    """What an assertion does."""
    pods = IPv4Address("10.244.0.2"), IPv4Address("10.244.1.2")
    nodes = IPv4Address("172.18.0.2"), IPv4Address("172.18.0.3")
    packets = Packets(read(file), ["node1/eth0"])
    assert packets.between(*pods).encapsulated_in(VXLAN(1, 8472), outer=nodes)


def timed(work: Callable[[], None]) -> float:
    """Seconds of CPU time."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    for promise in promises():
        print(promise)
