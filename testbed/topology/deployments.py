"""A ``kind: Deployment`` manifest, as the pods that it wants.

There is no controller: what the Deployment and ReplicaSet controllers would make of it is made
here, with names of their form (``web-7c5ddbdf54-x8k2p``), but always the same ones. The first part
is a hash of the template, the second one of the pod's number, so more or fewer replicas leave the
other pods alone, and another template replaces all of them, at once: ``strategy`` and the other
fields of a rollout are ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from testbed.topology import names
from testbed.topology.declared import DeploymentDeclaration, PodDeclaration
from testbed.topology.metadata import (
    METADATA_IGNORED,
    read_annotations,
    read_identity,
    read_parts,
)
from testbed.topology.pods import default_hostname, read_template
from testbed.topology.section import Section

__all__ = ["HASH_LABEL", "read_deployment"]

HASH_LABEL = "pod-template-hash"
_MOST_REPLICAS = 500
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Of Kubernetes' generated names: neither vowels nor digits that look like them."""
_LONGEST_PREFIX = 58
"""What the API server keeps of a name before its own five characters."""
_IGNORED = {"minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit", "strategy"}


def read_deployment(document: Section) -> DeploymentDeclaration | None:
    """Read a Deployment; None when it has no usable name or template to go on with."""
    document.only(("apiVersion", "kind", "metadata", "spec"), ignored={"status"})
    parts = read_parts(document, "a Deployment has metadata (its name) and spec (its template)")
    if parts is None:
        return None
    metadata, spec = parts
    name, namespace = read_identity(metadata, "Deployment", names.dns_subdomain, "web")
    names.labels(metadata, "labels")
    read_annotations(metadata)
    spec.only(("replicas", "selector", "template", "paused"), ignored=_IGNORED)
    if spec.flag("paused"):
        spec.problem("paused", "not supported: there is no rollout to pause; remove it")
    replicas = 1 if spec.get("replicas") is None else spec.integer("replicas", 0, _MOST_REPLICAS)
    template = _template(spec, namespace, name or "")
    if template is None or name is None:
        return None
    place = metadata.place_of("name")
    pods = tuple(_pods(replace(template, place=place), name, replicas or 0))
    return DeploymentDeclaration(place, namespace, name, pods)


def _template(spec: Section, namespace: str, name: str) -> PodDeclaration | None:
    wanted = _match_labels(spec)
    section = spec.section("template")
    if spec.get("template") is None:
        spec.problem("template", "missing; a Deployment has the metadata and spec of its pods")
    if section is None:
        return None
    section.only(("metadata", "spec"))
    parts = read_parts(section, "a template has metadata (labels) and spec (containers)")
    if parts is None:
        return None
    metadata, pod_spec = parts
    named = {"name": "pods are named after the Deployment", "generateName": "see its name"}
    metadata.only(("labels", "annotations"), named, ignored=METADATA_IGNORED | {"namespace"})
    pod = read_template(metadata, pod_spec, namespace, name)
    missing = [f"{key}: {value}" for key, value in wanted.items() if pod.labels.get(key) != value]
    if missing:
        metadata.problem(
            "labels",
            f"must have what spec.selector.matchLabels selects; add {', '.join(missing)}",
        )
    if pod.restart_policy != "Always":
        pod_spec.problem("restartPolicy", "a Deployment restarts its pods; write Always")
    return pod


def _match_labels(spec: Section) -> dict[str, str]:
    selector = spec.section("selector")
    if spec.get("selector") is None:
        spec.problem("selector", "missing; write matchLabels with labels of the template")
    if selector is None:
        return {}
    selector.only(
        ("matchLabels",), {"matchExpressions": "write labels of the template under matchLabels"}
    )
    value = selector.get("matchLabels")
    if value is None or value.data == {}:
        selector.problem("matchLabels", "missing; write labels of the template")
    return dict(names.labels(selector, "matchLabels"))


def _pods(template: PodDeclaration, name: str, count: int) -> Iterator[PodDeclaration]:
    digest = _template_hash(template)
    prefix = f"{name}-{digest}-"[:_LONGEST_PREFIX]
    taken: set[str] = set()
    for number in range(count):
        attempt = 0
        while (suffix := _suffix(f"{prefix}{number}/{attempt}")) in taken:
            attempt += 1
        taken.add(suffix)
        yield replace(
            template,
            name=prefix + suffix,
            hostname=template.hostname or default_hostname(prefix + suffix),
            labels={**template.labels, HASH_LABEL: digest},
            owner=name,
        )


def _template_hash(template: PodDeclaration) -> str:
    """Ten characters, of the ten that Kubernetes' own hashes consist of.

    It hashes to 32 bits too, and encodes their decimal digits with its alphabet.
    """
    containers = [
        (
            *(each.name, each.image, each.argv, each.env, each.working_dir),
            *(declared.port for declared in each.ports),
        )
        for each in template.containers
    ]
    mappings = (template.labels, template.annotations, template.node_selector)
    text = repr(
        (
            containers,
            [sorted(mapping.items()) for mapping in mappings],
            *(template.hostname, template.host_network, template.share_process_namespace),
            *(template.node, template.gated),
        )
    )
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in f"{number:010}")


def _suffix(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:5])
