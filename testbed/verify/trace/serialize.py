"""A trace as plain data for ``-o json``: every key is always there, ``null`` where unknown.

Addresses are strings, times are nanoseconds, and a packet holds what it carries as ``inner``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from testbed.packets import serialize as packets
from testbed.verify.oracle import Encapsulation, Ipip, Vxlan, Wireguard
from testbed.verify.trace.model import Event, ExpectedHop, Hop, Leg, Service, Trace

__all__ = ["to_json"]

_NAMES = {Vxlan: "vxlan", Ipip: "ipip", Wireguard: "wireguard"}


def to_json(trace: Trace) -> dict[str, Any]:
    """The whole trace."""
    return {
        "testbed": trace.testbed,
        "ok": trace.ok,
        "answered": trace.answered,
        "error": trace.error,
        "source": asdict(trace.source),
        "target": asdict(trace.target),
        "probe": asdict(trace.probe),
        "request": _leg(trace.request),
        "reply": _leg(trace.reply),
        "icmp_errors": [_event(event) for event in trace.errors],
        "strays": [_event(event) for event in trace.strays],
        "diagnosis": _diagnosis(trace),
        "service": _service(trace.service),
        "conntrack": list(trace.conntrack),
    }


def _service(service: Service | None) -> dict[str, Any] | None:
    if service is None:
        return None
    namespace, _, name = service.key.partition("/")
    return {
        "namespace": namespace,
        "name": name,
        "cluster_ip": service.cluster_ip,
        "address": service.ip,
        "kind": service.kind,
        "entered": service.entered or None,
        "port": service.port or None,
        "protocol": service.protocol,
        "proxy": service.mode,
        "translated": service.translated or None,
        "endpoints": [
            {
                "address": each.end.ip,
                "port": each.port,
                "place": each.end.place,
                "node": each.end.node,
                "ready": each.ready,
                "usable": each.usable,
                "chosen": each == service.chosen,
            }
            for each in service.endpoints
        ],
    }


def _diagnosis(trace: Trace) -> dict[str, Any] | None:
    if trace.diagnosis is None:
        return None
    value = asdict(trace.diagnosis)
    return value | {"evidence": list(value["evidence"])}


def _leg(leg: Leg) -> dict[str, Any]:
    return {
        "complete": leg.complete,
        "divergence": leg.divergence,
        "expected": [_expected(hop) for hop in leg.expected],
        "observed": [_hop(hop) for hop in leg.observed],
    }


def _expected(hop: ExpectedHop) -> dict[str, Any]:
    return {
        "place": hop.place,
        "node": hop.node,
        "interface": hop.interface,
        "direction": hop.direction,
        "what": hop.what,
        "encapsulation": _encapsulation(hop.encapsulation),
    }


def _encapsulation(how: Encapsulation) -> dict[str, Any] | None:
    if how is None:
        return None
    return {
        "type": _NAMES[type(how)],
        "vni": getattr(how, "vni", None),
        "port": getattr(how, "port", None),
    }


def _hop(hop: Hop) -> dict[str, Any]:
    return {
        "number": hop.number,
        **_event(hop.event),
        "since_ns": hop.since_ns,
        "happened": list(hop.happened),
        "expected": hop.expected,
        "fragments": hop.fragments,
    }


def _event(event: Event) -> dict[str, Any]:
    return {
        "place": event.place,
        "node": event.node,
        "interface": event.interface,
        "direction": event.direction,
        "time_ns": event.packet.time_ns,
        "packet": packets.to_json(event.packet),
    }
