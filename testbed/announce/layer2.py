"""Load balancer addresses by ARP: one node of the network has the address. Pure.

Nodes are elected as MetalLB's layer 2 mode elects them: among those that may announce, the one
whose hash with the address is lowest. What MetalLB's members tell each other is VRRP here, by
keepalived, whose priorities are the ranks: the next one takes over when the first is gone, with
gratuitous ARP, and gives the address back when it returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from ipaddress import IPv4Address

from testbed.dataplane.spec import File, Process
from testbed.dataplane.underlay import Underlay
from testbed.errors import PlanError
from testbed.topology import load_balancer
from testbed.topology.model import Cluster, Node
from testbed.topology.portals import Portal, answers

__all__ = ["CONFIGURATION", "candidates", "elected", "plan"]

CONFIGURATION = "/etc/testbed/announce/keepalived.conf"
_PID = "/run/testbed/announce/keepalived.pid"
_VRRP_PID = "/run/testbed/announce/vrrp.pid"
_MOST_ROUTERS = 255
"""Virtual router IDs of a network."""
_HIGHEST = 254
"""Priority of the elected node; 255 is the owner's, who does not ask."""
_SECONDS = 0.3
"""Between advertisements; three of them missed, and the next node takes over."""


def plan(
    cluster: Cluster, node: Node, underlay: Underlay, portals: Mapping[str, tuple[Portal, ...]]
) -> tuple[tuple[File, ...], tuple[Process, ...]]:
    """keepalived with an instance for each address that ``node`` may announce.

    Raises:
        PlanError: an address is further in the pool than there are virtual router IDs.
    """
    instances = "".join(_instances(cluster, node, underlay, portals))
    if not instances:
        return (), ()
    return (File(CONFIGURATION, _GLOBAL + instances),), (_process(),)


def elected(nodes: Sequence[Node], address: IPv4Address) -> tuple[Node, ...]:
    """The nodes in the order in which they are to announce ``address``."""
    return tuple(sorted(nodes, key=lambda each: sha256(f"{each.name}#{address}".encode()).digest()))


def _instances(
    cluster: Cluster, node: Node, underlay: Underlay, portals: Mapping[str, tuple[Portal, ...]]
) -> Iterator[str]:
    segment = underlay.segments[node.network]
    subnets = {name: each.subnet for name, each in underlay.segments.items()}
    pool = load_balancer.pool(cluster, subnets)
    for key, each in portals.items():
        address = each[0].load_balancer_ip
        assert address
        if address not in segment.subnet:
            continue
        order = candidates(cluster, node.network, each)
        if node not in order:
            continue
        number = load_balancer.position(pool, address) + 1
        if number > _MOST_ROUTERS:
            raise PlanError(
                f"load balancer address {address} of Service {key} is number {number} of the pool, "
                f"and only {_MOST_ROUTERS} can be announced by ARP: VRRP has no more virtual "
                "router IDs. Shorten x-testbed.load_balancer.pool."
            )
        own = underlay.address_of(node.network, node.index)
        peers = [underlay.address_of(one.network, one.index) for one in order if one != node]
        rank = order.index(node)
        yield _instance(key, number, max(_HIGHEST - rank, 1), own, peers, address)


def candidates(cluster: Cluster, network: str, portals: Sequence[Portal]) -> tuple[Node, ...]:
    """The nodes of a network that may announce a Service's address, in their order."""
    address = portals[0].load_balancer_ip
    nodes = [node for node in cluster.nodes if node.network == network]
    may = [node for node in nodes if answers(portals, node.name)]
    return elected(may, address) if address else ()


_GLOBAL = """\
global_defs {
  vrrp_version 3
  vrrp_garp_master_delay 1
}
"""


def _instance(
    service: str,
    number: int,
    priority: int,
    own: IPv4Address,
    peers: Sequence[IPv4Address],
    address: IPv4Address,
) -> str:
    # Without peers keepalived would multicast, which is as good: nobody listens.
    unicast = (
        ["  unicast_peer {", *(f"    {peer}" for peer in sorted(peers)), "  }"] if peers else []
    )
    lines = [
        "",
        f"# {service}",
        f"vrrp_instance {service.replace('/', '_')} {{",
        "  interface eth0",
        "  state BACKUP",
        f"  virtual_router_id {number}",
        f"  priority {priority}",
        f"  advert_int {_SECONDS}",
        f"  unicast_src_ip {own}",
        *unicast,
        "  virtual_ipaddress {",
        f"    {address}/32 dev eth0",
        "  }",
        "}",
        "",
    ]
    return "\n".join(lines)


def _process() -> Process:
    """keepalived in the foreground; when it ends it gives its addresses up."""
    return Process(
        "keepalived",
        (
            *("keepalived", "--dont-fork", "--log-console", "--no-syslog", "--vrrp"),
            *("--pid", _PID, "--vrrp_pid", _VRRP_PID, "--use-file", CONFIGURATION),
        ),
        reload=("sh", "-c", f'kill -HUP "$(cat {_PID})"'),
        files=(CONFIGURATION,),
    )
