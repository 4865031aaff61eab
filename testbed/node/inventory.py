"""What testbeds the engine holds, found by label alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from testbed.node import labels, underlay
from testbed.node.container import SPEC, Listing, read_file
from testbed.node.parallel import each

if TYPE_CHECKING:
    import docker

__all__ = [
    "Listing",
    "address",
    "addresses",
    "containers",
    "names",
    "read_cluster",
    "remove_all",
    "remove_containers",
    "role",
]


def containers(client: docker.DockerClient, name: str) -> dict[str, Listing]:
    """Node, router or client → container of testbed ``name``, stopped ones included."""
    found = client.api.containers(all=True, filters=labels.selecting(name))
    return {item["Labels"][labels.NODE]: item for item in found if labels.NODE in item["Labels"]}


def names(client: docker.DockerClient) -> dict[str, list[Listing]]:
    """Every testbed's name → its containers; a testbed may hold nothing but its network."""
    found: dict[str, list[Listing]] = {
        network["Labels"][labels.NAME]: []
        for network in client.api.networks(filters=labels.selecting())
    }
    for container in client.api.containers(all=True, filters=labels.selecting()):
        found.setdefault(container["Labels"][labels.NAME], []).append(container)
    return dict(sorted(found.items()))


def role(listing: Listing) -> str:
    """``node``, ``router`` or ``client``; those of older versions of testbed have no label."""
    return str(listing["Labels"].get(labels.ROLE, "node"))


def addresses(listing: Listing) -> dict[str, str]:
    """The engine's own name of each network → the container's address there, while it runs."""
    endpoints = (listing.get("NetworkSettings") or {}).get("Networks") or {}
    return {
        str(each["NetworkID"]): str(each["IPAddress"])
        for each in endpoints.values()
        if each["IPAddress"]
    }


def address(listing: Listing) -> str:
    """A node's underlay address; empty while the container does not run."""
    return next(iter(addresses(listing).values()), "")


def read_cluster(client: docker.DockerClient, listing: Listing) -> dict[str, Any]:
    """The topology that a node's spec carries.

    Raises:
        FileNotFoundError: the node never got a spec.
    """
    spec = json.loads(read_file(client, listing, SPEC))
    return dict(spec["cluster"])


def remove_containers(client: docker.DockerClient, listings: list[Listing]) -> None:
    """Remove these containers with their anonymous volumes; a missing one is no error."""
    from docker.errors import APIError, NotFound

    def remove(listing: Listing) -> None:
        try:
            client.api.remove_container(listing["Id"], force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if "already in progress" not in str(error.explanation):
                raise

    each(remove, listings)


def remove_all(client: docker.DockerClient, name: str) -> list[Listing]:
    """Remove every container and network of testbed ``name``; return the containers by name."""
    found = client.api.containers(all=True, filters=labels.selecting(name))
    remove_containers(client, found)
    underlay.remove(client, name)
    return sorted(found, key=lambda item: str(item["Names"]))
