"""Reading what a running testbed's nodes keep of Services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from testbed.node import services as delivery
from testbed.node.inventory import Listing, role
from testbed.node.services import Kept
from testbed.services import state
from testbed.topology.model import Cluster

if TYPE_CHECKING:
    import docker

__all__ = ["kept_by", "with_services"]


def kept_by(client: docker.DockerClient, listings: Mapping[str, Listing]) -> Kept:
    """The Services of the node that was told last: others may not have run then."""
    return delivery.latest(client, [each for each in listings.values() if role(each) == "node"])


def with_services(
    client: docker.DockerClient, cluster: Cluster, listings: Mapping[str, Listing]
) -> Cluster:
    """``cluster`` with the Services that its nodes keep."""
    return state.held(cluster, kept_by(client, listings).inputs)
