"""What misled the packet or its reply: wrong MACs in neighbour entries, NAT, a wrong sender."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbed.packets.packet import Packet, is_group
from testbed.verify.trace.bridging import behind
from testbed.verify.trace.case import Case, Finding, Scene
from testbed.verify.trace.facts import Space, in_words
from testbed.verify.trace.model import Hop
from testbed.verify.trace.netfilter import counted
from testbed.verify.trace.rulesets import Rule

__all__ = ["exposed", "impersonating", "misaddressed", "translated"]


def misaddressed(case: Case, scene: Scene) -> Iterator[Finding]:
    """A frame for a MAC that nobody here has: whoever gets it drops it without a word."""
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
        yield _to_another(case, sender, mac)


def _to_another(case: Case, sender: str, mac: str) -> Finding:
    """A frame for a pod beside the path, or for nobody."""
    entry = _entry(case.space(sender), mac)
    named = entry.partition(" lladdr ")[0]
    device = named.partition(" dev ")[2]
    owner = _pod_with(case, case.node(sender), mac)
    whose = f"which is {owner}'s" if owner else "which nobody has"
    evidence = (f"{sender}: ip neigh: {entry}",) if entry else ()
    if owner and case.observed.pods[owner].get("ip") == entry.partition(" ")[0]:
        return Finding(
            82,
            "wrong-route",
            sender,
            f"{sender} sent it by {device} to {owner} ({entry.partition(' ')[0]}), which is no"
            " gateway",
            evidence,
            case.repair(sender),
        )
    told = f": its neighbour entry `{entry}` is wrong" if entry else ""
    advice = f"`ip neigh del {named}` on {sender}"
    if not entry or case.space(sender).vxlan(device):
        advice = case.repair(sender)
    elif owner:
        advice = f"see whether {owner} has {entry.partition(' ')[0]}, too; then {advice}"
    return Finding(
        82, "no-neighbour", sender, f"{sender} sent it to {mac}, {whose}{told}", evidence, advice
    )


def _pod_with(case: Case, node: str, mac: str) -> str:
    """The pod behind the port where a node's bridge has a MAC; empty: there is none."""
    port = behind(case.space(node), mac)
    pods = case.observed.pods.items()
    return next((key for key, pod in pods if port and pod.get("host_interface") == port), "")


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


def translated(case: Case, _: Scene) -> Iterator[Finding]:
    """A NAT rule gave it another destination, or hid the pod that sent it to a pod.

    From there on it goes where that is, and so does the reply.
    """
    leg = case.walk.request
    for before, hop in zip(leg.observed, leg.observed[1:], strict=False):
        if before.event.place != hop.event.place:
            continue  # whoever did it is not on the path, and that it came there is the fault
        for words in hop.happened:
            if words.startswith("DNATed ") and words != _meant(case):
                yield _by_nat(hop, words, [r for r in _moved(case, hop) if r[0].translates])
                return
            if words.startswith("SNATed ") and _between_pods(case) and before.expected:
                yield _by_nat(hop, words, [r for r in _moved(case, hop) if r[0].hides])
                return


def _moved(case: Case, hop: Hop) -> Iterator[tuple[Rule, int]]:
    return counted(case, hop.event.place)


def _between_pods(case: Case) -> bool:
    return case.service is None and case.source.pod and case.target.pod


def _by_nat(hop: Hop, words: str, rules: Sequence[tuple[Rule, int]]) -> Finding:
    place = hop.event.place
    named = f" by {rules[0][0]}" if rules else ""
    undo = rules[0][0].undo if rules else ""
    return Finding(
        82,
        "nat",
        place,
        f"{place} {words}{named}",
        tuple(
            f"{place}: {rule.evidence}: {before} → {rule.packets} packets" for rule, before in rules
        ),
        f"`{undo}` on {place}, if it is not meant to be there" if undo else "",
        "request",
    )


def impersonating(case: Case, _: Scene) -> Iterator[Finding]:
    """A pod that sends from another address than its own: nobody knows the way back."""
    first = next(iter(case.walk.request.observed), None)
    if first is None or not case.source.pod or first.event.place != case.source.place:
        return
    sent, place = str(first.event.packet.innermost.source), case.source.place
    if sent in (case.source.ip, ""):
        return
    route = case.space(place).route(str(first.event.packet.innermost.destination)) or {}
    preferred = f" src {route['prefsrc']}" if route.get("prefsrc") else ""
    yield Finding(
        91,
        "wrong-source",
        place,
        f"{place} sent it from {sent}, which is not its address {case.source.ip}",
        (f"{place}: {in_words(route)}{preferred}",) if route else (),
        f"take {sent} from its routes and interfaces, or {case.repair(place)}",
        "request",
    )


def exposed(case: Case, _: Scene) -> Iterator[Finding]:
    """A pod's packet left its node with its own address, to which others may have no way back."""
    hidden = {hop.masqueraded for hop in case.walk.request.expected if hop.masqueraded}
    node = case.source.node
    for hop in case.walk.request.observed if case.service is None else ():
        place, sent = hop.event.place, str(hop.event.packet.innermost.source)
        if place in (case.source.place, node) or sent not in hidden:
            continue
        yield Finding(
            86,
            "no-snat",
            node,
            f"{node} did not masquerade it: {place} saw {sent}, the pod's own address",
            (f"{place}/{hop.event.interface} {hop.event.direction}: from {sent}",),
            case.repair(node),
            "request",
        )
        return


def _meant(case: Case) -> str:
    """What kube-proxy does to a packet for a Service, in the walk's words."""
    service = case.service
    if service is None or service.chosen is None:
        return ""
    return f"DNATed {service.address} to {service.translated}"
