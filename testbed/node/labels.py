"""The labels by which everything that testbed made is found again: there is no other state."""

from __future__ import annotations

from typing import Any

__all__ = ["CONFIG", "NAME", "NETWORK", "NODE", "ROLE", "selecting"]

NAME = "testbed.name"
"""On containers and networks: the testbed they belong to."""
NODE = "testbed.node"
"""On containers: the node's or the router's name in the topology."""
ROLE = "testbed.role"
"""On containers: ``node``, ``router`` or ``client``."""
NETWORK = "testbed.network"
"""On networks: the network's name in the topology."""
CONFIG = "testbed.config"
"""On containers: hash of what only a new container can change (image, addresses, privileges)."""


def selecting(name: str | None = None) -> dict[str, Any]:
    """The engine's filter for one testbed's objects, or for those of every testbed."""
    return {"label": [NAME if name is None else f"{NAME}={name}"]}
