"""What kube-proxy did to a packet for a Service, where that is not what it must do."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.verify.trace.case import Case, Finding, Scene
from testbed.verify.trace.chains import gap
from testbed.verify.trace.model import IN, OUT, Hop, Service
from testbed.verify.trace.netfilter import counted

__all__ = ["refused", "told", "undone", "untranslated"]

_DECIDED, _CERTAIN, _BRIDGED = 96, 95, 92
_AGAIN = "`testbed up` puts kube-proxy's rules back"


def told(service: Service, node: str) -> str:
    """What the node made of the packet's destination, as evidence."""
    made = f"DNAT to {service.translated}" if service.translated else "no DNAT was seen"
    return f"{node}: svc/{service.key} {service.address}: {made}"


def refused(case: Case, _: Scene) -> Iterator[Finding]:
    """Nobody is there to answer: kube-proxy rejects, drops, or was never meant to translate."""
    service = case.service
    if service is None or service.served or service.translated or not _entered(case):
        return
    node = case.source.node
    where = f"svc/{service.key} ({service.address}/{service.protocol})"
    rules = tuple(_rejecting(case, service, node))
    has = ", ".join(service.ports)
    if service.mode == "none":
        summary = f"{node} runs no kube-proxy, so nothing translates {where}"
        advice = "`testbed up --proxy iptables`, or another mode"
        yield Finding(_DECIDED, "no-dnat", node, summary, (), advice)
    elif service.protocol == "icmp":
        summary = (
            f"nobody answers ping at a cluster IP: kube-proxy in {service.mode} mode translates "
            "ports, and ICMP has none"
        )
        advice = f"trace one of its ports ({has}) with --proto and --port"
        yield Finding(_DECIDED, "no-port", node, summary, rules, advice)
    elif not service.known:
        port = f"{service.port}/{service.protocol}"
        summary = f"svc/{service.key} has no port {port}: kube-proxy translates {has}"
        advice = "use a port of the Service, or add this one to it"
        yield Finding(_DECIDED, "no-port", node, summary, rules, advice)
    elif not any(each.ready for each in service.endpoints):
        summary = f"{where} has no ready endpoints: kube-proxy on {node} rejects"
        advice = "look at the Service's selector, and whether its pods run and are ready"
        yield Finding(_DECIDED, "no-endpoints", node, summary, rules + _known(service), advice)
    elif not service.usable:
        summary = (
            f"{where} has no endpoints on {node}, and its internalTrafficPolicy is Local: "
            f"kube-proxy on {node} {'rejects' if service.mode == 'ipvs' else 'drops'}"
        )
        advice = f"run one of its pods on {node}, or use internalTrafficPolicy: Cluster"
        yield Finding(
            _DECIDED, "no-local-endpoints", node, summary, rules + _known(service), advice
        )


def _entered(case: Case) -> bool:
    """Whether the packet came as far as its node's rules, which of its own see it first."""
    source = case.source
    return not source.pod or any(
        hop.event.place == source.node for hop in case.walk.request.observed
    )


def _rejecting(case: Case, service: Service, node: str) -> Iterator[str]:
    """Rules that dropped or rejected something for the cluster IP."""
    for rule, before in counted(case, node):
        to = rule.match.destination
        if rule.drops and to is not None and str(to.network_address) == service.cluster_ip:
            yield f"{node}: {rule.evidence}: {before} → {rule.packets} packets"


def _known(service: Service) -> tuple[str, ...]:
    """Endpoints that there are, but not for this."""
    return tuple(
        f"endpoint {each} ({each.end.place}, on {each.end.node}): "
        + ("elsewhere" if each.ready else "not ready")
        for each in service.endpoints
    )


def untranslated(case: Case, _: Scene) -> Iterator[Finding]:
    """The node did not translate it, or to what is no endpoint."""
    service = case.service
    if service is None or service.served or service.mode == "none":
        return
    node = case.source.node
    usable = ", ".join(map(str, service.usable)) or "none"
    if service.translated:
        yield Finding(
            _CERTAIN,
            "stale-endpoint",
            node,
            f"{node} translated svc/{service.key} {service.address} to {service.translated}, which "
            f"is no endpoint of it: its rules are old (endpoints: {usable})",
            (told(service, node), *_known(service)),
            _AGAIN,
        )
        return
    if not service.known or not service.usable:
        return
    missing = gap(case.space(node).after, service, forwarded=case.source.pod)
    gone = next((hop for hop in _sights(case) if _left(hop, case, service)), None)
    if not gone and not (missing and _entered(case)):
        return
    evidence = [f"{node}: {each}" for each in missing]
    if gone:
        event = gone.event
        seen = f"{event.place}/{event.interface} {event.direction}"
        evidence.append(f"{seen}: still to {event.packet.innermost.destination}")
    why = f": {missing[0]}" if missing else ""
    yield Finding(
        _CERTAIN,
        "no-dnat",
        node,
        f"{node} did not translate svc/{service.key} {service.address}{why}",
        tuple(evidence),
        _AGAIN,
    )


def _sights(case: Case) -> tuple[Hop, ...]:
    return case.walk.request.observed


def _left(hop: Hop, case: Case, service: Service) -> bool:
    """Whether the packet left its node, or was sent on, as it was."""
    event = hop.event
    on = event.place == case.source.node and event.direction == OUT
    return on and str(event.packet.innermost.destination) == service.cluster_ip


def undone(case: Case, _: Scene) -> Iterator[Finding]:
    """The reply came back from the endpoint's own address, which the client never asked."""
    service = case.service
    if service is None or service.chosen is None or not case.source.pod:
        return
    for hop in case.walk.reply.observed:
        event, origin = hop.event, str(hop.event.packet.innermost.source)
        arrived = event.place == case.source.place and event.direction == IN
        if not arrived or origin == service.cluster_ip:
            continue
        node, name = case.source.node, "net.bridge.bridge-nf-call-iptables"
        off = case.space(node).sysctl(name) == "0"
        why = f": {name} is 0, so its bridge forwards it past netfilter" if off else ""
        yield Finding(
            _BRIDGED,
            "no-undnat",
            node,
            f"{node} did not translate the reply of {origin} back to {service.cluster_ip}{why}",
            (f"{event.place}/{event.interface} in: from {origin}", told(service, node)),
            f"`sysctl -w {name}=1` on {node}" if off else _AGAIN,
        )
        return
