"""The ``networks`` of a Compose file: each is one layer 2 segment of the underlay.

As in Compose, a service without ``networks`` is on ``default``, which need not be declared. Nodes
on different networks reach each other by a router that is on both of them: one hop, no more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from testbed.topology import names
from testbed.topology.declared import (
    Cidr,
    Fabric,
    NetworkDeclaration,
    NodeDeclaration,
    RouterDeclaration,
    Settings,
)
from testbed.topology.section import Section, alternatives
from testbed.topology.source import BROKEN, Problems, describe, quote

__all__ = ["attached", "check_routed", "check_spoken", "read_networks", "settled"]

_DEFAULT = "default"
_ADDRESSES = "node addresses follow from the subnet: .1 is the gateway, .2 the first node"
_REFUSED = {
    "attachable": "only nodes are attached",
    "driver_opts": "testbed sets the bridge's options: no host address, no masquerading",
    "enable_ipv6": "this release is IPv4 only",
    "external": "testbed creates and removes the network itself",
    "internal": "Docker's isolation rules would drop bridged frames from pod addresses; "
    "nothing leaves the machine anyway",
    "labels": "testbed's labels tell its networks from others",
    "name": "testbed names the network itself",
}


def read_networks(document: Section) -> tuple[NetworkDeclaration, ...] | None:
    """The declared networks, in file order; None when the section cannot be read."""
    if document.get("networks") is None:
        return ()
    networks = document.section("networks")
    if networks is None:
        return None
    return tuple(_network(networks, name) for name in networks.values)


def _network(networks: Section, name: str) -> NetworkDeclaration:
    place = networks.place_of(name)
    if error := names.dns_label(name):
        networks.problem(name, f"a network's name: {error}")
    network = networks.section(name)
    if network is None:
        return NetworkDeclaration(name, place)
    network.only(("driver", "ipam"), _REFUSED, extensions=True)
    network.choice("driver", ("bridge",), "bridge")
    return NetworkDeclaration(name, place, _subnet(network))


def _subnet(network: Section) -> Cidr | None:
    ipam = network.section("ipam")
    if ipam is None:
        return None
    ipam.only(("driver", "config"), extensions=True)
    ipam.choice("driver", ("default",), "default")
    pools = ipam.sections("config")
    for pool in pools[1:]:
        pool.problems.add(pool.place, f"{pool.where}: a second subnet; a network has one here")
    for pool in pools[:1]:
        refused = dict.fromkeys(("gateway", "ip_range", "aux_addresses"), _ADDRESSES)
        pool.only(("subnet",), refused)
        subnet = pool.network("subnet")
        if subnet is not None:
            return Cidr(f"{pool.where}.subnet", subnet, pool.place_of("subnet"))
    return None


def attached(
    service: Section, declared: Sequence[NetworkDeclaration] | None
) -> tuple[str, ...] | None:
    """The names of a service's networks; None when they cannot be told, which is reported."""
    value = service.get("networks")
    if value is None:
        return (_DEFAULT,)
    if isinstance(value.data, Mapping):
        wanted = tuple(value.data)
        for name, options in value.data.items():
            if options.data and options.data is not BROKEN:
                why = "addresses and interfaces follow from the order of the services"
                service.problem("networks", f"{name} must be empty: {why}; write [{name}]")
    elif isinstance(value.data, tuple):
        wanted = service.texts("networks") or ()
        if len(wanted) < len(value.data):
            return None
    else:
        service.problem("networks", f"must be a list of names, not {describe(value.data)}")
        return None
    if not wanted:
        return (_DEFAULT,)
    return wanted if declared is not None and _are_known(service, wanted, declared) else None


def _are_known(
    service: Section, wanted: Sequence[str], declared: Collection[NetworkDeclaration]
) -> bool:
    known = [each.name for each in declared]
    unknown = [name for name in wanted if name not in (*known, _DEFAULT)]
    for name in unknown:
        hint = alternatives(name, known, "declared")
        service.problem("networks", f"{quote(name)} is not declared under networks{hint}")
    twice = sorted({name for name in wanted if wanted.count(name) > 1})
    for name in twice:
        service.problem("networks", f"{quote(name)} is listed twice; keep one")
    return not unknown and not twice


def settled(
    declared: Sequence[NetworkDeclaration],
    nodes: Sequence[NodeDeclaration],
    routers: Sequence[RouterDeclaration],
    problems: Problems,
) -> tuple[NetworkDeclaration, ...]:
    """The networks that there are: the declared ones, and ``default`` if a service is on it.

    Reports networks that nobody is on and networks that no router joins, unless it is unclear who
    is on which.
    """
    on = [(node.network, node.place) for node in nodes]
    on += [(name, router.place) for router in routers for name in router.networks or ("",)]
    known = {each.name for each in declared}
    implicit = [place for name, place in on if name == _DEFAULT and name not in known]
    networks = (*declared, *(NetworkDeclaration(_DEFAULT, place) for place in implicit[:1]))
    used = {name for name, _ in on}
    if "" in used:
        return networks
    for network in networks:
        if network.name not in used:
            hint = " (a service without networks is on default)" if implicit else ""
            problems.add(
                network.place,
                f"networks.{network.name}: no service is on it{hint}; remove it, or name it in a "
                "service's networks",
            )
    _check_joined(networks, nodes, routers, problems)
    return networks


def _check_joined(
    networks: Sequence[NetworkDeclaration],
    nodes: Sequence[NodeDeclaration],
    routers: Sequence[RouterDeclaration],
    problems: Problems,
) -> None:
    populated = _populated(networks, nodes)
    for position, network in enumerate(populated):
        apart = [
            other.name
            for other in populated[:position]
            if not any({network.name, other.name} <= {*router.networks} for router in routers)
        ]
        if apart:
            problems.add(
                network.place,
                f"no router joins network {network.name} with {', '.join(apart)}, so their nodes "
                f"cannot reach each other; add a service with networks: [{apart[0]}, "
                f"{network.name}] and x-testbed: {{role: router}} (this release routes over one "
                "router, not over several)",
            )


def _populated(
    networks: Sequence[NetworkDeclaration], nodes: Sequence[NodeDeclaration]
) -> list[NetworkDeclaration]:
    with_nodes = {node.network for node in nodes}
    return [network for network in networks if network.name in with_nodes]


def check_routed(settings: Settings, fabric: Fabric, problems: Problems) -> None:
    """Report nodes on several networks with a backend for which every node must be a neighbour."""
    populated = [network.name for network in _populated(fabric.networks, fabric.nodes)]
    backend, routed = settings.backend.type, settings.traits.routed
    if not settings.cni or len(populated) < 2 or backend in routed:
        return
    what = f"backend {backend} of {settings.cni}" if backend else settings.cni
    fitting = [kind for kind in settings.traits.backends if kind in routed]
    other = f", or backend {' or '.join(fitting)}" if fitting else ""
    problems.add(
        settings.backend_place,
        f"{what} does not work with nodes on several networks ({', '.join(populated)}): its routes "
        "have other nodes as next hops, and a next hop must be on the same network; use one "
        f"network{other}",
    )


def check_spoken(settings: Settings, problems: Problems) -> None:
    """Report what needs BGP with a backend whose nodes do not speak it."""
    if not settings.backend.type or settings.backend.type in settings.traits.bgp:
        return
    what = f"backend {settings.backend.type} of {settings.cni}"
    speaking = [kind for kind in settings.traits.backends if kind in settings.traits.bgp]
    instead = f"backend {' or '.join(speaking)}" if speaking else "cni: calico"
    if settings.load_balancer.announce == "bgp":
        problems.add(
            settings.load_balancer_place or settings.place,
            f"x-testbed.load_balancer.announce: the nodes speak no BGP with {what}; use layer2, "
            f"or {instead}",
        )
    for client in settings.clients:
        if client.as_number is not None:
            problems.add(
                client.place,
                f"client {quote(client.name)} has an as_number, but the nodes speak no BGP with "
                f"{what}; remove it, or use {instead}",
            )
