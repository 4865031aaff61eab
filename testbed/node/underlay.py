"""The nodes' network: a Docker bridge on which the host has no address, so that nothing leaves it.

``inhibit_ipv4`` keeps the gateway's address off the bridge while nodes still get their default
route; without masquerading by the engine, pod addresses pass as they are. ``internal: true`` would
not do: its isolation rules drop bridged frames whose source is a pod's address.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from testbed.dataplane.underlay import Underlay
from testbed.errors import NodeError
from testbed.node import labels

if TYPE_CHECKING:
    import docker

__all__ = ["OPTIONS", "create", "find", "free_subnets", "network_name", "remove"]

OPTIONS = {
    "com.docker.network.bridge.inhibit_ipv4": "true",
    "com.docker.network.bridge.enable_ip_masquerade": "false",
}
"""The bridge driver's options that make an underlay."""
_POOLS = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(18, 32)),
    *IPv4Network("192.168.0.0/16").subnets(new_prefix=20),
)
"""Docker's own default pools, in its order."""
_MTU_OPTION = "com.docker.network.driver.mtu"


def network_name(name: str) -> str:
    """The Docker network of testbed ``name``."""
    return f"testbed-{name}"


def find(client: docker.DockerClient, name: str) -> Underlay | None:
    """The network of a testbed that exists, or ``None``.

    Engines let two commands that cannot see each other's lock make two networks of one name. The
    older one is the testbed's; others are removed, unless a container is attached to them.
    """
    from docker.errors import APIError

    networks = client.api.networks(filters=labels.selecting(name))
    found = sorted(networks, key=lambda each: (each["Created"], each["Id"]))
    for other in found[1:]:
        with suppress(APIError):
            client.api.remove_network(other["Id"])
    return _underlay(found[0]) if found else None


def create(
    client: docker.DockerClient,
    name: str,
    wanted: IPv4Network | None,
    avoid: Iterable[IPv4Network],
) -> Underlay:
    """Make the network of testbed ``name`` with subnet ``wanted``, else the first free pool.

    ``avoid`` are networks that the subnet must not overlap: the pods' and the services' addresses.

    Raises:
        NodeError: the engine refuses the subnet, or every pool is taken.
    """
    from docker.errors import APIError
    from docker.types import IPAMConfig, IPAMPool

    taken = [*avoid, *_taken(client)]
    problem = ""
    for subnet in [wanted] if wanted else free_subnets(taken):
        pool = IPAMPool(subnet=str(subnet), gateway=str(Underlay(subnet).gateway))
        try:
            made = client.api.create_network(
                network_name(name),
                driver="bridge",
                options=OPTIONS,
                ipam=IPAMConfig(pool_configs=[pool]),
                check_duplicate=True,
                labels={labels.NAME: name},
            )
            return Underlay(subnet, identity=made["Id"])
        except APIError as error:
            problem = str(error.explanation or error)
            if "already exists" in problem:
                raise NodeError(
                    f"a network called {network_name(name)!r} exists and does not belong to "
                    f"testbed {name!r}. Remove it, or choose another name (--name)."
                ) from error
            if "overlap" not in problem.lower():
                break
    raise NodeError(
        f"the node network {network_name(name)!r} could not be made: "
        f"{problem or 'every subnet of the default pools is in use'}.\n"
        "`docker network ls` shows what holds the addresses; networks.default.ipam in the topology "
        "chooses others."
    )


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


def _underlay(network: dict[str, Any]) -> Underlay:
    pools = network["IPAM"]["Config"]
    mtu = int((network.get("Options") or {}).get(_MTU_OPTION, 1500))
    return Underlay(IPv4Network(pools[0]["Subnet"]), mtu=mtu, identity=network["Id"])
