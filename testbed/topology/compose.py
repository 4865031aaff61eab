"""The Compose file: services are nodes and routers, networks are the underlay.

``x-testbed`` is the rest. A service is a node, on one network, unless its own ``x-testbed`` says
``role: router``: then it joins several and runs no pods.

The format is the `Compose specification <https://compose-spec.io>`_. What Compose would honour and
testbed does not is refused with the reason, so that the file never promises what it does not keep.
"""

from __future__ import annotations

from collections.abc import Mapping

from testbed.topology import names, networks
from testbed.topology.clients import as_number
from testbed.topology.declared import (
    Cidr,
    Fabric,
    NetworkDeclaration,
    NodeDeclaration,
    RouterDeclaration,
)
from testbed.topology.model import MESH_AS_NUMBER
from testbed.topology.section import Section, mapping
from testbed.topology.settings import SETTINGS
from testbed.topology.source import Value, quote

__all__ = [
    "IMAGE",
    "TOP_LEVEL",
    "TOP_LEVEL_REFUSED",
    "WELL_KNOWN_LABELS",
    "read_fabric",
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

_ROLES = ("node", "router")
_NO_PODS = "a router runs no pods"
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


def read_fabric(document: Section) -> Fabric:
    """The services and networks, in file order; what is wrong with one does not hide the others."""
    services = document.section("services")
    if document.get("services") is None or (services is not None and not services.values):
        document.problem(
            "services",
            f"missing; each service is a node: write at least `node1: {{image: {IMAGE}}}`",
        )
    declared = networks.read_networks(document)
    if services is None:
        return Fabric(())
    machines = [_machine(services, name, declared) for name in services.values]
    nodes = tuple(each for each in machines if isinstance(each, NodeDeclaration))
    routers = tuple(each for each in machines if isinstance(each, RouterDeclaration))
    if routers and not nodes:
        document.problem("services", "every service is a router; add a node, which runs pods")
    settled = networks.settled(declared or (), nodes, routers, document.problems)
    return Fabric(nodes, routers, settled)


def _machine(
    services: Section, name: str, declared: tuple[NetworkDeclaration, ...] | None
) -> NodeDeclaration | RouterDeclaration:
    if error := names.dns_label(name):
        services.problem(name, f"a node's name: {error}")
    place = services.place_of(name)
    value = services.values[name]
    service = mapping(Value(value.data or {}, place), services.path(name), services.problems)
    if service is None:
        return NodeDeclaration(name, place, network="")
    service.only(("image", "hostname", "networks", "x-testbed"), _SERVICE_REFUSED, extensions=True)
    _check_image(service)
    hostname = service.text("hostname")
    if hostname not in (None, name):
        service.problem("hostname", f"{quote(hostname or '')} is not the node's name; remove it")
    attached = networks.attached(service, declared)
    if service.get("x-testbed") is None:
        return NodeDeclaration(name, place, network=_uplink(service, attached))
    settings = service.section("x-testbed")
    if settings is None:
        return NodeDeclaration(name, place, network="")
    role = "node" if settings.get("role") is None else settings.choice("role", _ROLES, "")
    match role:
        case "router":
            return _router(name, service, settings, attached)
        case "node":
            return _node(name, service, settings, _uplink(service, attached))
    return NodeDeclaration(name, place, network="")


def _node(name: str, service: Section, settings: Section, network: str) -> NodeDeclaration:
    refused = {"as_number": f"only a router has one; the nodes are all in {MESH_AS_NUMBER}"}
    settings.only(("role", "labels", "pod_cidr"), refused)
    chosen = settings.network("pod_cidr")
    pod_cidr = Cidr("pod_cidr", chosen, settings.place_of("pod_cidr")) if chosen else None
    return NodeDeclaration(name, service.place, _labels(settings), pod_cidr, network)


def _router(
    name: str, service: Section, settings: Section, attached: tuple[str, ...] | None
) -> RouterDeclaration:
    settings.only(("role", "as_number"), {"labels": _NO_PODS, "pod_cidr": _NO_PODS})
    number = as_number(settings)
    if attached is not None and len(attached) < 2:
        service.problem("networks", f"a router joins two or more networks, not {attached[0]} alone")
        attached = None
    return RouterDeclaration(name, service.place, attached or (), number)


def _uplink(service: Section, attached: tuple[str, ...] | None) -> str:
    """The one network of a node; empty when that is wrong."""
    if attached is None:
        return ""
    if len(attached) > 1:
        service.problem(
            "networks",
            f"a node is on one network, not on {' and '.join(attached)}; keep one, or make the "
            "service a router: x-testbed: {role: router}",
        )
        return ""
    return attached[0]


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
