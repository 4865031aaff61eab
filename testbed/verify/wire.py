"""Judging captured frames: whether a crossing looked on the underlay as it must. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.packets.packet import Packet
from testbed.verify import oracle
from testbed.verify.observed import Observed

__all__ = ["Captured", "problem"]

_ECHO = {8: "echo request", 0: "echo reply"}


@dataclass(frozen=True, slots=True)
class Captured:
    """What tcpdump saw on a node's uplink."""

    frames: tuple[Packet, ...] = ()
    summary: str = ""
    """How many packets, in tcpdump's own words."""


def problem(
    crossing: oracle.Crossing, seen: tuple[Packet, ...], capture: Captured, observed: Observed
) -> str:
    """Why the frames of a crossing are not what they must be; empty: they are.

    ``seen`` are those of the capture in which the crossing's marker can be read.
    """
    if isinstance(crossing.encapsulation, oracle.Wireguard):
        return _encrypted(crossing, seen, capture, observed)
    return _decoded(crossing, seen, observed, capture.summary)


def _decoded(
    crossing: oracle.Crossing, seen: tuple[Packet, ...], observed: Observed, summary: str
) -> str:
    """Why the captured frames are not what they must be; empty: they are."""
    ways = {
        8: (crossing.source_node, crossing.target_node, crossing.source, crossing.target),
        0: (crossing.target_node, crossing.source_node, crossing.target, crossing.source),
    }
    for kind, (from_node, to_node, from_pod, to_pod) in ways.items():
        frames = [frame for frame in seen if frame.innermost.icmp_type == kind]
        if not frames:
            return f"no {_ECHO[kind]} was captured on the uplink of {crossing.source_node}" + (
                f" ({summary})" if summary else ""
            )
        for frame in frames:
            pods = (observed.ip(from_pod), observed.ip(to_pod))
            if (frame.innermost.source, frame.innermost.destination) != pods:
                return f"{_ECHO[kind]}: inner addresses are {_ends(frame.innermost)}"
            problem = _outer(crossing.encapsulation, frame)
            nodes = (observed.node_ips.get(from_node), observed.node_ips.get(to_node))
            if not problem and frame.inner and (frame.source, frame.destination) != nodes:
                problem = f"outer addresses are {_ends(frame)}, not {nodes[0]} > {nodes[1]}"
            if problem:
                return f"{_ECHO[kind]}: {problem}"
    return ""


def _encrypted(
    crossing: oracle.Crossing, seen: tuple[Packet, ...], capture: Captured, observed: Observed
) -> str:
    """Why encrypted packets are not what they must be: there, both ways, and none in the clear."""
    assert isinstance(crossing.encapsulation, oracle.Wireguard)
    if seen:
        return f"not encrypted; must be {crossing.encapsulation}"
    port = crossing.encapsulation.port
    ends = observed.node_ips.get(crossing.source_node), observed.node_ips.get(crossing.target_node)
    ways = {
        (frame.source, frame.destination)
        for frame in capture.frames
        if frame.destination_port == port and frame.protocol == 17
    }
    if not ways >= {ends, ends[::-1]}:
        return f"no UDP {port} both ways between {ends[0]} and {ends[1]} ({capture.summary})"
    return ""


def _outer(expected: oracle.Encapsulation, frame: Packet) -> str:
    if expected is None:
        return "encapsulated, but must be plain" if frame.inner else ""
    if frame.inner is None:
        return f"not encapsulated; must be {expected}"
    if isinstance(expected, oracle.Vxlan):
        if (frame.vni, frame.destination_port) != (expected.vni, expected.port):
            return f"VNI {frame.vni}, UDP {frame.destination_port}; must be {expected}"
    elif frame.vni is not None:
        return f"VXLAN, VNI {frame.vni}; must be {expected}"
    return ""


def _ends(frame: Packet) -> str:
    return f"{frame.source} > {frame.destination}"
