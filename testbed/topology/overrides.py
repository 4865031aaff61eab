"""What the command line says instead of the file."""

from __future__ import annotations

from dataclasses import dataclass, replace

from testbed.topology import names
from testbed.topology.declared import Settings
from testbed.topology.section import either
from testbed.topology.settings import DRIVERS, MAX_PODS, unknown_proxy, without_tunnels
from testbed.topology.source import Place, Problems, quote

__all__ = ["Overrides", "overridden"]


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says instead of the file; ``None`` leaves it to the file."""

    name: str | None = None
    nodes: int | None = None
    """Keep the first so many services, or go on with their naming; routers are not counted."""
    pods_per_node: int | None = None
    ipip: str | None = None
    """What makes IP-in-IP tunnels."""
    proxy: str | None = None
    """kube-proxy's mode."""


def overridden(settings: Settings, overrides: Overrides, problems: Problems) -> Settings:
    """The settings with what the command line says of them; what is wrong is reported."""
    if overrides.name is not None:
        if error := names.dns_label(overrides.name):
            problems.add(Place("--name"), error)
        else:
            settings = replace(settings, name=overrides.name)
    if overrides.pods_per_node is not None:
        place = Place("--pods-per-node")
        if not 0 <= overrides.pods_per_node <= MAX_PODS:
            problems.add(place, f"{overrides.pods_per_node} is out of range; use 0 to {MAX_PODS}")
        else:
            settings = replace(settings, default_pods=overrides.pods_per_node, pods_place=place)
    if overrides.ipip is not None:
        place = Place("--ipip")
        if overrides.ipip not in DRIVERS:
            problems.add(
                place, f"{quote(overrides.ipip)} is not supported; write {either(DRIVERS)}"
            )
        elif error := without_tunnels(settings.backend):
            problems.add(place, error)
        else:
            settings = replace(settings, ipip=overrides.ipip)
    if overrides.proxy is not None:
        if error := unknown_proxy(overrides.proxy, settings.proxies):
            problems.add(Place("--proxy"), error)
        else:
            settings = replace(settings, proxy=overrides.proxy)
    return settings
