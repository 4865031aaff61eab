"""Routes that are missing, that refuse, or that lead elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from testbed.verify.trace.case import Case, Finding, Question, Scene
from testbed.verify.trace.facts import Space, in_words, network_of
from testbed.verify.trace.model import ExpectedHop
from testbed.verify.trace.routing import BY_HAND, PROXIED, back, onward

__all__ = ["no_way"]

_ANSWER = "RTNETLINK answers: "
_REFUSING = {
    "blackhole": "drops it",
    "unreachable": "answers that the host is unreachable",
    "prohibit": "answers that it is prohibited",
}


def no_way(case: Case, scene: Scene) -> Iterator[Finding]:
    """No route, one that refuses, or one that leads elsewhere."""
    question = onward(case, scene)
    if question is not None and scene.next is not None:
        yield from _judged(case, scene, scene.next, question)
    elif scene.next is None and (asked := back(case, scene)) is not None:
        yield from _unanswerable(case, scene, asked)
    yield from _astray(case, scene)


def _judged(case: Case, scene: Scene, hop: ExpectedHop, question: Question) -> Iterator[Finding]:
    space = case.space(scene.where)
    known = space.route(question.to)
    taken, error = case.answer(question)
    if known is not None and known.get("type") in _REFUSING and not taken:
        yield _refused(case, scene.where, question.to, known)
    elif not taken and (policies := space.policies) and (_refusing(error) or (known and error)):
        yield _by_policy(scene.where, question, error, policies)
    elif not taken and (known is None or "unreachable" in error.lower()):
        yield _none(case, scene, question.to, space, error)
        return
    route = taken or known or {}
    if route and (route.get("dev") != hop.interface or _by_default(case, scene, known)):
        yield _elsewhere(case, scene, f"by {hop.interface}", question.to, route, known)
    elif route:
        yield from _next_hop(case, scene, question.to, route, known)
        yield from _earlier(case, scene, hop, question.to)
        yield from _by_mark(case, scene, hop, question.to)


def _earlier(case: Case, scene: Scene, hop: ExpectedHop, to: str) -> Iterator[Finding]:
    """What a routing daemon repaired while the packet was under way."""
    space = case.space(scene.where)
    if not space.before.get("routes") or space.kept(to):
        return
    route = space.route(to, earlier=True)
    if route is None:
        found = _none(case, scene, to, space, "")
    elif route.get("type") in _REFUSING:
        found = _refused(case, scene.where, to, route)
    elif route.get("dev") != hop.interface or _by_default(case, scene, route):
        found = _elsewhere(case, scene, f"by {hop.interface}", to, route, route)
    else:
        return
    now = f"{scene.where}: since then: {in_words(space.route(to) or {})}"
    yield found._replace(weight=found.weight - 1, evidence=(*found.evidence, now))


def _by_default(case: Case, scene: Scene, known: Mapping[str, Any] | None) -> bool:
    """Whether a node knows nothing better for another node's pod than its default route."""
    if known is None or network_of(known).prefixlen or scene.encapsulates:
        return False
    to = case.target if scene.role == "request" else case.source
    return to.pod and scene.where == case.node(scene.where)


def _refused(case: Case, place: str, to: str, route: Mapping[str, Any]) -> Finding:
    kind = str(route["type"])
    if route.get("protocol", "boot") not in BY_HAND:  # Calico's own, around the pods' routes
        return Finding(
            81,
            "no-route",
            place,
            f"{place} dropped it: it has no route to {to} within {route.get('dst')}",
            (f"{place}: {in_words(route)} (the CNI's own, for what is not assigned)",),
            f"{case.repair(place)}; if it is a pod's route, restart {place}'s container",
        )
    return Finding(
        81,
        "blackhole",
        place,
        f"{place} dropped it: its {kind} route {route.get('dst')} {_REFUSING[kind]}",
        (f"{place}: {in_words(route)}",),
        f"`ip route del {kind} {route.get('dst')}` on {place}",
    )


def _refusing(error: str) -> bool:
    """What ``ip route get`` says of rules of type unreachable, blackhole and prohibit."""
    words = ("No route to host", "Invalid argument", "Permission denied")
    return any(each in error for each in words)


def _by_policy(place: str, question: Question, error: str, policies: tuple[str, ...]) -> Finding:
    came = f" from {question.source} iif {question.interface}" if question.interface else ""
    asked = f"ip route get {question.to}{came}"
    which = f"from {question.source}" if question.source else f"to {question.to}"
    return Finding(
        81,
        "blackhole",
        place,
        f"{place} dropped it: a routing policy rule refuses packets {which}",
        (f"{place}: {asked}: {error}", *(f"{place}: ip rule: {each}" for each in policies)),
        f"look at `ip rule` on {place} and the tables that it names",
    )


def _by_mark(case: Case, scene: Scene, hop: ExpectedHop, to: str) -> Iterator[Finding]:
    """The kernel, asked, would take the right way; rules for packets with a mark were not asked."""
    space = case.space(scene.where)
    rules = [each for each in space.policies if "fwmark" in each]
    left = [
        each.event.interface
        for each in scene.leg.observed
        if not each.expected and (each.event.place, each.event.direction) == (scene.where, "out")
    ]
    moved = space.moved("IpExt.InNoRoutes") or space.moved("Ip.OutNoRoutes")
    if not rules or not (left or moved):
        return
    did = f"sent it by {left[0]}, not by {hop.interface}" if left else f"found no route to {to}"
    yield Finding(
        78,
        "wrong-route" if left else "blackhole",
        scene.where,
        f"{scene.where} {did}: a routing policy rule for packets with a mark took it",
        (
            *(f"{scene.where}: ip rule: {each}" for each in rules),
            f"{scene.where}: ip route get {to}, without a mark: {in_words(space.route(to) or {})}",
        ),
        f"look at `ip rule` on {scene.where}, the tables that it names, and what sets the mark",
    )


def _none(case: Case, scene: Scene, to: str, space: Space, said: str) -> Finding:
    """``said`` is the kernel's answer to ``ip route get``, where it was asked."""
    asked = [f"{scene.where}: ip route get {to}: {said.removeprefix(_ANSWER)}"] if said else []
    moved = [(name, space.moved(name)) for name in ("IpExt.InNoRoutes", "Ip.OutNoRoutes")]
    counted = [f"{scene.where}: {name} {each[0]} → {each[1]}" for name, each in moved if each]
    return Finding(
        79,
        "no-route",
        scene.where,
        f"{scene.where} dropped it: it has no route to {to}",
        (*asked, *counted),
        _repair(case, scene),
    )


def _elsewhere(
    case: Case,
    scene: Scene,
    instead: str,
    to: str,
    taken: Mapping[str, Any],
    known: Mapping[str, Any] | None,
) -> Finding:
    where = scene.where
    gateway = str(taken.get("gateway", ""))
    owner = case.owner(gateway)
    via = f" to {owner} ({gateway})" if owner else f" to {gateway}" if gateway else ""
    evidence = [] if taken is known else [f"{where}: ip route get {to}: {in_words(taken)}"]
    if known is not None:
        evidence.append(f"{where}: {in_words(known)}")
    leads = f"by {taken.get('dev')}{via}"
    if known is not None and network_of(known).prefixlen == 0:
        cause, told = "no-route", f"has no route to {to}: its default route took it, {leads}"
    else:
        cause, told = "wrong-route", f"sent it {leads}, not {instead}"
    policies = case.space(where).policies if str(taken.get("table", "main")) != "main" else ()
    evidence += [f"{where}: ip rule: {each}" for each in policies]
    advice = _repair(case, scene)
    if policies:
        advice = f"look at `ip rule` on {where} and the tables that it names"
    elif known is not None and (spare := _shadowed(case.space(where), known, to)):
        advice = f"`ip route del {in_words(known)}` on {where}: `{in_words(spare)}` is behind it"
    return Finding(79, cause, where, f"{where} {told}", tuple(evidence), advice)


def _repair(case: Case, scene: Scene) -> str:
    """Routes to a node's own pods are made when they are attached, others by ``up``."""
    end = case.target if scene.role == "request" else case.source
    own = end.pod and end.node == scene.where
    return case.repair(end.place if own else scene.where)


def _shadowed(space: Space, known: Mapping[str, Any], to: str) -> Mapping[str, Any] | None:
    """The route that would be taken without ``known``; ``None``: only a default one, or none."""
    others = [each for each in space.after.get("routes", ()) if each is not known]
    rest = replace(space, after={**space.after, "routes": others}).route(to)
    return rest if rest is not None and network_of(rest).prefixlen else None


def _unanswerable(case: Case, scene: Scene, back: Question) -> Iterator[Finding]:
    """It arrived, and who got it knows no way back."""
    space = case.space(scene.where)
    route, error = case.answer(back)
    known = space.route(back.to)
    if route or case.walk.reply.observed:
        return
    if known is not None and known.get("type") in _REFUSING:
        yield _refused(case, scene.where, back.to, known)
    elif "unreachable" in error.lower():
        yield _none(case, scene, back.to, space, error)


def _astray(case: Case, scene: Scene) -> Iterator[Finding]:
    """Sent as it must look, but another machine got it, or none."""
    if scene.next is None or scene.packet is None or scene.next.place == scene.where:
        return
    to = str(scene.packet.destination)
    route = case.space(scene.where).route(to)
    if route is not None:
        yield from _next_hop(case, scene, to, route, route)


def _next_hop(
    case: Case,
    scene: Scene,
    to: str,
    route: Mapping[str, Any],
    known: Mapping[str, Any] | None,
) -> Iterator[Finding]:
    """The gateway, or the destination itself, must be an address of the next machine."""
    machine = _next_machine(case, scene)
    address = str(route.get("gateway") or to)
    if address == PROXIED and scene.where != machine:
        return
    if not machine or not case.space(machine).known or case.space(machine).owns(address):
        return
    if route.get("gateway"):
        yield _elsewhere(case, scene, f"to {machine}", to, route, known)


def _next_machine(case: Case, scene: Scene) -> str:
    """The node or router that must have the packet next, as far as the routing here knows.

    That is the tunnel's other end where a packet is to be put into one, and the next machine where
    it is in one.
    """
    node = case.node(scene.where)
    if scene.where != node:
        return node
    for hop in scene.leg.expected[scene.index :]:
        if hop.node != node and (hop.encapsulation is None or scene.encapsulates):
            return hop.node
    return ""
