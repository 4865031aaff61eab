"""Manifests as text, and clusters made with them."""

from __future__ import annotations

from typing import Any

from testbed.topology.load import Objects, from_dict
from testbed.topology.manifests import Manifests, read_manifests
from testbed.topology.model import Cluster
from testbed.topology.source import Problems, documents
from tests.unit.topology.strategies import CNIS

__all__ = ["made", "objects", "read", "service"]


def objects(text: str) -> Objects:
    """The documents of a manifest file."""
    problems = Problems()
    values = documents(text, "f.yaml", problems) or []
    problems.check()
    return [("", value) for value in values]


def read(text: str) -> Manifests:
    """What a manifest file without problems declares."""
    problems = Problems()
    found = read_manifests(objects(text), problems)
    problems.check()
    return found


def service(
    name: str = "web", spec: str = "ports: [{port: 80}]", namespace: str = "default"
) -> str:
    """A Service's document; ``spec`` is the inside of a flow mapping."""
    metadata = f"{{name: {name}, namespace: {namespace}}}"
    return f"---\napiVersion: v1\nkind: Service\nmetadata: {metadata}\nspec: {{{spec}}}\n"


def made(*manifests: dict[str, Any], nodes: int = 2, **x_testbed: Any) -> Cluster:
    """A cluster of nodes with no pods but the manifests'."""
    return from_dict(
        {
            "services": {f"node{n}": {"image": "testbed-node"} for n in range(1, nodes + 1)},
            "x-testbed": {
                "name": "lab",
                "cni": "flannel",
                "default_pods": 0,
                **x_testbed,
                "manifests": list(manifests),
            },
        },
        cnis=CNIS,
    )
