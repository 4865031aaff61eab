"""What the source's node made of a packet to a Service: its conntrack entry, and what was seen.

An entry is there once the packet has left: one that a rule drops after DNAT never gets any, and
then only interfaces that saw it between the two tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import NamedTuple

from testbed.packets.packet import Packet
from testbed.verify.trace.correlation import correlate
from testbed.verify.trace.model import Endpoint, Event, Probe, Service

__all__ = ["Entry", "arguments", "entry", "sent", "translated"]

_FIELD = re.compile(r"\b(src|dst|sport|dport)=(\S+)")


class Entry(NamedTuple):
    """Both directions of a conntrack entry, each as ``(source, destination)``."""

    original: tuple[tuple[str, int], tuple[str, int]]
    reply: tuple[tuple[str, int], tuple[str, int]]
    """As answers come, so the endpoint is its source."""


def arguments(
    probe: Probe, source: Endpoint, events: Sequence[Event], local_port: int
) -> tuple[str, ...]:
    """What ``conntrack -L`` must be told to print the probe's entry and no other."""
    wanted = ["-d", probe.ip, "-p", probe.protocol]
    if probe.protocol != "icmp":
        return (*wanted, "--sport", str(local_port), "--dport", str(probe.port))
    request = correlate(events, probe, source).request
    identity = request[0].inner.icmp_identity if request else None
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
    service: Service,
    probe: Probe,
    source: Endpoint,
    events: Sequence[Event],
    entries: Sequence[str],
) -> str:
    """The endpoint that the source's node gave the packet: ``10.244.1.2:8080``; empty: none."""
    asked = (service.cluster_ip, service.port)
    for found in filter(None, map(entry, entries)):
        if found.reply[0] != asked:
            return _text(found.reply[0])
    for sight in correlate(events, probe, source).request:
        inner = sight.inner
        now = (str(inner.destination), inner.destination_port or 0)
        near = sight.event.place in (source.place, source.node)
        if near and inner.destination is not None and now != asked:
            return _text(now)
    return ""


def _text(end: tuple[str, int]) -> str:
    return f"{end[0]}:{end[1]}" if end[1] else end[0]


def sent(source: Endpoint, entries: Sequence[str]) -> Packet | None:
    """A node's own packet before NAT, which no interface sees; ``None``: a pod's is seen."""
    found = next(filter(None, map(entry, entries)), None)
    if source.pod or found is None:
        return None
    (host, port), (to, service) = found.original
    return Packet(
        source=IPv4Address(host),
        destination=IPv4Address(to),
        source_port=port or None,
        destination_port=service or None,
    )
