"""What a node made of a packet to a Service: its conntrack entry, and what was seen.

An entry is there once the packet has left: one that a rule drops after DNAT never gets any, and
then only interfaces that saw it between the two tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import NamedTuple

from testbed.packets.packet import Packet
from testbed.verify.trace.correlation import Sight
from testbed.verify.trace.model import Endpoint, Probe, Service

__all__ = ["Entry", "arguments", "entry", "sent", "translated"]

_FIELD = re.compile(r"\b(src|dst|sport|dport)=(\S+)")


class Entry(NamedTuple):
    """Both directions of a conntrack entry, each as ``(source, destination)``."""

    original: tuple[tuple[str, int], tuple[str, int]]
    reply: tuple[tuple[str, int], tuple[str, int]]
    """As answers come, so the endpoint is its source."""


def arguments(
    probe: Probe, node: str, request: Sequence[Sight], local_port: int
) -> tuple[str, ...]:
    """What ``conntrack -L`` on ``node`` must be told to print the probe's entry and no other.

    Another node may have given it another port before; a node's own packet has its socket's.
    """
    wanted = ["-d", probe.ip, "-p", probe.protocol]
    came = [each.inner for each in request if each.event.place == node]
    came = [each for each in came if str(each.destination) == probe.ip]
    if probe.protocol != "icmp":
        port = (came[0].source_port if came else None) or local_port
        return (*wanted, "--sport", str(port), "--dport", str(probe.port))
    first = came[0] if came else request[0].inner if request else None
    identity = first.icmp_identity if first else None
    return (*wanted, *(() if identity is None else ("--icmp-id", str(identity))))


def entry(line: str) -> Entry | None:
    """What a line of ``conntrack -L`` says; ``None``: it is none."""
    directions: list[dict[str, str]] = []
    for name, value in _FIELD.findall(line):
        if name == "src":
            directions.append({})
        if directions:
            directions[-1][name] = value
    if len(directions) != 2 or any("dst" not in each for each in directions):
        return None
    original, reply = (
        (
            (each["src"], int(each.get("sport", 0))),
            (each["dst"], int(each.get("dport", 0))),
        )
        for each in directions
    )
    return Entry(original, reply)


def translated(
    service: Service, source: Endpoint, request: Sequence[Sight], entries: Sequence[str]
) -> str:
    """The endpoint that the packet was given where it came in: ``10.244.1.2:8080``; empty: none."""
    asked = (service.ip, service.port)
    for found in filter(None, map(entry, entries)):
        if found.reply[0] != asked:
            return _text(found.reply[0])
    came = source.node == service.entered
    for sight in request:
        inner, place = sight.inner, sight.event.place
        if place not in (source.place, service.entered) or inner.destination is None:
            continue
        now = (str(inner.destination), inner.destination_port or 0)
        if now == asked:
            came |= place == service.entered
        elif came:  # else another node translated it, and this one has the endpoint
            return _text(now)
    return ""


def _text(end: tuple[str, int]) -> str:
    return f"{end[0]}:{end[1]}" if end[1] else end[0]


def sent(source: Endpoint, node: str, entries: Sequence[str]) -> Packet | None:
    """A node's own packet before it translates it, which no interface sees; ``None``: others are.

    ``entries`` are those of ``node``.
    """
    found = next(filter(None, map(entry, entries)), None)
    if source.place != node or found is None:
        return None
    (host, port), (to, service) = found.original
    return Packet(
        source=IPv4Address(host),
        destination=IPv4Address(to),
        source_port=port or None,
        destination_port=service or None,
    )
