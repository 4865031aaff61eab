"""What a node is told when Services change: the whole, or the difference to what it holds. Pure.

The format is that of ``testbed-agent services``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from testbed.announce import plan as announce
from testbed.dataplane.spec import ServicesSpec, Unit
from testbed.dataplane.underlay import Underlay
from testbed.dataplane.vantage import LARGE
from testbed.plan import proxy, vantage
from testbed.services import conntrack, state
from testbed.services.state import Inputs
from testbed.topology.model import Cluster, Node
from testbed.topology.portals import Portal

__all__ = ["Held", "document", "held", "spec"]


@dataclass(frozen=True, slots=True)
class Held:
    """Services as nodes hold them, or are to."""

    generation: str
    inputs: Inputs
    portals: Mapping[str, tuple[Portal, ...]]

    @property
    def large(self) -> bool:
        """Whether kube-proxy leaves comments out."""
        every = (portal for each in self.portals.values() for portal in each)
        return sum(len(portal.targets) for portal in every) > LARGE


def held(mode: str, inputs: Inputs) -> Held:
    """Services with what follows from them."""
    return Held(state.generation(mode, inputs), inputs, state.joined(inputs))


def spec(cluster: Cluster, node: Node, underlay: Underlay, now: Held) -> ServicesSpec:
    """Everything that ``node`` is to hold."""
    files, processes = announce(cluster, node, underlay, now.portals)
    units = _units(cluster, node, underlay, now, now.inputs)
    return ServicesSpec(cluster.proxy, units, files, processes)


def document(
    cluster: Cluster, node: Node, underlay: Underlay, now: Held, before: Held | None
) -> dict[str, Any]:
    """What brings ``node`` from ``before`` to ``now``; ``None``: whatever it holds, verified."""
    base = before if before and before.large == now.large else None
    changed = _changed(base.inputs, now.inputs) if base else list(now.inputs)
    files, processes = announce(cluster, node, underlay, now.portals)
    units: dict[str, Unit | None] = dict.fromkeys(changed)
    units |= _units(cluster, node, underlay, now, [key for key in changed if key in now.inputs])
    return {
        "mode": cluster.proxy,
        "base": base.generation if base else None,
        "generation": now.generation,
        "units": units,
        "inputs": {key: now.inputs.get(key) for key in changed},
        "files": [asdict(each) for each in files],
        "processes": [asdict(each) for each in processes],
        "conntrack": conntrack.stale(before.portals, now.portals) if before else [],
        "verify": before is None,
    }


def _changed(before: Inputs, now: Inputs) -> list[str]:
    return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))


def _units(
    cluster: Cluster, node: Node, underlay: Underlay, now: Held, keys: Iterable[str]
) -> dict[str, Unit]:
    if cluster.proxy == "none":
        return {}
    planner = proxy(cluster.proxy)
    place = vantage(cluster, node, underlay, large=now.large)
    every: Sequence[Portal] = [portal for each in now.portals.values() for portal in each]
    units = {"": planner.dispatch(every, place)}
    units |= {key: planner.service(now.portals[key], place) for key in keys if key in now.portals}
    return units
