"""Kubernetes manifests: pods and the namespaces they live in.

Several documents in a file, and ``kind: List``, are read as kubectl reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from testbed.topology import names
from testbed.topology.declared import PodDeclaration
from testbed.topology.pods import METADATA_IGNORED, read_pod
from testbed.topology.section import Section, alternatives, mapping
from testbed.topology.source import Problems, Value, quote

__all__ = ["NAMESPACES", "Manifests", "read_manifests"]

NAMESPACES = frozenset({"default", "kube-node-lease", "kube-public", "kube-system"})
"""The namespaces of every new cluster."""

_KINDS = ("Pod", "Namespace", "List")
_LATER = {"Ingress", "NetworkPolicy", "Service"}
_WORKLOADS = {"CronJob", "DaemonSet", "Deployment", "Job", "ReplicaSet", "StatefulSet"}


@dataclass(frozen=True, slots=True)
class Manifests:
    """What a set of manifests declares, in file order."""

    pods: tuple[PodDeclaration, ...] = ()
    namespaces: frozenset[str] = NAMESPACES


def read_manifests(documents: Iterable[tuple[str, Value]], problems: Problems) -> Manifests:
    """Read manifests, each with the path of the value that holds it ("" for a file's document).

    Namespaces may be declared after the pods that live in them.
    """
    pods: list[PodDeclaration] = []
    namespaces = set(NAMESPACES)
    for where, document in documents:
        for section in _objects(where, document, problems):
            if section.text("kind") == "Pod":
                pod = read_pod(section)
                pods += [pod] if pod else []
            else:
                name = _namespace(section)
                namespaces |= {name} if name else set()
    for pod in pods:
        if pod.namespace not in namespaces:
            problems.add(
                pod.place,
                f"pod {quote(pod.name)} is in namespace {quote(pod.namespace)}, which does not "
                "exist; declare it with a manifest of kind Namespace, as in a real cluster",
            )
    return Manifests(tuple(pods), frozenset(namespaces))


def _objects(where: str, document: Value, problems: Problems) -> Iterator[Section]:
    """The pods and namespaces of a document; a list is opened."""
    section = mapping(document, where, problems)
    if section is None or not _known_kind(section, _KINDS):
        return
    if section.text("kind") != "List":
        yield section
        return
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
            hint = "; there are no controllers here: write each pod as kind Pod"
        section.problem("kind", f"{quote(kind)} is not supported{hint}")
        return False
    if section.text("apiVersion") != "v1":
        section.problem("apiVersion", f'must be "v1" for kind {kind}')
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
