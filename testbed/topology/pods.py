"""A ``kind: Pod`` manifest.

Honoured: metadata name, namespace, labels, annotations; spec containers, hostNetwork, hostname,
nodeName, nodeSelector, readinessGates, restartPolicy, shareProcessNamespace. Nothing sets a
gate's condition here but the manifest itself: a pod is not ready until its ``status.conditions``
has every gate's type with status "True". Ignored, because ignoring them hides nothing (kubectl
writes several of them by itself):

============================= ==============================================================
status (else), metadata.uid … an API server's own bookkeeping
automountServiceAccountToken  there is no API server to talk to
dnsPolicy                     there is no cluster DNS; pods resolve as their node does
enableServiceLinks            there are no service environment variables
imagePullSecrets              nothing is pulled
preemptionPolicy, priority,   there is room for every pod of a topology, or loading fails
priorityClassName
schedulerName, tolerations    there is one scheduler, and nodes have no taints
serviceAccount(Name)          there is no API server to talk to
terminationGracePeriodSeconds nothing waits for a pod's end
============================= ==============================================================

Everything else is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

from testbed.topology import names
from testbed.topology.containers import read_container
from testbed.topology.declared import ContainerDeclaration, PodDeclaration
from testbed.topology.metadata import read_annotations, read_identity, read_parts
from testbed.topology.quantity import bits_per_second
from testbed.topology.section import Section
from testbed.topology.source import Place, Problems, quote

__all__ = ["BANDWIDTH", "default_hostname", "read_pod", "read_template"]

BANDWIDTH = ("kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth")
_HONOURED = (
    *("containers", "hostNetwork", "hostname", "nodeName", "nodeSelector", "readinessGates"),
    *("restartPolicy", "shareProcessNamespace"),
)
_IGNORED = {
    *("automountServiceAccountToken", "dnsPolicy", "enableServiceLinks", "imagePullSecrets"),
    *("preemptionPolicy", "priority", "priorityClassName", "schedulerName", "serviceAccount"),
    *("serviceAccountName", "terminationGracePeriodSeconds", "tolerations"),
}
_USE_SELECTOR = "use nodeName, or nodeSelector with labels of the nodes"
_PRINTED = frozenset({"securityContext"})
"""What kubectl prints empty, where nobody asked for anything."""
_REFUSED = {
    "activeDeadlineSeconds": "nothing ends a pod by time",
    "affinity": _USE_SELECTOR,
    "dnsConfig": "pods resolve as their node does",
    "ephemeralContainers": "use `testbed exec` or a further container",
    "hostAliases": "/etc/hosts is the pod's name and address only",
    "hostIPC": "pods have an IPC namespace of their own",
    "hostPID": "every container has a PID namespace of its own; see shareProcessNamespace",
    "hostUsers": "user namespaces are the node's",
    "initContainers": "put the steps before the program in the container's command",
    "nodeAffinity": _USE_SELECTOR,
    "os": "nodes are Linux",
    "overhead": "resources are not enforced",
    "resources": "nothing enforces them here",
    "runtimeClassName": "every pod runs in crun",
    "securityContext": "containers run as root with the node's capabilities; remove it",
    "setHostnameAsFQDN": "there is no cluster DNS",
    "subdomain": "there is no cluster DNS",
    "topologySpreadConstraints": "pods spread evenly over the nodes; " + _USE_SELECTOR,
    "volumes": "every container sees the node image's own files; there are no volumes",
}


def read_pod(document: Section) -> PodDeclaration | None:
    """Read a pod; None when it has no usable name or spec to go on with."""
    document.only(("apiVersion", "kind", "metadata", "spec"), ignored={"status"})
    metadata = document.section("metadata")
    identity = read_identity(metadata, "pod", names.dns_subdomain, "web") if metadata else None
    parts = read_parts(document, "a pod has metadata (its name) and spec (containers)")
    if parts is None or identity is None:
        return None
    name, namespace = identity
    gated = parts[1].get("readinessGates") is not None
    conditions = _conditions(document) if gated else frozenset()
    pod = read_template(*parts, namespace, name or "", conditions)
    return replace(pod, hostname=pod.hostname or default_hostname(pod.name)) if name else None


def read_template(
    metadata: Section,
    spec: Section,
    namespace: str,
    name: str,
    conditions: frozenset[str] = frozenset(),
) -> PodDeclaration:
    """Read what a pod and a Deployment's template share; the hostname is empty when not given.

    ``conditions`` are those that hold, for its readiness gates.
    """
    spec.only(_HONOURED, _REFUSED, ignored=_IGNORED | (spec.empty() & _PRINTED))
    host_network = spec.flag("hostNetwork") or False
    pod = PodDeclaration(
        place=metadata.place_of("name"),
        namespace=namespace,
        name=name,
        containers=_containers(spec, host_network),
        labels=names.labels(metadata, "labels"),
        annotations=_annotations(metadata, host_network),
        hostname=spec.valid("hostname", names.dns_label) or "",
        host_network=host_network,
        share_process_namespace=spec.flag("shareProcessNamespace") or False,
        restart_policy=spec.choice("restartPolicy", ("Always", "OnFailure", "Never"), "Always"),
        node=spec.text("nodeName") or None,
        node_place=spec.place_of("nodeName"),
        node_selector=names.labels(spec, "nodeSelector"),
        gated=not _gates(spec) <= conditions,
    )
    _check_host_ports(pod, spec.problems)
    return pod


def default_hostname(name: str) -> str:
    """A pod's hostname when it names none: its name, cut to 63 characters as kubelet cuts it."""
    return name[:63].rstrip("-.")


def _gates(spec: Section) -> frozenset[str]:
    """The condition types of ``readinessGates``."""
    found = set()
    for gate in spec.sections("readinessGates"):
        gate.only(("conditionType",))
        if gate.get("conditionType") is None:
            gate.problem("conditionType", "missing; write a type such as example.com/in-service")
        found.add(gate.valid("conditionType", names.label_key) or "")
    return frozenset(found)


def _conditions(document: Section) -> frozenset[str]:
    """The types of ``status.conditions`` that are True."""
    status = document.section("status")
    found = status.sections("conditions") if status else []
    return frozenset(each.text("type") or "" for each in found if each.text("status") == "True")


def _annotations(metadata: Section, host_network: bool) -> Mapping[str, str]:
    annotations = read_annotations(metadata)
    section = metadata.section("annotations") if annotations else None
    for key in annotations if section else ():
        if section and key in BANDWIDTH:
            _check_bandwidth(section, key, annotations[key], host_network)
    return annotations


def _check_bandwidth(section: Section, key: str, value: str, host_network: bool) -> None:
    if host_network:
        section.problem(
            key,
            "a hostNetwork pod has no interface of its own, so no rate can be set for it; "
            "remove the annotation or hostNetwork",
        )
    try:
        bits_per_second(value)
    except ValueError as error:
        section.problem(key, str(error))


def _containers(spec: Section, host_network: bool) -> tuple[ContainerDeclaration, ...]:
    if spec.get("containers") is None or spec.values["containers"].data == ():
        spec.problem("containers", "missing; a pod has at least one container")
    sections = spec.sections("containers")
    found = tuple(read_container(section, host_network) for section in sections)
    seen: set[str] = set()
    for container, section in zip(found, sections, strict=True):
        if container.name and container.name in seen:
            section.problem("name", f"container {quote(container.name)} exists twice; rename one")
        seen.add(container.name)
    _check_ports(found, spec)
    return found


def _check_ports(containers: tuple[ContainerDeclaration, ...], spec: Section) -> None:
    """The containers of a pod share one network namespace, hence one space of ports."""
    taken: dict[str, Place] = {}
    for container in containers:
        for declared in container.ports:
            port, place = declared.port, declared.place
            claims = {
                f"containerPort {port.container_port}/{port.protocol}": port.container_port,
                f"port name {quote(port.name)}": port.name,
            }
            for claim in (claim for claim, is_given in claims.items() if is_given):
                first = taken.setdefault(claim, place)
                if first is not place:
                    spec.problems.add(
                        place,
                        f"{spec.path('containers')}: {claim} is already on line {first.line}; "
                        "the containers of a pod share one network: change one",
                    )


def _check_host_ports(pod: PodDeclaration, problems: Problems) -> None:
    for first, second in combinations(pod.host_ports(), 2):
        if first.conflicts(second) and not pod.host_network:
            problems.add(
                second.place,
                f"pod {pod.key}: hostPort {second} is already on line {first.place.line}; one port "
                "of a node leads to one container: change one",
            )
