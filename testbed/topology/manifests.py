"""Kubernetes manifests: pods, Deployments, Services, EndpointSlices and their namespaces.

Several documents in a file, and ``kind: List``, are read as kubectl reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from testbed.topology import names
from testbed.topology.declared import (
    DeploymentDeclaration,
    PodDeclaration,
    ServiceDeclaration,
    SliceDeclaration,
)
from testbed.topology.deployments import read_deployment
from testbed.topology.metadata import METADATA_IGNORED
from testbed.topology.pods import read_pod
from testbed.topology.section import Section, alternatives, mapping
from testbed.topology.services import read_service
from testbed.topology.slices import read_slice
from testbed.topology.source import Place, Problems, Value, quote

__all__ = ["API_VERSIONS", "NAMESPACES", "Manifests", "objects", "read_manifests"]

NAMESPACES = frozenset({"default", "kube-node-lease", "kube-public", "kube-system"})
"""The namespaces of every new cluster."""

API_VERSIONS = {
    "Pod": "v1",
    "Deployment": "apps/v1",
    "Service": "v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "Namespace": "v1",
    "List": "v1",
}
"""The kinds that are read here."""

_KINDS = tuple(API_VERSIONS)
_LATER = {"Ingress", "NetworkPolicy"}
_WORKLOADS = {"CronJob", "DaemonSet", "Job", "ReplicaSet", "StatefulSet"}


@dataclass(frozen=True, slots=True)
class Manifests:
    """What a set of manifests declares, in file order."""

    pods: tuple[PodDeclaration, ...] = ()
    """With those of the Deployments."""
    namespaces: frozenset[str] = NAMESPACES
    services: tuple[ServiceDeclaration, ...] = ()
    slices: tuple[SliceDeclaration, ...] = ()
    deployments: tuple[DeploymentDeclaration, ...] = ()


def read_manifests(
    documents: Iterable[tuple[str, Value]],
    problems: Problems,
    namespaces: frozenset[str] = NAMESPACES,
) -> Manifests:
    """Read manifests, each with the path of the value that holds it ("" for a file's document).

    Namespaces may be declared after what lives in them; ``namespaces`` exist already.
    """
    pods: list[PodDeclaration] = []
    services: list[ServiceDeclaration] = []
    slices: list[SliceDeclaration] = []
    deployments: list[DeploymentDeclaration] = []
    found = set(namespaces)
    for section in objects(documents, problems):
        match section.text("kind"):
            case "Pod" if pod := read_pod(section):
                pods.append(pod)
            case "Deployment" if deployment := read_deployment(section):
                deployments.append(deployment)
                # Names twice are one problem, not one for each of their pods.
                if [each.key for each in deployments].count(deployment.key) == 1:
                    pods += deployment.pods
            case "Service" if service := read_service(section):
                services.append(service)
            case "EndpointSlice" if piece := read_slice(section):
                slices.append(piece)
            case "Namespace" if name := _namespace(section):
                found.add(name)
    read = Manifests(
        *(tuple(pods), frozenset(found), tuple(services), tuple(slices), tuple(deployments))
    )
    _check(read, problems)
    return read


def _check(read: Manifests, problems: Problems) -> None:
    """Namespaces exist, and names are unique in them (pods: see :mod:`.resolve`)."""
    first: dict[tuple[str, str, str], Place] = {}
    for kind, namespace, name, place in _named(read):
        if namespace not in read.namespaces:
            problems.add(
                place,
                f"{kind} {quote(name)} is in namespace {quote(namespace)}, which does not "
                "exist; declare it with a manifest of kind Namespace, as in a real cluster",
            )
        other = first.setdefault((kind, namespace, name), place)
        if kind != "pod" and other is not place:
            problems.add(
                place,
                f"{kind} {namespace}/{name} exists twice: also at {other.file}:{other.line}; "
                "names are unique in a namespace: rename one",
            )


def _named(read: Manifests) -> Iterator[tuple[str, str, str, Place]]:
    """Kind, namespace, name and place of every object; Deployments stand for their pods."""
    for pod in read.pods:
        if not pod.owner:
            yield "pod", pod.namespace, pod.name, pod.place
    for deployment in read.deployments:
        yield "Deployment", deployment.namespace, deployment.name, deployment.place
    for service in read.services:
        yield "Service", service.service.namespace, service.service.name, service.place
    for piece in read.slices:
        yield "EndpointSlice", piece.slice.namespace, piece.slice.name, piece.place


def objects(documents: Iterable[tuple[str, Value]], problems: Problems) -> Iterator[Section]:
    """The objects of all documents, of a known kind and version; lists are opened."""
    for where, document in documents:
        section = mapping(document, where, problems)
        if section is None or not _known_kind(section, _KINDS):
            continue
        if section.text("kind") != "List":
            yield section
            continue
        section.only(("apiVersion", "kind", "items"), ignored={"metadata"})
        for item in section.sections("items"):
            if _known_kind(item, _KINDS[:-1]):
                yield item


def _known_kind(section: Section, kinds: Sequence[str]) -> bool:
    kind = section.text("kind")
    if section.get("kind") is None:
        section.problem("kind", f"missing; write one of {', '.join(kinds)}")
    if kind is None:
        return False
    if kind not in kinds:
        hint = alternatives(kind, kinds, "supported here")
        if kind in _LATER:
            hint = f"; it comes in a later release, this one reads {', '.join(kinds)}"
        elif kind in _WORKLOADS:
            hint = "; write a Deployment, or each pod as kind Pod"
        section.problem("kind", f"{quote(kind)} is not supported{hint}")
        return False
    version = API_VERSIONS[kind]
    if section.text("apiVersion") != version:
        section.problem("apiVersion", f"must be {quote(version)} for kind {kind}")
    return True


def _namespace(section: Section) -> str | None:
    section.only(("apiVersion", "kind", "metadata"), ignored={"spec", "status"})
    metadata = section.section("metadata")
    if section.get("metadata") is None:
        section.problem("metadata", "missing; a namespace has metadata.name")
    if metadata is None:
        return None
    metadata.only(("name", "labels", "annotations"), ignored=METADATA_IGNORED)
    names.labels(metadata, "labels")
    if metadata.get("name") is None:
        metadata.problem("name", "missing; every namespace has a name")
    return metadata.valid("name", names.dns_label)
