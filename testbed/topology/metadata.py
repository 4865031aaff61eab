"""An object's ``metadata``: what every kind has, and what an API server adds by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from testbed.topology import names
from testbed.topology.section import Section

__all__ = ["METADATA_IGNORED", "read_annotations", "read_identity", "read_parts"]

METADATA_IGNORED = {
    *("creationTimestamp", "finalizers", "generation", "managedFields", "ownerReferences"),
    *("resourceVersion", "selfLink", "uid"),
}


def read_parts(document: Section, what: str) -> tuple[Section, Section] | None:
    """The ``metadata`` and ``spec`` of an object, or None where one is missing or no mapping."""
    metadata, spec = document.section("metadata"), document.section("spec")
    for key in ("metadata", "spec"):
        if document.get(key) is None:
            document.problem(key, f"missing; {what}")
    return (metadata, spec) if metadata and spec else None


def read_identity(
    metadata: Section, what: str, check: Callable[[str], str | None], example: str
) -> tuple[str | None, str]:
    """An object's name, None where it is wrong, and its namespace."""
    chosen = {"generateName"} if metadata.get("name") is not None else set()
    metadata.only(
        ("name", "namespace", "labels", "annotations"),
        {"generateName": "names are chosen in the file; write name"},
        ignored=METADATA_IGNORED | chosen,
    )
    if metadata.get("name") is None and "generateName" not in metadata.values:
        metadata.problem("name", f"missing; every {what} has a name, as in `name: {example}`")
    name = metadata.valid("name", check)
    return name, metadata.valid("namespace", names.dns_label) or "default"


def read_annotations(metadata: Section) -> Mapping[str, str]:
    """The annotations; wrong keys are reported."""
    annotations = metadata.texts_by_key("annotations")
    section = metadata.section("annotations") if annotations else None
    for key in annotations if section else ():
        # Unlike labels, annotation values are free text, and keys may have upper-case prefixes.
        if section and (error := names.label_key(key.lower())):
            section.problem(key, error)
    return annotations
