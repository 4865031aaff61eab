"""What kube-proxy did to a packet for a Service, where that is not what it must do."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.verify.trace.case import Case, Finding, Scene
from testbed.verify.trace.chains import gap
from testbed.verify.trace.devices import enters
from testbed.verify.trace.model import CLUSTER_IP, IN, Hop, Service
from testbed.verify.trace.netfilter import counted

__all__ = ["arrived", "refused", "told", "undone", "unmasqueraded", "untranslated"]

_DECIDED, _CERTAIN, _BRIDGED = 96, 95, 92
_AGAIN = "`testbed up` puts kube-proxy's rules back"


def told(service: Service, node: str) -> str:
    """What the node made of the packet's destination, as evidence."""
    made = f"DNAT to {service.translated}" if service.translated else "no DNAT was seen"
    return f"{node}: svc/{service.key} {service.address}: {made}"


def refused(case: Case, _: Scene) -> Iterator[Finding]:
    """Nobody is there to answer: kube-proxy rejects, drops, or was never meant to translate."""
    service = case.service
    if service is None or service.served or service.translated or not arrived(case, service):
        return
    node = service.entered
    where = f"svc/{service.key} ({service.address}/{service.protocol})"
    rules = tuple(_rejecting(case, service, node))
    has = ", ".join(service.ports)
    if service.mode == "none":
        summary = f"{node} runs no kube-proxy, so nothing translates {where}"
        advice = "`testbed up --proxy iptables`, or another mode"
        yield Finding(_DECIDED, "no-dnat", node, summary, (), advice)
    elif service.protocol == "icmp":
        advice = f"trace one of its ports ({has}) with --proto and --port"
        yield Finding(_DECIDED, "no-port", node, _pinged(case, service), rules, advice)
    elif not service.known:
        port = f"{service.port}/{service.protocol}"
        summary = f"svc/{service.key} has no port {port}: kube-proxy translates {has}"
        advice = "use a port of the Service, or add this one to it"
        yield Finding(_DECIDED, "no-port", node, summary, rules, advice)
    elif service.entrance is not None and service.entrance.firewalled:
        summary = (
            f"kube-proxy's load balancer firewall on {node} drops it: the loadBalancerSourceRanges "
            f"of {where} do not have {case.source.ip} ({case.source.place})"
        )
        advice = "add the sender to loadBalancerSourceRanges, or ask by another address"
        yield Finding(_DECIDED, "rule", node, summary, rules, advice)
    elif not any(each.ready for each in service.endpoints):
        summary = f"{where} has no ready endpoints: kube-proxy on {node} rejects"
        advice = "look at the Service's selector, and whether its pods run and are ready"
        yield Finding(_DECIDED, "no-endpoints", node, summary, rules + known(service), advice)
    elif not service.usable:
        policy = "internal" if service.kind == CLUSTER_IP else "external"
        summary = (
            f"{where} has no endpoints on {node}, and its {policy}TrafficPolicy is Local: "
            f"kube-proxy on {node} {'rejects' if service.mode == 'ipvs' else 'drops'}"
        )
        advice = f"run one of its pods on {node}, or use {policy}TrafficPolicy: Cluster"
        yield Finding(_DECIDED, "no-local-endpoints", node, summary, rules + known(service), advice)


def _pinged(case: Case, service: Service) -> str:
    if case.answered:
        return (
            f"{service.entered} answered itself: it has the address {service.ip}, and kube-proxy "
            f"in {service.mode} mode translates ports, of which ICMP has none"
        )
    what = service.kind.replace("-ip", " IP").replace("-", " ")
    return (
        f"nobody answers ping at a {what}: kube-proxy in {service.mode} mode translates ports, and "
        "ICMP has none"
    )


def arrived(case: Case, service: Service) -> bool:
    """Whether the packet came as it was to the node that translates; its own is there at once.

    That may be an endpoint's node, too, to which another sent it on.
    """
    seen = [hop.event for hop in case.walk.request.observed if hop.event.place == service.entered]
    return case.source.place == service.entered or any(
        str(event.packet.innermost.destination) == service.ip for event in seen
    )


def _rejecting(case: Case, service: Service, node: str) -> Iterator[str]:
    """Rules that dropped or rejected something for the address or, if it is one, the node port."""
    for rule, before in counted(case, node):
        to, port = rule.match.destination, (service.port, service.port)
        mine = to is not None and str(to.network_address) == service.ip
        if rule.drops and (mine or (to is None and port in rule.match.destination_ports)):
            yield f"{node}: {rule.evidence}: {before} → {rule.packets} packets"


def known(service: Service) -> tuple[str, ...]:
    """Endpoints that there are, but not for this."""
    return tuple(
        f"endpoint {each} ({each.end.place}, on {each.end.node}): "
        + ("elsewhere" if each.ready else "not ready")
        for each in service.endpoints
    )


def untranslated(case: Case, _: Scene) -> Iterator[Finding]:
    """The node did not translate it, or to what is no endpoint."""
    service = case.service
    if service is None or service.served or service.mode == "none" or not service.entered:
        return
    node = service.entered
    usable = ", ".join(map(str, service.usable)) or "none"
    if service.translated:
        whom = "no endpoint of it"
        if service.translated in map(str, service.endpoints):
            whom = "no endpoint that it may give this packet to"
        yield Finding(
            _CERTAIN,
            "stale-endpoint",
            node,
            f"{node} translated svc/{service.key} {service.address} to {service.translated}, which "
            f"is {whom}: its rules are old (endpoints: {usable})",
            (told(service, node), *known(service)),
            _AGAIN,
        )
        return
    if not service.known or not service.usable:
        return
    missing = gap(case.space(node).after, service, forwarded=case.source.place != node)
    gone = next((hop for hop in _sights(case) if _left(hop, service)), None)
    if not gone and not (missing and arrived(case, service)):
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


def _left(hop: Hop, service: Service) -> bool:
    """Whether the packet left the node that translates, or was sent on, as it was."""
    event = hop.event
    on = event.place == service.entered and not enters(event)
    return on and str(event.packet.innermost.destination) == service.ip


def unmasqueraded(case: Case, _: Scene) -> Iterator[Finding]:
    """The endpoint got it with the sender's own address, and answers past the node."""
    service = case.service
    if service is None or service.chosen is None:
        return
    senders = {hop.masqueraded for hop in case.walk.request.expected if hop.masqueraded}
    for hop in _sights(case):
        event, inner = hop.event, hop.event.packet.innermost
        left = event.place == service.entered and not enters(event)
        if not left or str(inner.source) not in senders or str(inner.destination) == service.ip:
            continue
        node = service.entered
        yield Finding(
            _CERTAIN,
            "no-snat",
            node,
            f"{node} did not masquerade it, so {case.target.place} does not answer by {node}, which"
            " alone can translate the reply back",
            (f"{event.place}/{event.interface} out: from {inner.source}", told(service, node)),
            _AGAIN,
        )
        return


def undone(case: Case, _: Scene) -> Iterator[Finding]:
    """The reply came back from the endpoint's own address, which the client never asked."""
    service = case.service
    if service is None or service.chosen is None or case.source.place == service.entered:
        return
    for hop in case.walk.reply.observed:
        event, origin = hop.event, str(hop.event.packet.innermost.source)
        at_end = event.place == case.source.place and event.direction == IN
        if not at_end or origin == service.ip:
            continue
        node, name = service.entered, "net.bridge.bridge-nf-call-iptables"
        off = case.space(node).sysctl(name) == "0" and case.source.node == node
        why = f": {name} is 0, so its bridge forwards it past netfilter" if off else ""
        yield Finding(
            _BRIDGED,
            "no-undnat",
            node,
            f"{node} did not translate the reply of {origin} back to {service.ip}{why}",
            (f"{event.place}/{event.interface} in: from {origin}", told(service, node)),
            f"`sysctl -w {name}=1` on {node}" if off else _AGAIN,
        )
        return
