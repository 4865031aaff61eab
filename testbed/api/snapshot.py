"""What runs where in a testbed, read at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed import existing
from testbed.node import inventory
from testbed.verify.observed import Observed

if TYPE_CHECKING:
    import docker

__all__ = ["Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Nodes, routers and pods with their addresses."""

    containers: Mapping[str, str]
    """Node or router → Docker container; only of those that run."""
    observed: Observed

    @classmethod
    def read(cls, client: docker.DockerClient, name: str) -> Snapshot:
        """Ask the engine, and the agents of all nodes."""
        listings = inventory.containers(client, name)
        states = existing.states_of(client, listings)
        running = {node: each for node, each in listings.items() if each["State"] == "running"}
        addresses = {node: inventory.address(listing) for node, listing in running.items()}
        containers = {node: each["Names"][0].lstrip("/") for node, each in running.items()}
        return cls(containers, Observed.of(addresses, states))
