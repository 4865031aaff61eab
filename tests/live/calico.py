"""What a Calico node's tables must read like, worked out without the planner's help."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from testbed.topology.model import Node
from tests.live.conftest import SLOWNESS, Running

__all__ = [
    "cali",
    "eventually",
    "lines",
    "routes",
    "sessions",
    "tunnel_address",
    "uplink",
]


def lines(text: str) -> list[str]:
    """Lines without the blanks that iproute2 ends them with."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def eventually(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """The condition's first true value; fails after ``seconds``."""
    deadline = time.monotonic() + seconds * SLOWNESS
    while not (value := condition()):
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.02)
    return value


def cali(pod: str, namespace: str = "default") -> str:
    """The node's end of a pod's veth: ``cali`` and 11 digits of SHA-1."""
    return (
        "cali" + hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()[:11]
    )


def uplink(live: Running, node: str) -> IPv4Interface:
    """A node's address on its network."""
    shown = live.host(node).check_output("ip -4 -o address show dev eth0")
    return IPv4Interface(re.findall(r"inet (\S+)", shown)[0])


def tunnel_address(live: Running, node: str) -> IPv4Address:
    """The first address of the node's first block."""
    return live.cluster.node(node).pod_cidr.network_address


def routes(
    live: Running, node: str, *, block: str, remote: Callable[[Node, IPv4Network], str]
) -> list[str]:
    """``ip route`` of a node, sorted: ``remote`` says the line of another node's block.

    ``block`` is what follows an own block's blackhole, such as ``proto bird``.
    """
    own = uplink(live, node)
    here = live.cluster.node(node)
    found = [
        f"default via {own.network.network_address + 1} dev eth0",
        f"{own.network} dev eth0 proto kernel scope link src {own.ip}",
    ]
    for router in live.cluster.routers:
        way = own.network.broadcast_address - 1 - router.index
        others = {uplink(live, each.name).network for each in live.cluster.nodes} - {own.network}
        found += [f"{other} via {way} dev eth0" for other in others]
    found += [f"blackhole {cidr} {block}" for cidr in here.pod_cidrs]
    found += [
        f"{live.ip(pod.name)} dev {cali(pod.name, pod.namespace)} scope link"
        for pod in live.cluster.pods_on(node)
        if not pod.host_network
    ]
    found += [
        remote(each, cidr)
        for each in live.cluster.nodes
        if each is not here
        for cidr in each.pod_cidrs
    ]
    return sorted(found)


def sessions(live: Running, node: str) -> dict[str, str]:
    """BGP protocol → what BIRD says of it, from ``birdc show protocols``."""
    shown = live.host(node).check_output("birdc -s /var/run/calico/bird.ctl show protocols")
    rows = [line.split() for line in lines(shown)]
    return {row[0]: row[-1] for row in rows if len(row) > 3 and row[1] == "BGP"}
