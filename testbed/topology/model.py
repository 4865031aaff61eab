"""What the user asked for, as frozen data.

The names are Kubernetes' own (a Pod has containers, a container has ports). A value of this module
is complete and valid: every default is filled in, every pod is scheduled to a node and every node
owns its pod CIDR, as the scheduler and the node IPAM controller would leave them in an API server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from testbed.topology.service import EndpointSlice, Service

__all__ = [
    "MESH_AS_NUMBER",
    "Backend",
    "Client",
    "Cluster",
    "Container",
    "ContainerPort",
    "LoadBalancer",
    "Network",
    "Node",
    "Pod",
    "Router",
]


MESH_AS_NUMBER = 64512
"""The autonomous system of all nodes (Calico's default), within which they speak iBGP."""


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """One entry of a container's ``ports``."""

    container_port: int
    protocol: str = "TCP"
    """``TCP``, ``UDP`` or ``SCTP``, as Kubernetes spells it."""
    name: str = ""
    host_port: int | None = None
    host_ip: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod; ``argv`` is what runs, with image, command and args merged."""

    name: str
    image: str
    """One of the node image's applications (:data:`testbed.topology.applications.APPLICATIONS`)."""
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"
    ports: tuple[ContainerPort, ...] = ()


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, scheduled to a node."""

    namespace: str
    name: str
    node: str
    containers: tuple[Container, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    """Never empty after loading: ``spec.hostname``, else the pod's name."""
    host_network: bool = False
    share_process_namespace: bool = False
    restart_policy: str = "Always"
    """``Always``, ``OnFailure`` or ``Never``."""
    owner: str = ""
    """Name of the Deployment that it is of."""
    gated: bool = False
    """Whether a readiness gate holds it back: it runs, but is not ready."""

    @property
    def key(self) -> str:
        """``namespace/name``, unique in the cluster."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Node:
    """One node: a Docker container once it runs."""

    name: str
    index: int
    """Position in the topology, from 0; the underlay address follows from it."""
    pod_cidrs: tuple[IPv4Network, ...]
    """One for CNIs that number pods by node CIDR; the node's IPAM blocks for Calico."""
    labels: Mapping[str, str] = field(default_factory=dict)
    network: str = "default"
    """The :class:`Network` of its uplink."""
    borrowed: tuple[IPv4Address, ...] = ()
    """Addresses of other nodes' blocks that its pods use once its own blocks are full."""

    @property
    def pod_cidr(self) -> IPv4Network:
        """The first, which is the only one but for CNIs with blocks."""
        return self.pod_cidrs[0]


@dataclass(frozen=True, slots=True)
class Network:
    """One layer 2 segment of the underlay."""

    name: str
    subnet: IPv4Network | None = None
    """``None``: the first free one is taken."""


@dataclass(frozen=True, slots=True)
class Router:
    """A top-of-rack router between networks: a container of the node image without pods."""

    name: str
    index: int
    """Position among the routers, from 0; its addresses are counted from the subnets' ends."""
    networks: tuple[str, ...]
    as_number: int | None = None
    """The autonomous system in which it speaks eBGP with the nodes; ``None``: it does not."""


@dataclass(frozen=True, slots=True)
class Client:
    """A container on the underlay that is no node: it is what reaches Services from outside."""

    name: str
    index: int
    """Position among the clients, from 0."""
    network: str = "default"
    as_number: int | None = None
    """The autonomous system in which it speaks eBGP with its network's nodes; ``None``: not."""


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """How Services of type LoadBalancer get their addresses and make them known."""

    pool: tuple[tuple[IPv4Address, IPv4Address], ...] = ()
    """First and last address of each range; empty: chosen from the first network's subnet."""
    announce: str = "layer2"
    """By ARP from one elected node, or by ``bgp``."""


@dataclass(frozen=True, slots=True)
class Backend:
    """How packets cross the underlay: the CNI's own backend name and its options."""

    type: str
    """For flannel ``vxlan``, ``host-gw``, …; for Calico the pool's encapsulation."""
    options: Mapping[str, int | bool | str] = field(default_factory=dict)
    """Keys as the topology spells them: ``vni``, ``direct_routing``, ``mode``, …"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A whole topology. Nodes are in the file's order, pods in the order they are created."""

    name: str
    cni: str
    backend: Backend
    cluster_cidr: IPv4Network
    node_cidr_mask: int
    """Prefix length of a node's share of it; with IPAM blocks, of every block."""
    service_cidr: IPv4Network
    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...]
    networks: tuple[Network, ...] = (Network("default"),)
    routers: tuple[Router, ...] = ()
    ipip: str = "auto"
    """Which driver makes IP-in-IP tunnels: ``kernel``, ``ebpf``, or ``auto``."""
    proxy: str = "iptables"
    """kube-proxy's mode, a module of :mod:`testbed.proxy`; ``none``: there is no kube-proxy."""
    clients: tuple[Client, ...] = ()
    load_balancer: LoadBalancer = LoadBalancer()
    services: tuple[Service, ...] = ()
    slices: tuple[EndpointSlice, ...] = ()
    """EndpointSlices that were written by hand."""

    @property
    def machines(self) -> tuple[str, ...]:
        """The names of all nodes, routers and clients: each is a container."""
        parts: tuple[tuple[Node | Router | Client, ...], ...]
        parts = (self.nodes, self.routers, self.clients)
        return tuple(each.name for part in parts for each in part)

    def node(self, name: str) -> Node:
        """Return the node called ``name``.

        Raises:
            KeyError: there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def pods_on(self, node: str) -> tuple[Pod, ...]:
        """The pods scheduled to ``node``, in creation order."""
        return tuple(pod for pod in self.pods if pod.node == node)
