"""What a bridge did not pass on: ports that are blocked or isolated, and MACs behind others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from testbed.verify.trace.case import Case, Finding, Scene
from testbed.verify.trace.facts import Space
from testbed.verify.trace.model import ExpectedHop

__all__ = ["behind", "blocked", "misplaced"]

_FORWARDING = "forwarding"


def blocked(case: Case, scene: Scene) -> Iterator[Finding]:
    """Ports that take part in no forwarding, or not in that between each other."""
    ports = [(hop, port) for hop in _here(scene) if (port := _port(case.space(hop.place), hop))]
    for hop, port in ports:
        if (state := port.get("state", _FORWARDING)) == _FORWARDING:
            continue
        yield Finding(
            86,
            "interface-down",
            hop.place,
            f"{hop.place}'s {hop.interface} is a port in state {state}: its bridge passes nothing"
            " on to or from it",
            (f"{hop.place}: bridge -d link show dev {hop.interface}: state {state}",),
            f"`bridge link set dev {hop.interface} state 3` on {hop.place}",
        )
    if len(ports) > 1 and all(port.get("isolated") for _, port in ports):
        names = [hop.interface for hop, _ in ports]
        yield Finding(
            85,
            "interface-down",
            scene.where,
            f"{scene.where}'s {' and '.join(names)} are isolated ports: their bridge passes nothing"
            " on from one to the other",
            tuple(f"{scene.where}: bridge -d link show dev {name}: isolated on" for name in names),
            f"`bridge link set dev {names[0]} isolated off` on {scene.where}",
        )


def misplaced(case: Case, scene: Scene) -> Iterator[Finding]:
    """The bridge has learned, or was told, that the receiver's MAC is behind another port."""
    hop, packet = scene.next, scene.packet
    if hop is None or packet is None or hop.direction != "out" or hop.place != scene.where:
        return
    space = case.space(hop.place)
    mac = packet.destination_mac or ""
    if not _port(space, hop) or not (port := behind(space, mac)) or port == hop.interface:
        return
    following = scene.leg.expected[scene.index + 1 : scene.index + 2]
    ends = [case.space(each.place).macs for each in following]
    if not any(mac in macs for macs in ends):
        return  # it is another's MAC: then its place is right, and who sent to it is wrong
    yield Finding(
        84,
        "wrong-fdb",
        hop.place,
        f"{hop.place}'s bridge sends frames for {mac} to its port {port}, but"
        f" {following[0].place} is behind {hop.interface}",
        (f"{hop.place}: bridge fdb show dev {port}: {mac}",),
        f"`bridge fdb del {mac} dev {port} master` on {hop.place}",
    )


def behind(space: Space, mac: str) -> str:
    """The port behind which a bridge looks for a MAC; empty: it asks all."""
    return next(
        (
            str(row["ifname"])
            for row in space.after.get("fdb", ())
            if row.get("mac") == mac and row.get("master") and row["master"] != row["ifname"]
        ),
        "",
    )


def _here(scene: Scene) -> list[ExpectedHop]:
    hops = [each for each in (scene.last, scene.next) if each is not None]
    return [each for each in hops if each.place == scene.where]


def _port(space: Space, hop: ExpectedHop) -> Mapping[str, Any]:
    """What a bridge says of its port; empty: it is none."""
    link = space.link(hop.interface) or {}
    found: Mapping[str, Any] = link.get("linkinfo", {}).get("info_slave_data") or {}
    return found if link.get("master") else {}
