"""What sent the packet to somebody else: neighbour entries with a wrong MAC, and NAT rules."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.packets.packet import Packet, is_group
from testbed.verify.trace.case import Case, Finding, Scene
from testbed.verify.trace.facts import Space
from testbed.verify.trace.netfilter import counted

__all__ = ["misaddressed", "translated"]


def misaddressed(case: Case, scene: Scene) -> Iterator[Finding]:
    """A frame for a MAC that nobody has: whoever gets it drops it without a word."""
    frames = [hop.event for hop in scene.leg.observed]
    frames.sort(key=lambda event: event.packet.time_ns)
    ends = case.source.place, case.target.place
    places = dict.fromkeys((*ends, *(hop.place for hop in scene.leg.expected), *case.facts))
    spaces = [case.space(place) for place in places]
    if not frames or not all(space.macs for space in spaces):
        return
    for layer in _ethernet(frames[-1].packet):
        mac = layer.destination_mac or ""
        if is_group(mac) or any(mac in space.macs for space in spaces):
            continue
        sender = next(
            event.place
            for event in frames
            if any(each.destination_mac == mac for each in _ethernet(event.packet))
        )
        entry = _entry(case.space(sender), mac)
        told = f": its neighbour entry `{entry}` is wrong" if entry else ""
        yield Finding(
            82,
            "no-neighbour",
            sender,
            f"{sender} sent it to {mac}, which nobody has{told}",
            (f"{sender}: ip neigh: {entry}",) if entry else (),
            f"`ip neigh del {entry.split(' lladdr ')[0]}` on {sender}"
            if entry
            else case.repair(sender),
        )


def _ethernet(packet: Packet) -> list[Packet]:
    """The packet and those inside it that have MACs."""
    layers = [packet]
    while layers[-1].inner is not None:
        layers.append(layers[-1].inner)
    return [layer for layer in layers if layer.destination_mac]


def _entry(space: Space, mac: str) -> str:
    """The neighbour entry that has this MAC, as ``ip neigh`` prints it."""
    for row in space.after.get("neighbours", ()):
        if row.get("lladdr") == mac:
            state = " ".join(row.get("state", ()))
            return f"{row.get('dst')} dev {row.get('dev')} lladdr {mac} {state}".rstrip()
    return ""


def translated(case: Case, scene: Scene) -> Iterator[Finding]:
    """A NAT rule gave it another destination, and from there on it goes where that is."""
    for hop in scene.leg.observed:
        words = next((each for each in hop.happened if each.startswith("DNATed ")), "")
        if words == _meant(case):
            continue
        if not words:
            continue
        place = hop.event.place
        rules = [(rule, before) for rule, before in counted(case, place) if rule.translates]
        named = f" by {rules[0][0]}" if rules else ""
        yield Finding(
            82,
            "nat",
            place,
            f"{place} {words}{named}",
            tuple(
                f"{place}: {rule.evidence}: {before} → {rule.packets} packets"
                for rule, before in rules
            ),
            f"`{rules[0][0].undo}` on {place}, if it is not meant to be there" if rules else "",
        )
        return


def _meant(case: Case) -> str:
    """What kube-proxy does to a packet for a Service, in the walk's words."""
    service = case.service
    if service is None or service.chosen is None:
        return ""
    return f"DNATed {service.address} to {service.translated}"
