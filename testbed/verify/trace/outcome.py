"""What became of a packet that no rule, route or link stopped."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.agent.icmp import ERRORS, TIME_EXCEEDED, UNREACHABLE
from testbed.packets.packet import Packet
from testbed.verify.trace.case import Case, Finding, Scene
from testbed.verify.trace.model import Event

__all__ = ["error_in_words", "first_error", "ttl_exceeded", "unanswered", "unknown"]

_COUNTERS = (
    "Ip.InDiscards",
    "Ip.InHdrErrors",
    "Ip.InAddrErrors",
    "Ip.InUnknownProtos",
    "Ip.OutDiscards",
    "Ip.OutNoRoutes",
    "Ip.FragFails",
    "Ip.ReasmFails",
    "IpExt.InNoRoutes",
    "IpExt.InTruncatedPkts",
    "IpExt.InCsumErrors",
    "Udp.NoPorts",
    "Udp.InErrors",
    "Udp.RcvbufErrors",
    "Tcp.InErrs",
    "TcpExt.ListenDrops",
    "TcpExt.ListenOverflows",
)
"""What the kernel counts when it drops something."""

_MUTE = "net.ipv4.icmp_echo_ignore_all"


def error_in_words(event: Event) -> str:
    """``node1/cni0 saw ICMP fragmentation needed (3/4) from 10.244.0.1, MTU 1450``."""
    packet = event.packet.innermost
    kind = (packet.icmp_type or 0, packet.icmp_code or 0)
    fits = f", MTU {packet.icmp_mtu}" if packet.icmp_mtu else ""
    words = ERRORS.get(kind, "error")
    seen = f"{event.place}/{event.interface} saw ICMP {words}"
    return f"{seen} ({kind[0]}/{kind[1]}) from {packet.source}{fits}"


def first_error(case: Case, kind: int, code: int | None = None) -> Event | None:
    """The first sight of an ICMP error about the probe."""
    for event in case.walk.errors:
        packet = event.packet.innermost
        if packet.icmp_type == kind and code in (None, packet.icmp_code):
            return event
    return None


def ttl_exceeded(case: Case, scene: Scene) -> Iterator[Finding]:
    """Too many routers: mostly two that send to each other."""
    event = first_error(case, TIME_EXCEEDED, 0)
    if event is None:
        return
    often: dict[str, int] = {}
    for hop in scene.leg.observed:
        name = f"{hop.event.place}/{hop.event.interface} {hop.event.direction}"
        often[name] = often.get(name, 0) + 1
    loop = tuple(f"seen {count} times on {name}" for name, count in often.items() if count > 1)
    yield Finding(
        75 if loop else 60,
        "ttl-exceeded",
        event.place,
        f"{event.place} dropped it: its TTL ran out" + (", as it went in a loop" if loop else ""),
        loop,
        "compare the routes of the nodes that it was seen on",
    )


def unanswered(case: Case, scene: Scene) -> Iterator[Finding]:
    """It arrived, and what came of it was a refusal or nothing."""
    target = case.target
    port = f"{case.probe.protocol.upper()} port {case.port}"
    advice = f"start a server on {port} of {target.place}"
    refused = [hop for hop in case.walk.reply.observed if _resets(hop.event.packet)]
    error = first_error(case, UNREACHABLE, 3)
    if refused or (error and _from_listener(case, error)):
        said = "a reset" if refused else "ICMP port unreachable"
        summary = f"nobody listens on {port} of {target.place}: it answered with {said}"
        yield Finding(40, "no-listener", target.place, summary, (), advice)
    if scene.next is not None:
        return
    if scene.where == case.source.place and case.walk.reply.observed:
        summary = f"the reply reached {scene.where}, but its socket did not get it"
        yield Finding(5, "unknown", scene.where, summary, _counted(case, scene.where))
        return
    if case.probe.protocol == "icmp" and case.space(scene.where).sysctl(_MUTE) == "1":
        summary = f"{scene.where} got it, and answers no echo: {_MUTE} is 1"
        advice = f"`sysctl -w {_MUTE}=0` on {scene.where}"
        yield Finding(40, "no-answer", scene.where, summary, (), advice)
        return
    summary = f"{scene.where} got it and sent no reply"
    evidence = _counted(case, scene.where)
    advice = f"look at what {target.place} does with it (`testbed logs {target.place}`)"
    if case.probe.protocol == "udp":
        advice += "; an application may stay silent on UDP, and netexec answers from 6 bytes on"
    yield Finding(10, "no-answer", scene.where, summary, evidence, advice)


def _resets(packet: Packet) -> bool:
    tcp = packet.innermost.tcp
    return tcp is not None and "R" in tcp.flags


def _from_listener(case: Case, event: Event) -> bool:
    """Whether it is about the probe's own port, not a tunnel's, and the target's word."""
    packet = event.packet.innermost
    quoted = packet.quoted
    about = quoted is not None and quoted.inner is None
    return about and case.walk.request.complete and case.probe.protocol != "icmp"


def unknown(case: Case, scene: Scene) -> Finding:
    """Nothing that was read says why; what was counted is told all the same."""
    where = scene.where
    if scene.next is None:
        summary = f"{where} had it last"
    elif case.answered:
        name = f"{scene.next.place}/{scene.next.interface}"
        summary = f"answered, but {name} did not see it as it must be"
    else:
        last = f"{scene.last.place}/{scene.last.interface}" if scene.last else where
        saw = "saw it" if scene.last else "was to send it"
        name = f"{scene.next.place}/{scene.next.interface}"
        summary = f"{last} {saw}, {name} did not, and nothing that was read says why"
    evidence = tuple(line for place in scene.places for line in _counted(case, place))
    return Finding(0, "unknown", where, summary, evidence)


def _counted(case: Case, place: str) -> tuple[str, ...]:
    space = case.space(place)
    moved = ((name, space.moved(name)) for name in _COUNTERS)
    return tuple(f"{place}: {name} {each[0]} → {each[1]}" for name, each in moved if each)
