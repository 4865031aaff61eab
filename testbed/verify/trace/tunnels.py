"""Where a tunnel device sends packets: VXLAN's forwarding database, and the way to the other end.

For VXLAN two tables must agree with the route's next hop: its neighbour entry names the other
node's MAC, and the forwarding database says at which address that is. CNIs install both.
"""

from __future__ import annotations

from collections.abc import Iterator

from testbed.verify.oracle import Vxlan
from testbed.verify.trace.case import Case, Finding, Scene
from testbed.verify.trace.facts import Space, in_words

__all__ = ["different", "misdirected"]


def misdirected(case: Case, scene: Scene) -> Iterator[Finding]:
    """A tunnel that knows no way, or a wrong one, at the place that encapsulates."""
    if not scene.encapsulates or scene.last is None:
        return
    space, device = case.space(scene.where), scene.last.interface
    owner = scene.decapsulator
    if space.vxlan(device):
        yield from _vxlan(case, scene, space, device, owner)
    else:
        yield from _next_tunnel(case, scene, space, device, owner)
    sent = scene.otherwise.event.packet if scene.otherwise else None
    if sent is not None and sent.inner is not None and str(sent.destination) != case.address(owner):
        yield Finding(
            77,
            "wrong-route",
            scene.where,
            f"{scene.where} sent it to {_name(case, str(sent.destination))}, not to {owner}",
            _route(space, str(sent.innermost.destination)),
            case.repair(scene.where),
        )


def _next_tunnel(
    case: Case, scene: Scene, space: Space, device: str, owner: str
) -> Iterator[Finding]:
    """IP-in-IP goes to the route's next hop, which may be a node that is none."""
    route = space.route(str(scene.packet.innermost.destination)) if scene.packet else None
    gateway = str((route or {}).get("gateway", ""))
    if not route or not gateway or route.get("dev") != device or gateway == case.address(owner):
        return
    yield Finding(
        76,
        "wrong-route",
        scene.where,
        f"{scene.where} sent it to {_name(case, gateway)}, not to {owner}: that is the next hop of"
        f" its route by {device}",
        (f"{space.place}: {in_words(route)}",),
        case.repair(scene.where),
    )


def different(case: Case, scene: Scene) -> Iterator[Finding]:
    """A VXLAN device made with another VNI, port or address than the topology demands."""
    hop = scene.next
    if hop is None or scene.last is None or hop.place != scene.last.place:
        return
    end = hop if hop.encapsulation is None else scene.last
    how = hop.encapsulation or scene.last.encapsulation
    space = case.space(hop.place)
    if not isinstance(how, Vxlan) or not space.vxlan(end.interface):
        return
    made = (space.link(end.interface) or {}).get("linkinfo", {}).get("info_data") or {}
    wanted = {"id": how.vni, "port": how.port, "local": case.address(case.node(hop.place))}
    for key, words in (("id", "VNI"), ("port", "UDP port"), ("local", "local address")):
        if made.get(key) and wanted[key] and str(made[key]) != str(wanted[key]):
            yield Finding(
                85,
                "wrong-tunnel",
                hop.place,
                f"{hop.place}'s {end.interface} has {words} {made[key]}, not {wanted[key]}",
                (f"{hop.place}: ip -d link show {end.interface}: {key} {made[key]}",),
                f"`ip link del {end.interface}` on {hop.place}, then"
                " `testbed up` puts back what it installed",
            )


def _vxlan(case: Case, scene: Scene, space: Space, device: str, owner: str) -> Iterator[Finding]:
    mac = scene.packet.destination_mac if scene.packet else None
    if mac is None:
        return
    yield from _wrong_mac(case, scene, space, device, mac)
    known = space.fdb(mac, device)
    right = case.address(owner)
    if not known:
        yield Finding(
            80,
            "no-fdb",
            scene.where,
            f"{scene.where} dropped it: {device} has no forwarding entry for {mac} ({owner})",
            (f"bridge fdb show dev {device}: nothing for {mac}",),
            case.repair(scene.where),
        )
    elif right and right not in known:
        yield Finding(
            80,
            "wrong-fdb",
            scene.where,
            f"{scene.where} sent it to {_name(case, known[0])}: {device}'s forwarding entry"
            f" for {mac} names {known[0]}, not {right} ({owner})",
            (f"bridge fdb show dev {device}: {mac} dst {known[0]}",),
            case.repair(scene.where),
        )


def _wrong_mac(case: Case, scene: Scene, space: Space, device: str, mac: str) -> Iterator[Finding]:
    """The inner frame must go to the other node's own tunnel device."""
    owner = scene.decapsulator
    there = case.space(owner).link(device) if case.space(owner).known else None
    if there is None or there.get("address") == mac:
        return
    route = space.route(str(scene.packet.destination)) if scene.packet else None
    gateway = str((route or {}).get("gateway", ""))
    if gateway and not case.space(owner).owns(gateway):
        yield Finding(
            82,
            "wrong-route",
            scene.where,
            f"{scene.where} sent it another way: its next hop {gateway} is not {owner}'s {device}",
            _route(space, str(scene.packet.destination) if scene.packet else ""),
            case.repair(scene.where),
        )
        return
    yield Finding(
        82,
        "no-neighbour",
        scene.where,
        f"{scene.where} sent it to {mac}, but {owner}'s {device} has {there.get('address')}",
        (f"ip neigh show dev {device}: {gateway} lladdr {mac}",),
        case.repair(scene.where),
    )


def _name(case: Case, address: str) -> str:
    return case.owner(address) or address


def _route(space: Space, address: str) -> tuple[str, ...]:
    route = space.route(address)
    return (f"{space.place}: {in_words(route)}",) if route else ()
