"""What is gone, down, or too small: pods, nodes, interfaces, MTUs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from testbed.packets.packet import Packet
from testbed.verify.oracle import Encapsulation, Ipip, Vxlan, Wireguard
from testbed.verify.trace.case import Case, Finding, Scene, came, shapers
from testbed.verify.trace.devices import UPLINK
from testbed.verify.trace.model import Endpoint, ExpectedHop
from testbed.verify.trace.outcome import error_in_words, first_error

__all__ = ["down", "gone", "silent", "too_large", "unbridged"]

_UNREACHABLE, _TOO_BIG = 3, 4
_ETHERNET, _IPV4 = 14, 20
_OVERHEAD = {Vxlan: 50, Ipip: 20, Wireguard: 60}
"""Bytes that an encapsulation adds to an IPv4 packet."""
_HEADERS = {"icmp": 28, "udp": 28, "tcp": 40}


def silent(case: Case, scene: Scene) -> Iterator[Finding]:
    """Nodes at the place of divergence that could not be asked: nothing is known of them."""
    concerned = (case.node(scene.where), *((scene.next.node,) if scene.next else ()))
    for node in dict.fromkeys(concerned):
        gone = node in case.observed.node_ips and node not in case.facts
        if why := case.silent.get(node, "its agent did not answer" if gone else ""):
            yield Finding(
                98,
                "not-asked",
                node,
                f"{node} could not be asked what it saw",
                (f"{node}: {why}",),
                f"look at `testbed logs {node}`, and at how busy it is, and trace again",
            )


def gone(case: Case, scene: Scene) -> Iterator[Finding]:
    """Nodes that do not run, and pods whose namespace or veth is not there."""
    nodes = dict.fromkeys(hop.node for hop in scene.leg.expected)
    for node in dict.fromkeys((case.source.node, case.target.node, *nodes)):
        space = case.space(node)
        if space.known and space.link(UPLINK) is None and node not in case.observed.node_ips:
            yield Finding(
                100,
                "interface-down",
                node,
                f"{node} is not connected to its network: its container has no address there",
                (),
                "`testbed up` connects it",
            )
        if node not in case.facts and node not in case.observed.node_ips:
            yield Finding(
                100,
                "node-down",
                node,
                f"{node} does not run",
                (),
                "`testbed up` starts it",
            )
    for endpoint in (case.target, case.source):
        if endpoint.pod and (why := _missing(case, endpoint)):
            yield Finding(
                99,
                "pod-gone",
                endpoint.place,
                f"pod {endpoint.place} is gone: {why}",
                (),
                case.repair(endpoint.place),
                "request" if endpoint is case.target and not case.walk.reply.observed else "",
            )


def _missing(case: Case, pod: Endpoint) -> str:
    if pod.node not in case.facts:
        return ""
    entry = case.observed.pods.get(pod.place)
    if not pod.ip or entry is None:
        return f"{pod.node} reports no pod with an address by that name"
    space = case.space(pod.place)
    if not space.known:
        return f"{pod.node} has no network namespace of it"
    if space.link(UPLINK) is None:
        return "it has no eth0"
    if space.after.get("addresses") and not space.owns(pod.ip):
        return f"no interface of it has its address {pod.ip}"
    veth = str(entry.get("host_interface") or "")
    node = case.space(pod.node)
    if veth and node.known and node.link(veth) is None:
        return f"{pod.node} has no {veth}, the other end of its eth0"
    return ""


def down(case: Case, scene: Scene) -> Iterator[Finding]:
    """Interfaces on the rest of the path; those next to the break first.

    Routes over an interface vanish with it, and who is asked by ARP there does not answer.
    """
    path = scene.leg.expected
    near = [hop for hop in (scene.next, scene.last) if hop]
    far = path[scene.index + 1 :] if scene.next else ()
    pods = dict(shapers(case, scene))
    for hop in dict.fromkeys((*near, *pods, *far)):
        space = case.space(hop.place)
        why = space.down(hop.interface)
        if not why:
            continue
        link = space.link(hop.interface)
        flags = ",".join(link.get("flags", ())) if link else ""
        evidence = (
            f"{hop.place}: {hop.interface} <{flags}> state {link.get('operstate')}"
            if link
            else f"{hop.place}: ip link has no {hop.interface}"
        )
        prefix = f"{hop.place}'s " if link else ""
        yield Finding(
            _weight_of_down(hop, scene, carrier="carrier" in why),
            "interface-down",
            hop.place,
            f"{prefix}{why}",
            (evidence,),
            _set_up(case, hop) if link else case.repair(pods.get(hop, hop.place)),
        )


def unbridged(case: Case, scene: Scene) -> Iterator[Finding]:
    """Ports that must be of one bridge, and are not."""
    path = scene.leg.expected
    if scene.next is None:
        return
    for index in range(max(1, scene.index), len(path)):
        before, now = came(path[:index]), path[index]
        space = case.space(now.place)
        if before is None or before.place != now.place or not (one := space.link(before.interface)):
            continue
        if not (other := space.link(now.interface)):
            continue
        for port, bridge in ((before, now), (now, before)):
            link, above = (one, other) if port is before else (other, one)
            wanted = bridge.interface if _is_bridge(above) else above.get("master")
            if wanted and link.get("master") != wanted and _is_a_pods(link):
                near = index <= scene.index + 1
                yield _not_a_port(port, str(wanted), 86 if near else 50)


def _is_bridge(link: Mapping[str, Any]) -> bool:
    return bool(link.get("linkinfo", {}).get("info_kind") == "bridge")


def _is_a_pods(link: Mapping[str, Any]) -> bool:
    """A veth; a node's own uplink is one, too, since the node is a container."""
    kind = link.get("linkinfo", {}).get("info_kind")
    return bool(kind == "veth" and link.get("ifname") != UPLINK)


def _not_a_port(hop: ExpectedHop, bridge: str, weight: int) -> Finding:
    return Finding(
        weight,
        "interface-down",
        hop.place,
        f"{hop.place}'s {hop.interface} is no port of {bridge}",
        (f"{hop.place}: ip link show {hop.interface}: no master {bridge}",),
        f"`ip link set {hop.interface} master {bridge}` on {hop.place}",
    )


def _set_up(case: Case, hop: ExpectedHop) -> str:
    command = f"`ip link set {hop.interface} up` on {hop.place}"
    return f"{command}; if its routes went with it, {case.repair(hop.place)}"


def _weight_of_down(hop: ExpectedHop, scene: Scene, *, carrier: bool) -> int:
    """Without carrier, the other end is at fault; it is the one that is set down."""
    near = [each for each in (scene.next, scene.last) if each]
    if carrier:
        return 86 if hop in near else 49
    beyond = scene.leg.expected[scene.index + 1 : scene.index + 2] if scene.next else ()
    return 87 if hop in near or hop in beyond or hop.place in scene.places else 50


def too_large(case: Case, scene: Scene) -> Iterator[Finding]:
    """By the ICMP error that says so, the sender's own refusal, or the next interface's MTU."""
    probe = case.probe
    length = probe.size + _HEADERS.get(probe.protocol, 28)
    event = first_error(case, _UNREACHABLE, _TOO_BIG)
    if event is not None:
        fits = event.packet.innermost.icmp_mtu or 0
        carried = scene.last and event.place == scene.where and scene.last.encapsulation
        more = _overhead(carried or None)
        yield _mtu(case, 95, event.place, length + more, fits, error_in_words(event), more)
        return
    for place in scene.places:
        if moved := case.space(place).moved("Ip.FragFails"):
            evidence = f"{place}: Ip.FragFails {moved[0]} → {moved[1]}"
            yield _mtu(case, 92, place, length, _smallest(case, scene, place), evidence)
    if "too long" in case.error.lower() or "emsgsize" in case.error.lower():
        place = case.source.place
        told = re.search(r"MTU (\d+)", case.error)
        mtu = int(told[1]) if told else _smallest(case, scene, place)
        if 0 < mtu < _narrowest(case):
            yield _remembered(place, probe.ip, length, mtu, tuple(_mtus(case)))
            return
        yield _mtu(case, 91, place, length, mtu, f"{place}: route to {probe.ip}, MTU {mtu}")
    elif scene.next is not None and scene.packet is not None:
        yield from _beyond_next(case, scene, scene.next, scene.packet)


def _mtu(
    case: Case, weight: int, place: str, length: int, fits: int, evidence: str, carrier: int = 0
) -> Finding:
    room = fits - carrier - _HEADERS.get(case.probe.protocol, 28)
    limit = f", more than the {fits} that fit" if fits else ", more than fits"
    advice = f"send at most {room} bytes of payload (`--size {room}`), " if fits else ""
    return Finding(
        weight,
        "mtu",
        place,
        f"{place} dropped it: {length} bytes with DF{limit}",
        (evidence, *_mtus(case)),
        f"{advice}leave DF off, or raise the MTU",
    )


def _mtus(case: Case) -> Iterator[str]:
    """Of every interface that the request leaves by."""
    for hop in dict.fromkeys(case.walk.request.expected):
        if hop.direction == "out" and (mtu := case.space(hop.place).mtu(hop.interface)):
            yield f"{hop.place}: {hop.interface} mtu {mtu}"


def _narrowest(case: Case) -> int:
    """The smallest MTU on the request's way; 0: one is not known."""
    hops = dict.fromkeys((hop.place, hop.interface) for hop in case.walk.request.expected)
    return min((case.space(place).mtu(interface) for place, interface in hops), default=0)


def _remembered(place: str, to: str, length: int, mtu: int, evidence: tuple[str, ...]) -> Finding:
    """An ICMP error said so earlier, and holds for ten minutes; or its route does."""
    return Finding(
        91,
        "mtu",
        place,
        f"{place} dropped it: {length} bytes with DF, and it remembers a path MTU of {mtu}, which"
        " no interface on the path has now",
        (f"{place}: ip route get {to}: mtu {mtu}", *evidence),
        f"`ip route flush cache` on {place} and its node, or take `mtu` from the route",
    )


def _smallest(case: Case, scene: Scene, place: str) -> int:
    space = case.space(place)
    mtus = (space.mtu(hop.interface) for hop in scene.leg.expected if hop.place == place)
    return min((mtu for mtu in mtus if mtu), default=0)


def _beyond_next(case: Case, scene: Scene, hop: ExpectedHop, packet: Packet) -> Iterator[Finding]:
    """Bridges and veths drop what is larger than the next interface's MTU without a word."""
    mtu = case.space(hop.place).mtu(hop.interface)
    length = packet.length - (_ETHERNET if packet.source_mac is not None else 0)
    if packet.inner is None:
        length += _overhead(hop.encapsulation)
    if not mtu or length <= mtu:
        return
    yield Finding(
        83,
        "mtu",
        hop.place,
        f"{scene.where} sent {length} bytes, which do not fit {hop.place}'s {hop.interface}: its"
        f" MTU is {mtu}",
        (f"{hop.place}: {hop.interface} mtu {mtu}",),
        f"`ip link set {hop.interface} mtu {length}` on {hop.place}, or send less",
    )


def _overhead(how: Encapsulation) -> int:
    return 0 if how is None else _OVERHEAD[type(how)]
