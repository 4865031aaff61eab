"""The nodes' networks: Docker bridges on which the host has no address, so that nothing leaves.

``inhibit_ipv4`` keeps the gateway's address off the bridge while nodes still get their default
route; without masquerading by the engine, pod addresses pass as they are. ``internal: true`` would
not do: its isolation rules drop bridged frames whose source is a pod's address.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from testbed.dataplane.underlay import Segment
from testbed.errors import NodeError
from testbed.node import labels
from testbed.topology.model import Network

if TYPE_CHECKING:
    import docker

__all__ = [
    "OPTIONS",
    "create",
    "find",
    "free_subnets",
    "network_names",
    "options",
    "remove",
]

OPTIONS = {
    "com.docker.network.bridge.inhibit_ipv4": "true",
    "com.docker.network.bridge.enable_ip_masquerade": "false",
}
"""The bridge driver's options that make an underlay, on every engine."""
_UNFILTERED = {"com.docker.network.bridge.gateway_mode_ipv4": "nat-unprotected"}
_FILTERING_API = "1.48"
"""Docker 28.0."""
_DEFAULT = "default"
"""The network of a topology that names none, as Compose calls it."""
_POOLS = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(18, 32)),
    *IPv4Network("192.168.0.0/16").subnets(new_prefix=20),
)
"""Docker's own default pools, in its order."""
_MTU_OPTION = "com.docker.network.driver.mtu"


def network_names(name: str, networks: Sequence[Network]) -> dict[str, str]:
    """Network of the topology → Docker network of testbed ``name``."""
    if [each.name for each in networks] == [_DEFAULT]:
        return {_DEFAULT: f"testbed-{name}"}
    return {each.name: f"testbed-{name}-{each.name}" for each in networks}


def options(api_version: str) -> dict[str, str]:
    """The bridge driver's options on an engine that speaks ``api_version``.

    Since Docker 28 a rule in the raw table drops every packet to a container's address that comes
    in by another bridge (``-d ADDRESS ! -i BRIDGE``). With br_netfilter on the host it meets the
    frames that a node sends to its router for a node of another network. ``nat-unprotected`` leaves
    the rule out; it opens nothing, since the host has no route into a network where it has no
    address.
    """
    from docker.utils import version_gte

    return {**OPTIONS, **(_UNFILTERED if version_gte(api_version, _FILTERING_API) else {})}


def find(client: docker.DockerClient, name: str, *, tidy: bool = False) -> dict[str, Segment]:
    """The networks of testbed ``name`` that exist, by their names in the topology.

    Engines let two commands that cannot see each other's lock make two networks of one name. The
    older one is the testbed's; with ``tidy`` others are removed, unless a container is attached.
    """
    from docker.errors import APIError

    networks = client.api.networks(filters=labels.selecting(name))
    found: dict[str, Segment] = {}
    for network in sorted(networks, key=lambda each: (each["Created"], each["Id"])):
        # those of older versions of testbed have no label
        label = network["Labels"].get(labels.NETWORK, _DEFAULT)
        if label not in found:
            found[label] = _segment(network)
        elif tidy:
            with suppress(APIError):
                client.api.remove_network(network["Id"])
    return found


def create(
    client: docker.DockerClient,
    name: str,
    network: Network,
    called: str,
    avoid: Iterable[IPv4Network],
) -> Segment:
    """Make the Docker network ``called`` of testbed ``name`` for one network of the topology.

    It has the subnet that the topology wants, else the first free pool that overlaps nothing in
    ``avoid``: the pods' and the services' addresses, and what other networks want.

    Raises:
        NodeError: the engine refuses the subnet, or every pool is taken.
    """
    from docker.errors import APIError

    problem = ""
    wanted = network.subnet
    for subnet in [wanted] if wanted else free_subnets([*avoid, *_taken(client)]):
        try:
            return Segment(subnet, identity=_make(client, name, network.name, called, subnet))
        except APIError as error:
            problem = str(error.explanation or error)
            if "already exists" in problem:
                raise NodeError(
                    f"a network called {called!r} exists and does not belong to "
                    f"testbed {name!r}. Remove it, or choose another name (--name)."
                ) from error
            if "overlap" not in problem.lower():
                break
    raise NodeError(
        f"the node network {called!r} could not be made: "
        f"{problem or 'every subnet of the default pools is in use'}.\n"
        f"`docker network ls` shows what holds the addresses; networks.{network.name}.ipam in the "
        "topology chooses others."
    )


def _make(
    client: docker.DockerClient, name: str, label: str, called: str, subnet: IPv4Network
) -> str:
    """Ask the engine for a network; return the engine's own name for it."""
    from docker.types import IPAMConfig, IPAMPool

    pool = IPAMPool(subnet=str(subnet), gateway=str(Segment(subnet).gateway))
    made = client.api.create_network(
        called,
        driver="bridge",
        options=options(client.api.api_version),
        ipam=IPAMConfig(pool_configs=[pool]),
        check_duplicate=True,
        labels={labels.NAME: name, labels.NETWORK: label},
    )
    return str(made["Id"])


def remove(client: docker.DockerClient, name: str) -> int:
    """Remove the networks of testbed ``name``, found by label; return how many there were."""
    from docker.errors import NotFound

    networks = client.api.networks(filters=labels.selecting(name))
    for network in networks:
        try:
            client.api.remove_network(network["Id"])
        except NotFound:
            continue
    return len(networks)


def free_subnets(taken: Iterable[IPv4Network]) -> Iterator[IPv4Network]:
    """The pools that overlap nothing in ``taken``."""
    networks = list(taken)
    return (pool for pool in _POOLS if not any(pool.overlaps(other) for other in networks))


def _taken(client: docker.DockerClient) -> Iterator[IPv4Network]:
    for network in client.api.networks():
        for pool in (network.get("IPAM") or {}).get("Config") or []:
            subnet = pool.get("Subnet", "")
            if "." in subnet:
                yield IPv4Network(subnet)


def _segment(network: Mapping[str, Any]) -> Segment:
    subnet = IPv4Network(network["IPAM"]["Config"][0]["Subnet"])
    mtu = int((network.get("Options") or {}).get(_MTU_OPTION, 1500))
    return Segment(subnet, mtu=mtu, identity=network["Id"])
