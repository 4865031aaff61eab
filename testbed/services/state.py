"""Services and EndpointSlices as a running testbed holds them. Pure.

Every node keeps them, one entry for each Service, beside the rules that were made of them. They are
the state between two commands, as labels are for containers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from ipaddress import IPv4Address
from typing import Any

from testbed.node.services import Kept
from testbed.topology.model import Cluster
from testbed.topology.portals import Portal, Seen, portals, slices
from testbed.topology.serialize import (
    service_from_json,
    service_to_json,
    slice_from_json,
    slice_to_json,
)

__all__ = ["Inputs", "held", "joined", "kept", "pieces", "seen"]

Inputs = dict[str, Any]
"""Service ``namespace/name`` → ``{"service": … or None, "written": slices, "slices": slices}``.

``written`` are the EndpointSlices of manifests; the others follow from the Service's selector.
"""
_READY = "Running"


def seen(cluster: Cluster, states: Mapping[str, Mapping[str, Any]]) -> dict[str, Seen]:
    """Pod key → its address and readiness, from the agents' states.

    A pod is ready when it runs and no readiness gate holds it back.
    """
    reported = {
        f"{pod['namespace']}/{pod['name']}": pod
        for state in states.values()
        for pod in state.get("pods", [])
    }
    found: dict[str, Seen] = {}
    for pod in cluster.pods:
        entry = reported.get(pod.key, {})
        if entry.get("ip"):
            ready = entry["state"] == _READY and not pod.gated
            found[pod.key] = Seen(IPv4Address(entry["ip"]), ready)
    return found


def kept(cluster: Cluster, pods: Mapping[str, Seen]) -> tuple[Kept, dict[str, tuple[Portal, ...]]]:
    """What nodes are to keep given the pods that run, and what kube-proxy makes rules of."""
    found: Inputs = {
        service.key: {"service": service_to_json(service), "written": [], "slices": []}
        for service in cluster.services
    }
    for piece in cluster.slices:
        key = f"{piece.namespace}/{piece.service}"
        entry = found.setdefault(key, {"service": None, "written": [], "slices": []})
        entry["written"].append(slice_to_json(piece))
    selected = slices(cluster.services, cluster.pods, pods)
    for piece in selected:
        found[f"{piece.namespace}/{piece.service}"]["slices"].append(slice_to_json(piece))
    found = dict(sorted(found.items()))
    text = json.dumps([cluster.proxy, found], separators=(",", ":"))
    generation = sha256(text.encode()).hexdigest()[:32]
    return Kept(generation, found), portals(cluster.services, (*cluster.slices, *selected))


def held(cluster: Cluster, inputs: Mapping[str, Any]) -> Cluster:
    """``cluster`` with the Services and slices that its nodes keep."""
    entries = inputs.values()
    return replace(
        cluster,
        services=tuple(service_from_json(each["service"]) for each in entries if each["service"]),
        slices=tuple(slice_from_json(row) for each in entries for row in each["written"]),
    )


def joined(inputs: Mapping[str, Any]) -> dict[str, tuple[Portal, ...]]:
    """What kube-proxy makes rules of: Service key → its portals."""
    return portals(
        (service_from_json(each["service"]) for each in inputs.values() if each["service"]),
        (slice_from_json(row) for each in inputs.values() for row in pieces(each)),
    )


def pieces(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All EndpointSlices of an entry."""
    yield from (*entry["written"], *entry["slices"])
