"""Waiting until load balancer addresses are where they belong.

VRRP needs three advertisements to agree, so for a second the wrong node may answer for an address.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

from testbed.announce import layer2
from testbed.dataplane.underlay import Underlay
from testbed.errors import NodeError
from testbed.node.container import execute
from testbed.node.parallel import each
from testbed.topology.model import Cluster
from testbed.topology.portals import Portal

if TYPE_CHECKING:
    import docker

__all__ = ["await_announcers", "holders"]

_SECONDS, _PAUSE = 10.0, 0.1


def holders(
    cluster: Cluster,
    underlay: Underlay,
    portals: Mapping[str, tuple[Portal, ...]],
    running: Collection[str],
) -> dict[str, str]:
    """Load balancer address → the node that is to have it, of those that run. Pure."""
    found: dict[str, str] = {}
    for every in portals.values():
        address = every[0].load_balancer_ip if every else None
        for network, segment in underlay.segments.items():
            if address and address in segment.subnet:
                order = layer2.candidates(cluster, network, every)
                nodes = [node.name for node in order if node.name in running]
                found |= {str(address): node for node in nodes[:1]}
    return found


def await_announcers(
    client: docker.DockerClient, wanted: Mapping[str, str], containers: Mapping[str, str]
) -> None:
    """Wait until every address is on its node, and on no other; ``containers`` run.

    Raises:
        NodeError: it is not, after ten seconds.
    """
    if not wanted:
        return
    deadline = time.monotonic() + _SECONDS
    while True:
        rows = each(partial(_addresses, client), containers.values())
        have = {node: found & wanted.keys() for node, found in zip(containers, rows, strict=True)}
        wrong = {
            address: [name for name, found in have.items() if address in found]
            for address, node in wanted.items()
            if [name for name, found in have.items() if address in found] != [node]
        }
        if not wrong:
            return
        if time.monotonic() > deadline:
            address, nodes = next(iter(wrong.items()))
            raise NodeError(
                f"load balancer address {address} is to be on {wanted[address]}, but after "
                f"{_SECONDS:.0f} s it is on {', '.join(nodes) or 'no node'}. `testbed status -v` "
                "shows whether keepalived runs there, `testbed logs` what it says."
            )
        time.sleep(_PAUSE)


def _addresses(client: docker.DockerClient, container: str) -> set[str]:
    said = execute(client, container, ["ip", "-j", "-4", "address", "show", "dev", "eth0"])
    return {each["local"] for link in json.loads(said) for each in link.get("addr_info", ())}
