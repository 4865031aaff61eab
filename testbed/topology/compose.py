"""The Compose file: services are nodes, the network is the underlay, ``x-testbed`` is the rest.

The format is the `Compose specification <https://compose-spec.io>`_. What Compose would honour and
testbed does not is refused with the reason, so that the file never promises what it does not keep.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from testbed.topology import names
from testbed.topology.declared import Cidr, NodeDeclaration
from testbed.topology.section import Section, mapping
from testbed.topology.settings import SETTINGS
from testbed.topology.source import BROKEN, Value, describe, quote

__all__ = [
    "IMAGE",
    "TOP_LEVEL",
    "TOP_LEVEL_REFUSED",
    "WELL_KNOWN_LABELS",
    "read_nodes",
    "read_underlay",
]

IMAGE = "testbed-node"
"""What a service's ``image`` says; testbed itself adds the tag, the hash of the image's inputs."""

WELL_KNOWN_LABELS = frozenset({"kubernetes.io/hostname", "kubernetes.io/os"})
"""Labels that every node has by itself."""

TOP_LEVEL = ("services", "networks", "name", "x-testbed", "version")
TOP_LEVEL_REFUSED = {
    **dict.fromkeys(SETTINGS, "it belongs under x-testbed"),
    "configs": "a node's files come from its plan; see `testbed plan`",
    "include": "a topology is one file; put pods in x-testbed.manifests",
    "secrets": "a node's files come from its plan; see `testbed plan`",
    "volumes": "a node keeps nothing outside its container",
}

_PRIVILEGES = "testbed finds out which privileges the engine grants; see `testbed doctor`"
_LIFECYCLE = "testbed starts and stops the nodes together"
_FILES = "a node's files come from its plan; see `testbed plan`"
_LINKS = "nodes resolve and reach each other by name already"
_LIMITS = "resources are not limited"
_SERVICE_REFUSED = {
    "build": "the node image is testbed's own; `testbed image build` makes it",
    "cap_add": _PRIVILEGES,
    "cap_drop": _PRIVILEGES,
    "cgroup": _PRIVILEGES,
    "command": "a node runs testbed's agent; programs run in pods, see x-testbed.manifests",
    "configs": _FILES,
    "container_name": "testbed names the container <testbed>-<node>",
    "cpus": _LIMITS,
    "depends_on": _LIFECYCLE,
    "deploy": "a service is one node; write one service for each",
    "devices": _PRIVILEGES,
    "dns": "the engine's resolver is used",
    "entrypoint": "a node runs testbed's agent; programs run in pods, see x-testbed.manifests",
    "env_file": "a node runs nothing that would read it; set env in a pod's container",
    "environment": "a node runs nothing that would read it; set env in a pod's container",
    "expose": "nodes reach all ports of each other",
    "extends": "use a YAML anchor and a merge key: <<: *node",
    "extra_hosts": _LINKS,
    "healthcheck": "`testbed check` tells whether a node works",
    "init": "a node's PID 1 is testbed's agent",
    "ipc": _PRIVILEGES,
    "labels": "labels of a node go under its x-testbed.labels",
    "links": _LINKS,
    "mac_address": "the engine chooses it",
    "mem_limit": _LIMITS,
    "network_mode": "every node is on the underlay; see networks",
    "pid": _PRIVILEGES,
    "ports": "nothing is published on the machine, so that nothing leaves it; "
    "hostPort makes a pod reachable at its node's address",
    "privileged": _PRIVILEGES,
    "profiles": _LIFECYCLE,
    "read_only": _PRIVILEGES,
    "restart": _LIFECYCLE,
    "scale": "a service is one node; write one service for each, or use --nodes",
    "secrets": _FILES,
    "security_opt": _PRIVILEGES,
    "stop_grace_period": _LIFECYCLE,
    "sysctls": "the CNI decides a node's sysctls; see `testbed plan`",
    "tmpfs": _FILES,
    "user": _PRIVILEGES,
    "volumes": "a node keeps nothing outside its container",
    "working_dir": "a node runs testbed's agent; programs run in pods, see x-testbed.manifests",
}


def read_nodes(document: Section) -> tuple[NodeDeclaration, ...]:
    """The services, in file order; what is wrong with one does not hide the others."""
    services = document.section("services")
    if document.get("services") is None or (services is not None and not services.values):
        document.problem(
            "services",
            f"missing; each service is a node: write at least `node1: {{image: {IMAGE}}}`",
        )
    if services is None:
        return ()
    network = _network_name(document)
    return tuple(_node(services, name, network) for name in services.values)


def read_underlay(document: Section) -> Cidr | None:
    """The subnet of the one network, if the file gives it."""
    networks = document.section("networks")
    if networks is None:
        return None
    first, *others = networks.values or ("default",)
    for name in others:
        networks.problem(name, f"a second network; all nodes share one, which is {quote(first)}")
    network = networks.section(first)
    if network is None:
        return None
    network.only(
        ("driver", "ipam"),
        {
            "attachable": "only nodes are attached",
            "driver_opts": "testbed sets the bridge's options: no host address, no masquerading",
            "enable_ipv6": "this release is IPv4 only",
            "external": "testbed creates and removes the network itself",
            "internal": "Docker's isolation rules would drop bridged frames from pod addresses; "
            "nothing leaves the machine anyway",
            "labels": "testbed's labels tell its networks from others",
            "name": "testbed names the network itself",
        },
        extensions=True,
    )
    network.choice("driver", ("bridge",), "bridge")
    return _subnet(network)


def _subnet(network: Section) -> Cidr | None:
    ipam = network.section("ipam")
    if ipam is None:
        return None
    ipam.only(("driver", "config"), extensions=True)
    ipam.choice("driver", ("default",), "default")
    pools = ipam.sections("config")
    for pool in pools[1:]:
        pool.problems.add(pool.place, f"{pool.where}: a second subnet; all nodes share one")
    for pool in pools[:1]:
        reason = "node addresses follow from the subnet: .1 is the gateway, .2 the first node"
        pool.only(("subnet",), dict.fromkeys(("gateway", "ip_range", "aux_addresses"), reason))
        subnet = pool.network("subnet")
        if subnet is not None:
            return Cidr(f"{pool.where}.subnet", subnet, pool.place_of("subnet"))
    return None


def _network_name(document: Section) -> str:
    """The network that all nodes are on; Compose's own default unless the file declares one."""
    networks = document.values.get("networks")
    declared = networks.data if networks is not None else None
    return next(iter(declared), "default") if isinstance(declared, Mapping) else "default"


def _node(services: Section, name: str, network: str) -> NodeDeclaration:
    if error := names.dns_label(name):
        services.problem(name, f"a node's name: {error}")
    place = services.place_of(name)
    value = services.values[name]
    service = mapping(Value(value.data or {}, place), services.path(name), services.problems)
    if service is None:
        return NodeDeclaration(name, place)
    service.only(("image", "hostname", "networks", "x-testbed"), _SERVICE_REFUSED, extensions=True)
    _check_image(service)
    hostname = service.text("hostname")
    if hostname not in (None, name):
        service.problem("hostname", f"{quote(hostname or '')} is not the node's name; remove it")
    _check_networks(service, network)
    settings = service.section("x-testbed")
    if settings is None:
        return NodeDeclaration(name, place)
    settings.only(("labels", "pod_cidr"))
    chosen = settings.network("pod_cidr")
    pod_cidr = Cidr("pod_cidr", chosen, settings.place_of("pod_cidr")) if chosen else None
    return NodeDeclaration(name, place, _labels(settings), pod_cidr)


def _labels(settings: Section) -> Mapping[str, str]:
    labels = names.labels(settings, "labels")
    for key in WELL_KNOWN_LABELS & labels.keys():
        settings.problem("labels", f"{key} is set by testbed, as kubelet sets it; remove it")
    return labels


def _check_image(service: Section) -> None:
    image = service.text("image")
    if service.get("image") is None:
        service.problem("image", f"missing; Compose requires it: write `image: {IMAGE}`")
    elif image is not None and image != IMAGE:
        service.problem(
            "image",
            f"{quote(image)} is not what a node runs; write `image: {IMAGE}` (testbed adds the "
            "tag), and give images of your own to pods",
        )


def _check_networks(service: Section, network: str) -> None:
    value = service.get("networks")
    wanted: Collection[str] = ()
    if value is None:
        wanted = ("default",)
    elif isinstance(value.data, Mapping):
        wanted = value.data.keys()
        for name, options in value.data.items():
            if options.data and options.data is not BROKEN:
                why = "addresses and interfaces follow from the order of the services"
                service.problem("networks", f"{name} must be empty: {why}; write [{network}]")
    elif isinstance(value.data, tuple):
        wanted = service.texts("networks") or ()
    else:
        service.problem("networks", f"must be a list of names, not {describe(value.data)}")
    for name in wanted:
        if name != network:
            message = f"{quote(name)} is not the file's network"
            service.problem("networks", f"{message}; all nodes share one: networks: [{network}]")
