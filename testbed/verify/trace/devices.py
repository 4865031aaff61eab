"""What the interfaces that a packet crosses are called, by CNI, backend and network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface

from testbed.topology.model import Client, Cluster, Node, Router
from testbed.topology.pods import BANDWIDTH
from testbed.verify.observed import Observed
from testbed.verify.trace.model import IN, Event, ExpectedHop, Facts

__all__ = ["UPLINK", "Devices", "enters", "shapes"]

UPLINK = "eth0"
"""Of every node; a pod's only interface is called the same."""

_SHAPER = "bwp"
"""What the names of ifb devices begin with that the ``bandwidth`` plugin makes."""
_LONGEST = 15
"""Characters of an interface's name."""
_NETWORKS = {"flannel": "cbr0", "calico": "k8s-pod-network"}
"""CNI → name in its conflist, of those that chain ``bandwidth``."""

_TUNNELS = {
    ("flannel", "ipip"): "flannel.ipip",
    ("flannel", "wireguard"): "flannel-wg",
    ("calico", "ipip"): "tunl0",
    ("calico", "vxlan"): "vxlan.calico",
}


def shapes(hop: ExpectedHop | Event) -> bool:
    """Whether it is at the device that limits what a pod sends."""
    return hop.interface.startswith(_SHAPER)


def enters(hop: ExpectedHop | Event) -> bool:
    """Whether a packet comes into a namespace here, and no rule of that has seen it yet.

    A shaper sends, but hands what it has delayed back to the veth by which that came in.
    """
    return hop.direction == IN or shapes(hop)


@dataclass(frozen=True, slots=True)
class Devices:
    """The interfaces of one running testbed."""

    cluster: Cluster
    observed: Observed
    facts: Mapping[str, Facts]
    """Of the routers: which of their interfaces is on which network is the engine's choice."""

    @property
    def bridge(self) -> str:
        """What pods of one node are plugged into; empty: their veths are routed."""
        return "cni0" if self.cluster.cni == "flannel" else ""

    @property
    def tunnel(self) -> str:
        """The device that encapsulates."""
        backend = self.cluster.backend
        if (self.cluster.cni, backend.type) == ("flannel", "vxlan"):
            return f"flannel.{backend.options.get('vni', 1)}"
        return _TUNNELS[self.cluster.cni, backend.type]

    def veth(self, pod: str) -> str:
        """The node's end of a pod's veth pair.

        Without an entry of the pod it is Calico's name, which follows from the pod's; others are
        random, and then it is ``veth``, which no interface is called.
        """
        name = str(self.observed.pods.get(pod, {}).get("host_interface") or "")
        if name or self.cluster.cni != "calico":
            return name or "veth"
        digest = hashlib.sha1(pod.replace("/", ".").encode(), usedforsecurity=False).hexdigest()
        return f"cali{digest[:11]}"

    def shaper(self, pod: str) -> str:
        """The ifb device through which a pod's veth sends on what comes out of it.

        Empty: nothing limits what the pod sends. The name is that of plugins/meta/bandwidth:
        a hash of the network's name and the sandbox's ID.
        """
        network = _NETWORKS.get(self.cluster.cni)
        _, egress = BANDWIDTH
        limited = any(each.key == pod and egress in each.annotations for each in self.cluster.pods)
        sandbox = self.observed.pods.get(pod, {}).get("sandbox_id")
        if not (network and limited and sandbox):
            return ""
        return f"{_SHAPER}{hashlib.sha512(f'{network}{sandbox}'.encode()).hexdigest()}"[:_LONGEST]

    def uplink(self, machine: Node | Router | Client, network: str) -> str:
        """A node's or client's uplink, or a router's interface on a network.

        The latter holds addresses of that network's nodes. Without the router's facts, networks
        are taken in the topology's order.
        """
        if not isinstance(machine, Router):
            return UPLINK
        nodes = [node.name for node in self.cluster.nodes if node.network == network]
        known = [self.observed.node_ips[each] for each in nodes if each in self.observed.node_ips]
        for address, name in self._addresses(machine):
            if any(ip in address.network for ip in known):
                return name
        return f"eth{machine.networks.index(network)}"

    def network(self, router: Router, ip: str) -> str:
        """The network of one of a router's addresses; empty where its facts do not tell."""
        named = {str(address.ip): name for address, name in self._addresses(router)}
        found = (each for each in router.networks if self.uplink(router, each) == named.get(ip))
        return next(found, "")

    def _addresses(self, router: Router) -> Iterator[tuple[IPv4Interface, str]]:
        space = self.facts.get(router.name, Facts()).before.get("", {})
        for row in space.get("addresses", ()):
            for info in row.get("addr_info", ()):
                if info.get("family", "inet") == "inet" and "prefixlen" in info:
                    yield IPv4Interface(f"{info['local']}/{info['prefixlen']}"), row["ifname"]
