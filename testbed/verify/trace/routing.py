"""What the kernel does around a route: the reverse path filter, forwarding, ARP."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.packets.packet import Packet
from testbed.verify.trace.case import Case, Finding, Question, Scene
from testbed.verify.trace.facts import Space, in_words

__all__ = [
    "BY_HAND",
    "PROXIED",
    "back",
    "not_forwarding",
    "onward",
    "questions",
    "reverse_path",
    "unresolved",
    "without_return",
]

PROXIED = "169.254.1.1"
"""Calico's gateway of pods: nobody has it, and their nodes answer ARP for it."""
BY_HAND = ("boot", "static")
"""Protocols of routes that somebody typed."""
_FILTERED = "TcpExt.IPReversePathFilter"


def questions(case: Case, scene: Scene) -> Iterator[Question]:
    """Which way the packet had to take here, and which way one back would take."""
    forward = onward(case, scene)
    if forward is not None:
        yield forward
    backward = back(case, scene)
    if backward is not None:
        yield backward


def _at(case: Case, place: str) -> tuple[str, str]:
    node = case.node(place)
    return node, "" if place == node else place


def onward(case: Case, scene: Scene) -> Question | None:
    """The way that the packet had to take; ``None``: none had to be chosen."""
    if scene.encapsulates:
        to = case.address(scene.decapsulator)
        return Question(*_at(case, scene.where), to) if to else None
    if not _routes(case, scene):
        return None
    to = _destination(case, scene)
    if not to:
        return None
    if scene.last is None or scene.packet is None:
        return Question(*_at(case, scene.where), to)
    source = str(_carrying(scene, scene.packet).source)
    return Question(*_at(case, scene.where), to, source, scene.last.interface)


def back(case: Case, scene: Scene) -> Question | None:
    """To the packet's sender: what the reverse path filter asks, and what a reply needs."""
    if scene.packet is None or (scene.last is not None and scene.last.direction != "in"):
        return None
    packet = scene.packet
    if scene.last is None or (scene.last.encapsulation is None and packet.inner is not None):
        packet = packet.innermost
    return Question(*_at(case, scene.where), str(packet.source))


def _carrying(scene: Scene, packet: Packet) -> Packet:
    """What a place routes: on the way between a tunnel's ends what carries the pods' packet."""
    ends = [hop.encapsulation for hop in (scene.last, scene.next) if hop]
    return packet if ends and all(ends) else packet.innermost


def _destination(case: Case, scene: Scene) -> str:
    if scene.packet is not None:
        return str(_carrying(scene, scene.packet).destination)
    own = case.service is not None and case.service.entered == scene.where
    asked = case.target.ip if own else case.probe.ip
    return asked if scene.role == "request" else case.source.ip


def _routes(case: Case, scene: Scene) -> bool:
    """Whether the place had to choose a route, and not only a port of a bridge."""
    if not scene.routed or scene.next is None:
        return False
    space = case.space(scene.where)
    master = (space.link(scene.next.interface) or {}).get("master")
    came = (space.link(scene.last.interface) or {}) if scene.last else {}
    return master is None or master != came.get("master")


def reverse_path(case: Case, scene: Scene) -> Iterator[Finding]:
    """``rp_filter`` drops after the tap saw the packet come in, before it is routed."""
    arrivals = [hop for hop in (scene.last, scene.next) if hop and hop.direction == "in"]
    for hop in arrivals:
        space = case.space(hop.place)
        moved = space.moved(_FILTERED)
        if not moved:
            continue
        question = back(case, scene)
        route, error = case.answer(question) if question else ({}, "")
        sender = question.to if question else "its sender"
        names = [_setting(name) for name in ("all", hop.interface)]
        leaves = f", and there is no route back to {sender}" if error else ""
        leaves = f", and the route back to {sender} leaves by {route['dev']}" if route else leaves
        loose = max(map(space.sysctl, names)) == "2"
        switch = f", or `sysctl -w {_setting(hop.interface)}=2` on {hop.place}"
        yield Finding(
            88,
            without_return(space, sender) if error else "rp-filter",
            hop.place,
            f"{hop.place} dropped it: the reverse path filter of {hop.interface} is on{leaves}",
            (
                f"{hop.place}: {_FILTERED} {moved[0]} → {moved[1]}",
                *(f"{hop.place}: {each} = {space.sysctl(each)}" for each in names),
                *((f"{hop.place}: ip route get {sender}: {in_words(route)}",) if route else ()),
                *((f"{hop.place}: ip route get {sender}: {error}",) if error else ()),
            ),
            f"make a way back to {sender}"
            if loose or error
            else f"make the way back to {sender} leave by {hop.interface}{switch}",
            "" if scene.next or case.walk.reply.complete else "request",
        )
        return


def without_return(space: Space, sender: str) -> str:
    """Why there is no way back at all; a CNI's own blackhole is around the routes of its pods."""
    known = space.route(sender) or {}
    refusing = known.get("type", "unicast") != "unicast"
    return "blackhole" if refusing and known.get("protocol", "boot") in BY_HAND else "no-route"


def _setting(interface: str) -> str:
    return f"net.ipv4.conf.{interface.replace('.', '/')}.rp_filter"


def not_forwarding(case: Case, scene: Scene) -> Iterator[Finding]:
    """A node that is no router drops what is not its own."""
    if not _routes(case, scene) or scene.last is None:
        return
    space = case.space(scene.where)
    names = (
        "net.ipv4.ip_forward",
        f"net.ipv4.conf.{scene.last.interface.replace('.', '/')}.forwarding",
    )
    for name in names:
        if space.sysctl(name) != "0":
            continue
        counted = space.moved("Ip.InAddrErrors")
        yield Finding(
            84,
            "forwarding-off",
            scene.where,
            f"{scene.where} dropped it: {name} is 0",
            (f"{scene.where}: Ip.InAddrErrors {counted[0]} → {counted[1]}",) if counted else (),
            f"`sysctl -w {name}=1` on {scene.where}, or `testbed up`",
        )


def unresolved(case: Case, scene: Scene) -> Iterator[Finding]:
    """The next hop is known by its address only."""
    question = onward(case, scene)
    if scene.next is None and not case.walk.reply.observed:
        question = back(case, scene)  # it arrived, and the reply never left
    if question is None:
        return
    space = case.space(scene.where)
    taken, _ = case.answer(question)
    route = taken or space.route(question.to) or {}
    device, address = str(route.get("dev", "")), str(route.get("gateway") or question.to)
    if not device:
        return
    state = space.unresolved(address, device)
    if space.vxlan(device) and (state or space.neighbour(address, device) is None):
        yield Finding(
            80,
            "no-neighbour",
            scene.where,
            f"{scene.where} has no neighbour entry for {address} on {device}, which the CNI"
            " installs",
            (f"{scene.where}: ip neigh show {address} dev {device}: {state or 'nothing'}",),
            case.repair(scene.where),
        )
    elif state:
        mute = _mute(case, scene.where, address)
        yield Finding(
            45,
            "arp-unanswered",
            scene.where,
            f"{scene.where} asked for {address} on {device} by ARP, and nobody answered",
            (f"{scene.where}: {address} dev {device} {state}", *mute),
            f"`sysctl -w {mute[0].partition(': ')[2].replace(' = 0', '=1')}` on"
            f" {case.node(scene.where)}"
            if mute
            else f"look whether {address} is up, and on that link",
        )


def _mute(case: Case, pod: str, address: str) -> tuple[str, ...]:
    """A setting by which the node of one of Calico's pods leaves its gateway unanswered."""
    name = str(case.observed.pods.get(pod, {}).get("host_interface") or "")
    setting, node = f"net.ipv4.conf.{name}.proxy_arp", case.node(pod)
    off = address == PROXIED and case.space(node).sysctl(setting) == "0"
    return (f"{node}: {setting} = 0",) if off else ()
