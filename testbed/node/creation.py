"""Making a node's container: everything about it that only a new container can change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from testbed.dataplane.features import Features
from testbed.dataplane.spec import NodeSpec
from testbed.errors import NodeError
from testbed.node import archive, labels
from testbed.node.privileges import for_features

if TYPE_CHECKING:
    import docker

__all__ = ["SPEC", "Listing", "Setting", "create", "host_config"]

Listing = Mapping[str, Any]
"""One container as the engine lists it."""
SPEC = "/etc/testbed/spec.json"
_SEVERAL_NETWORKS_API = "1.44"
"""Docker 25.0: the first in which a container can be created with more than one network."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What only a new container can change: of another setting, it is replaced."""

    image: str
    able: Features
    uplinks: tuple[tuple[str, IPv4Address], ...]
    """The engine's own name of each network, and the address there; a router has several."""
    attachment: str
    """:attr:`~testbed.dataplane.spec.NodeSpec.attachment`: bridge and pods do not follow it."""
    role: str = "node"
    """Or ``router``, or ``client``."""

    @property
    def digest(self) -> str:
        """What the container's ``testbed.config`` label says."""
        settings = for_features(self.able)
        ways = " ".join(f"{network} {address}" for network, address in self.uplinks)
        text = f"{self.image} {settings} {ways} {self.attachment} {self.role}"
        return sha256(text.encode()).hexdigest()[:16]

    def made(self, listing: Listing) -> bool:
        """Whether the container has this setting, and was attached to all of its networks."""
        attached = (listing.get("NetworkSettings") or {}).get("Networks") or {}
        return listing["Labels"].get(labels.CONFIG) == self.digest and len(attached) == len(
            self.uplinks
        )


def create(
    client: docker.DockerClient, container: str, spec: NodeSpec, setting: Setting, text: str
) -> None:
    """Create the container with its spec, ``text``, and attach it to its networks.

    Raises:
        NodeError: the engine refuses, for example because the name is taken.
    """
    from docker.errors import APIError
    from docker.utils import version_gte

    api, aliases = client.api, [spec.node]
    endpoints = {
        network: api.create_endpoint_config(ipv4_address=str(address), aliases=aliases)
        for network, address in setting.uplinks
    }
    first = setting.uplinks[0][0]
    several = version_gte(api.api_version, _SEVERAL_NETWORKS_API)
    at_once = endpoints if several else {first: endpoints[first]}
    try:
        api.create_container(
            setting.image,
            [text] if archive.fits(text) else [],
            name=container,
            hostname=spec.node,
            labels=_labels(spec, setting),
            host_config=host_config(client, setting.able, first),
            networking_config={"EndpointsConfig": at_once},
        )
        for network, address in setting.uplinks[len(at_once) :]:
            api.connect_container_to_network(container, network, str(address), aliases=aliases)
    except APIError as error:
        if error.status_code != 409:
            raise NodeError(f"container {container}: {error.explanation}") from error
        raise NodeError(
            f"a container called {container!r} exists and does not belong to testbed "
            f"{spec.testbed!r}. Remove or rename it, or choose another name (--name)."
        ) from error
    if not archive.fits(text):
        archive.write(client, container, {SPEC: text.encode()})


def _labels(spec: NodeSpec, setting: Setting) -> dict[str, str]:
    return {
        labels.NAME: spec.testbed,
        labels.NODE: spec.node,
        labels.ROLE: setting.role,
        labels.CONFIG: setting.digest,
    }


def host_config(client: docker.DockerClient, able: Features, network: str) -> dict[str, Any]:
    """The engine's HostConfig of a node container."""
    return {**client.api.create_host_config(network_mode=network), **for_features(able)}
