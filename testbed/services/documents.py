"""What a node is told when Services change: the whole, or the difference to what it holds. Pure.

The format is that of ``testbed-agent services``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from testbed.announce import plan as announce
from testbed.dataplane.spec import Unit
from testbed.dataplane.underlay import Underlay
from testbed.dataplane.vantage import LARGE, Vantage
from testbed.node.services import Kept
from testbed.plan import ProxyPlanner, proxy, vantage
from testbed.services import conntrack, state
from testbed.topology.model import Cluster, Node
from testbed.topology.portals import Portal

__all__ = ["Update", "document", "update"]


@dataclass(frozen=True, slots=True)
class Update:
    """What changes on every node, however each of them holds it."""

    now: Kept
    portals: Mapping[str, tuple[Portal, ...]]
    """All of now."""
    base: str | None
    """The generation that the change is of; ``None``: it is everything."""
    keys: tuple[str, ...]
    """The Services that differ."""
    gone: Mapping[str, tuple[Portal, ...]]
    """Their portals as they were, as far as that is known."""
    large: bool
    """Whether there are so many endpoints that kube-proxy leaves comments out."""
    conntrack: tuple[tuple[str, ...], ...] = ()


def update(
    now: Kept, portals: Mapping[str, tuple[Portal, ...]], before: Kept | None = None
) -> Update:
    """The way from ``before`` to ``now``; without ``before``, from whatever a node holds.

    ``portals`` are those of ``now``. Where the number of endpoints crosses the one above which
    kube-proxy writes no comments, everything changes.
    """
    large = _is_large(now)
    if before is None:
        return Update(now, portals, None, tuple(now.inputs), {}, large)
    old, new = before.inputs, now.inputs
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    gone = state.joined({key: old[key] for key in keys if key in old})
    come = {key: portals[key] for key in keys if key in portals}
    stale = conntrack.stale(gone, come)
    if _is_large(before) != large:
        return Update(now, portals, None, tuple(new), {}, large, stale)
    return Update(now, portals, before.generation, tuple(keys), gone, large, stale)


def document(cluster: Cluster, node: Node, underlay: Underlay, change: Update) -> dict[str, Any]:
    """What ``node`` is told."""
    files, processes = announce(cluster, node, underlay, change.portals)
    units: dict[str, Unit | None] = dict.fromkeys(change.keys)
    units |= _units(cluster, node, underlay, change)
    return {
        "mode": cluster.proxy,
        "base": change.base,
        "generation": change.now.generation,
        "serial": time.time_ns(),
        "units": units,
        "inputs": {key: change.now.inputs.get(key) for key in change.keys},
        "files": [asdict(each) for each in files],
        "processes": [asdict(each) for each in processes],
        "conntrack": change.conntrack,
        "verify": change.base is None,
    }


def _is_large(kept: Kept) -> bool:
    every = (piece for entry in kept.inputs.values() for piece in state.pieces(entry))
    return sum(len(piece["ports"]) * len(piece["endpoints"]) for piece in every) > LARGE


def _units(
    cluster: Cluster, node: Node, underlay: Underlay, change: Update
) -> Iterator[tuple[str, Unit]]:
    if cluster.proxy == "none":
        return
    planner = proxy(cluster.proxy)
    place = vantage(cluster, node, underlay, large=change.large)
    come = {key: change.portals[key] for key in change.keys if key in change.portals}
    was, to_be = (_dispatch(planner, each, place) for each in (change.gone, come))
    if change.base is None or was != to_be:
        yield "", _dispatch(planner, change.portals, place)
    for key, portals in come.items():
        yield key, planner.service(portals, place)


def _dispatch(
    planner: ProxyPlanner, portals: Mapping[str, tuple[Portal, ...]], place: Vantage
) -> Unit:
    """What all Services share; it is the same if it is for those that differ."""
    return planner.dispatch([each for row in portals.values() for each in row], place)
