"""Removing what manifests name from a cluster that runs: ``kubectl delete``. Pure.

Only kind, namespace and name of a document count, so a file that has changed since, or would not
be accepted today, still removes what it made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from testbed.topology.manifests import NAMESPACES, objects
from testbed.topology.model import Cluster
from testbed.topology.scheduling import listed
from testbed.topology.section import Section
from testbed.topology.source import Place, Problems, Value, quote

__all__ = ["deleted"]


def deleted(
    cluster: Cluster, documents: Iterable[tuple[str, Value]], *, missing_ok: bool = False
) -> Cluster:
    """The cluster after ``kubectl delete`` of the documents.

    A Deployment takes its pods with it, and a namespace all that is in it.

    Raises:
        TopologyError: something is not there (unless ``missing_ok``), or must stay.
    """
    problems = Problems()
    named = _named(cluster, documents, missing_ok, problems)
    problems.check()

    def stays(kind: str, namespace: str, name: str) -> bool:
        return (kind, f"{namespace}/{name}") not in named and ("Namespace", namespace) not in named

    pods = (each for each in cluster.pods if stays("Pod", each.namespace, each.name))
    return replace(
        cluster,
        pods=tuple(each for each in pods if stays("Deployment", each.namespace, each.owner)),
        services=tuple(
            each for each in cluster.services if stays("Service", each.namespace, each.name)
        ),
        slices=tuple(
            each for each in cluster.slices if stays("EndpointSlice", each.namespace, each.name)
        ),
    )


def _named(
    cluster: Cluster,
    documents: Iterable[tuple[str, Value]],
    missing_ok: bool,
    problems: Problems,
) -> frozenset[tuple[str, str]]:
    """What the documents name, as kind and ``namespace/name``; of namespaces only the name."""
    there = _there(cluster)
    places: dict[tuple[str, str], Place] = {}
    for section in objects(documents, problems):
        identity = _identity(section)
        if identity is not None:
            kind, key = identity
            metadata = section.section("metadata") or section
            places[identity] = metadata.place_of("name")
            if key not in there.get(kind, {key}) and not missing_ok:
                problems.add(places[identity], _missing(kind, key, there[kind]))
    for pod in cluster.pods:
        owner = ("Deployment", f"{pod.namespace}/{pod.owner}")
        alone = places.keys().isdisjoint((owner, ("Namespace", pod.namespace)))
        if pod.owner and ("Pod", pod.key) in places and alone:
            problems.add(
                places["Pod", pod.key],
                f"pod {pod.key} is one of Deployment {owner[1]}, which would make another; "
                "apply the Deployment with fewer replicas, or delete it",
            )
    return frozenset(places)


def _there(cluster: Cluster) -> Mapping[str, frozenset[str]]:
    """Kind → names; namespaces are not known, as those without anything in them are not kept."""
    owned = (pod for pod in cluster.pods if pod.owner)
    return {
        "Pod": frozenset(pod.key for pod in cluster.pods),
        "Deployment": frozenset(f"{pod.namespace}/{pod.owner}" for pod in owned),
        "Service": frozenset(service.key for service in cluster.services),
        "EndpointSlice": frozenset(piece.key for piece in cluster.slices),
    }


def _identity(document: Section) -> tuple[str, str] | None:
    """Kind and key of a document that has both."""
    kind = document.text("kind") or ""
    metadata = document.section("metadata")
    if document.get("metadata") is None:
        document.problem("metadata", "missing; it has the name of what is to be deleted")
    if metadata is None:
        return None
    name = metadata.text("name")
    namespace = metadata.text("namespace") or "default"
    if metadata.get("name") is None or name == "":
        metadata.problem("name", "missing; write the name of what is to be deleted")
    if not name:
        return None
    if kind != "Namespace":
        return kind, f"{namespace}/{name}"
    if name in NAMESPACES:
        metadata.problem(
            "name", f"namespace {name} is one of every cluster, so it stays; remove it"
        )
        return None
    return kind, name


def _missing(kind: str, key: str, known: Collection[str]) -> str:
    what = f"there are {listed(sorted(known))}" if known else f"there is no {kind} at all"
    return f"{kind} {quote(key)} is not there: {what}; correct the name, or use --ignore-not-found"
