"""Which connections must be forgotten when endpoints change. Pure.

A UDP "connection" goes on as long as packets come, so a client that keeps its port would talk to a
removed endpoint for ever, or to the address of a Service that had no endpoints when it began.
kube-proxy deletes those entries (``pkg/proxy/conntrack/cleanup.go``); established TCP goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address

from testbed.topology.portals import Portal

__all__ = ["stale"]

Portals = Mapping[str, Sequence[Portal]]


def stale(before: Portals, after: Portals) -> tuple[tuple[str, ...], ...]:
    """Arguments of conntrack(8), once per deletion, in a stable order.

    Portals that are the same before and after may be left out of both.
    """
    old, new = _udp(before), _udp(after)
    found = [line for name, portal in old.items() for line in _removed(portal, new.get(name))]
    found += [
        line
        for name, portal in new.items()
        if portal.usable and not (name in old and old[name].usable)
        for line in _of(portal)
    ]
    return tuple(found)


def _udp(portals: Portals) -> dict[str, Portal]:
    every = (portal for each in portals.values() for portal in each)
    return {portal.name: portal for portal in every if portal.protocol == "udp"}


def _removed(portal: Portal, now: Portal | None) -> Iterator[tuple[str, ...]]:
    """Entries that lead to endpoints which serve no more."""
    left = {str(target) for target in now.targets if target.serving} if now else set()
    for target in portal.targets:
        if target.serving and str(target) not in left:
            yield from _of(portal, target.address)


def _of(portal: Portal, endpoint: IPv4Address | None = None) -> Iterator[tuple[str, ...]]:
    """Entries to any address of a portal; those that were translated to ``endpoint``."""
    translated = ["--dst-nat", str(endpoint)] if endpoint else []
    for address in _addresses(portal):
        yield "-D", "-p", "udp", "--orig-dst", str(address), *translated
    if portal.node_port:
        yield "-D", "-p", "udp", "--dport", str(portal.node_port), *translated


def _addresses(portal: Portal) -> Iterable[IPv4Address]:
    balancer = [portal.load_balancer_ip] if portal.load_balancer_ip else []
    return (portal.cluster_ip, *portal.external_ips, *balancer)
