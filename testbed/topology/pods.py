"""A ``kind: Pod`` manifest.

Honoured: metadata name, namespace, labels, annotations; spec containers, hostNetwork, hostname,
nodeName, nodeSelector, restartPolicy, shareProcessNamespace. Ignored, because ignoring them hides
nothing (kubectl writes several of them by itself):

============================= ==============================================================
status, metadata.uid, …       an API server's own bookkeeping
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
from itertools import combinations

from testbed.topology import names
from testbed.topology.containers import read_container
from testbed.topology.declared import ContainerDeclaration, PodDeclaration
from testbed.topology.quantity import bits_per_second
from testbed.topology.section import Section
from testbed.topology.source import Place, Problems, quote

__all__ = ["BANDWIDTH", "METADATA_IGNORED", "read_pod"]

BANDWIDTH = ("kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth")
METADATA_IGNORED = {
    *("creationTimestamp", "finalizers", "generation", "managedFields", "ownerReferences"),
    *("resourceVersion", "selfLink", "uid"),
}
_HONOURED = (
    *("containers", "hostNetwork", "hostname", "nodeName", "nodeSelector", "restartPolicy"),
    "shareProcessNamespace",
)
_IGNORED = {
    *("automountServiceAccountToken", "dnsPolicy", "enableServiceLinks", "imagePullSecrets"),
    *("preemptionPolicy", "priority", "priorityClassName", "schedulerName", "serviceAccount"),
    *("serviceAccountName", "terminationGracePeriodSeconds", "tolerations"),
}
_USE_SELECTOR = "use nodeName, or nodeSelector with labels of the nodes"
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
    "readinessGates": "a pod is ready when its containers run",
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
    metadata, spec = document.section("metadata"), document.section("spec")
    for key in ("metadata", "spec"):
        if document.get(key) is None:
            document.problem(key, "missing; a pod has metadata (its name) and spec (containers)")
    name, namespace = _identity(metadata) if metadata else (None, "default")
    if spec is None or metadata is None:
        return None
    spec.only(_HONOURED, _REFUSED, ignored=_IGNORED)
    host_network = spec.flag("hostNetwork") or False
    containers = _containers(spec, host_network)
    annotations = _annotations(metadata, host_network)
    pod = PodDeclaration(
        place=metadata.place_of("name"),
        namespace=namespace,
        name=name or "",
        containers=containers,
        labels=names.labels(metadata, "labels"),
        annotations=annotations,
        hostname=spec.valid("hostname", names.dns_label) or default_hostname(name or ""),
        host_network=host_network,
        share_process_namespace=spec.flag("shareProcessNamespace") or False,
        restart_policy=spec.choice("restartPolicy", ("Always", "OnFailure", "Never"), "Always"),
        node=spec.text("nodeName") or None,
        node_place=spec.place_of("nodeName"),
        node_selector=names.labels(spec, "nodeSelector"),
    )
    _check_host_ports(pod, document.problems)
    return pod if name else None


def default_hostname(name: str) -> str:
    """A pod's hostname when it names none: its name, cut to 63 characters as kubelet cuts it."""
    return name[:63].rstrip("-.")


def _identity(metadata: Section) -> tuple[str | None, str]:
    metadata.only(
        ("name", "namespace", "labels", "annotations"),
        {"generateName": "names are chosen in the file; write name"},
        ignored=METADATA_IGNORED,
    )
    if metadata.get("name") is None and "generateName" not in metadata.values:
        metadata.problem("name", "missing; every pod has a name, as in `name: web`")
    name = metadata.valid("name", names.dns_subdomain)
    return name, metadata.valid("namespace", names.dns_label) or "default"


def _annotations(metadata: Section, host_network: bool) -> Mapping[str, str]:
    annotations = metadata.texts_by_key("annotations")
    section = metadata.section("annotations") if annotations else None
    if section is None:
        return annotations
    for key, value in annotations.items():
        # Unlike labels, annotation values are free text, and keys may have upper-case prefixes.
        if error := names.label_key(key.lower()):
            section.problem(key, error)
        if key in BANDWIDTH:
            _check_bandwidth(section, key, value, host_network)
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
