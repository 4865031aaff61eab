"""Reading what a running testbed's nodes keep of Services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from testbed.node import services as delivery
from testbed.node.inventory import Listing, role
from testbed.node.services import Kept
from testbed.services import state
from testbed.topology.model import Cluster

if TYPE_CHECKING:
    import docker

__all__ = ["kept_as_told", "kept_by", "with_services"]


def kept_by(client: docker.DockerClient, listings: Mapping[str, Listing]) -> Kept:
    """The Services of the node that was told last: others may not have run then."""
    return delivery.latest(client, [each for each in listings.values() if role(each) == "node"])


def kept_as_told(
    client: docker.DockerClient,
    listings: Mapping[str, Listing],
    states: Mapping[str, Mapping[str, Any]],
) -> Kept:
    """The same where the agents' states are known, unless a node does not run."""
    nodes = {name: each for name, each in listings.items() if role(each) == "node"}
    if any(each["State"] != "running" for each in nodes.values()):
        return kept_by(client, listings)
    told = [(states[name].get("services"), each) for name, each in nodes.items()]
    found = delivery.newest([(state, each) for state, each in told if state])
    return delivery.kept_on(client, found[1], found[0]) if found else Kept()


def with_services(
    client: docker.DockerClient, cluster: Cluster, listings: Mapping[str, Listing]
) -> Cluster:
    """``cluster`` with the Services that its nodes keep."""
    return state.held(cluster, kept_by(client, listings).inputs)
