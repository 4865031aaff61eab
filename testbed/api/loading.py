"""Loading a topology by the name of one of testbed's own, or by its path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from testbed.errors import UsageError
from testbed.plan import cnis, proxies
from testbed.topology.load import Objects, Overrides, find, load, objects
from testbed.topology.model import Cluster
from testbed.topology.source import Place, located

__all__ = ["loaded", "objects_of"]

_NUMBERS = ("nodes", "pods_per_node")
"""Overrides that are numbers; the others are words."""
_WORDS = {int: "a number", str: "a word"}


def loaded(topology: str | Path, **overrides: Any) -> Cluster:
    """Load a topology: the name of one of testbed's own, or a path.

    Raises:
        UsageError: there is none, or it is wrong, or an override has a name that there is not.
    """
    known = [field.name for field in fields(Overrides)]
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise UsageError(f"{', '.join(unknown)}: there is {', '.join(known)} to override")
    if not isinstance(topology, str | Path):
        raise UsageError(f"{topology!r} is neither the name of a topology nor the path of one")
    for name, value in overrides.items():
        wanted = int if name in _NUMBERS else str
        if value is not None and type(value) is not wanted:
            raise UsageError(f"{name}={value!r}: use {_WORDS[wanted]}")
    path = topology if isinstance(topology, Path) else find(topology)
    return load(path, Overrides(**overrides), cnis=cnis(), proxies=proxies())


def objects_of(manifests: Iterable[str | Path | Mapping[str, Any]]) -> Objects:
    """Kubernetes objects from files and from Python data.

    Raises:
        TopologyError: a file cannot be read, or is not YAML.
    """
    found: Objects = []
    for each in manifests:
        if isinstance(each, Mapping):
            kind, metadata = each.get("kind", "object"), each.get("metadata") or {}
            found.append(("", located(each, Place(f"{kind} {metadata.get('name', '')}".strip()))))
        else:
            found += objects([str(each)])
    return found
