"""What the files declare, before nodes own addresses and pods are scheduled.

A declaration remembers where it stands, so that later steps can say where a problem is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from testbed.topology.cnis import Traits
from testbed.topology.expansion import expand
from testbed.topology.model import Backend, Container, ContainerPort, LoadBalancer, Pod
from testbed.topology.service import EndpointSlice, Service
from testbed.topology.source import Place, Value

__all__ = [
    "Cidr",
    "ClientDeclaration",
    "ContainerDeclaration",
    "DeploymentDeclaration",
    "Fabric",
    "FieldRef",
    "HostPort",
    "ManifestReference",
    "NetworkDeclaration",
    "NodeDeclaration",
    "PodDeclaration",
    "PortDeclaration",
    "RouterDeclaration",
    "ServiceDeclaration",
    "Settings",
    "SliceDeclaration",
]


@dataclass(frozen=True, slots=True)
class FieldRef:
    """An environment variable's ``valueFrom.fieldRef.fieldPath``."""

    path: str


@dataclass(frozen=True, slots=True)
class PortDeclaration:
    """One entry of a container's ``ports``."""

    port: ContainerPort
    place: Place


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of a node that a pod wants for itself."""

    port: int
    protocol: str
    address: IPv4Address | None
    """``None``: every address of the node."""
    place: Place

    def conflicts(self, other: HostPort) -> bool:
        """Whether both cannot be had on one node."""
        if (self.port, self.protocol) != (other.port, other.protocol):
            return False
        return None in (self.address, other.address) or self.address == other.address

    def __str__(self) -> str:
        address = f"{self.address}:" if self.address else ""
        return f"{address}{self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class ContainerDeclaration:
    """A container whose command may still refer to the pod's node."""

    name: str
    image: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str | FieldRef], ...] = ()
    working_dir: str = "/"
    ports: tuple[PortDeclaration, ...] = ()

    def resolved(self, fields: Mapping[str, str]) -> Container:
        """The container with every reference expanded; an env value sees those before it."""
        env: dict[str, str] = {}
        for name, value in self.env:
            env[name] = fields[value.path] if isinstance(value, FieldRef) else expand(value, env)
        return Container(
            name=self.name,
            image=self.image,
            argv=tuple(expand(argument, env) for argument in self.argv),
            env=env,
            working_dir=self.working_dir,
            ports=tuple(declared.port for declared in self.ports),
        )


@dataclass(frozen=True, slots=True)
class PodDeclaration:
    """A pod that may not have a node yet."""

    place: Place
    namespace: str
    name: str
    containers: tuple[ContainerDeclaration, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    host_network: bool = False
    share_process_namespace: bool = False
    restart_policy: str = "Always"
    node: str | None = None
    node_place: Place | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""
    gated: bool = False

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    def host_ports(self) -> Iterator[HostPort]:
        """The node's ports that this pod needs."""
        for container in self.containers:
            for declared in container.ports:
                port = declared.port
                if port.host_port is not None:
                    yield HostPort(port.host_port, port.protocol, port.host_ip, declared.place)

    def on(self, node: str) -> Pod:
        """The pod, scheduled to ``node``."""
        fields = {
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            "spec.nodeName": node,
        }
        return Pod(
            namespace=self.namespace,
            name=self.name,
            node=node,
            containers=tuple(container.resolved(fields) for container in self.containers),
            labels=self.labels,
            annotations=self.annotations,
            hostname=self.hostname,
            host_network=self.host_network,
            share_process_namespace=self.share_process_namespace,
            restart_policy=self.restart_policy,
            owner=self.owner,
            gated=self.gated,
        )


@dataclass(frozen=True, slots=True)
class ServiceDeclaration:
    """A Service that may lack addresses and ports which the API server would choose."""

    place: Place
    service: Service
    """With what the manifest gives; its cluster IP is ``None`` also where it is to be chosen."""
    headless: bool = False
    allocates_node_ports: bool = False
    ip_place: Place | None = None
    port_places: tuple[Place, ...] = ()
    health_place: Place | None = None


@dataclass(frozen=True, slots=True)
class SliceDeclaration:
    """An EndpointSlice whose nodes may not exist."""

    place: Place
    slice: EndpointSlice
    endpoint_places: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class DeploymentDeclaration:
    """A Deployment with the pods that it wants."""

    place: Place
    namespace: str
    name: str
    pods: tuple[PodDeclaration, ...] = ()

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Cidr:
    """A network and where it was set; a default stands at its section."""

    name: str
    """The key, for messages."""
    network: IPv4Network
    place: Place


@dataclass(frozen=True, slots=True)
class NodeDeclaration:
    """One service of the Compose file."""

    name: str
    place: Place
    labels: Mapping[str, str] = field(default_factory=dict)
    pod_cidr: Cidr | None = None
    network: str = "default"
    """Empty where the file is wrong about it, which is reported."""


@dataclass(frozen=True, slots=True)
class RouterDeclaration:
    """A service whose role is router."""

    name: str
    place: Place
    networks: tuple[str, ...]
    """Empty where the file is wrong about them, which is reported."""
    as_number: int | None = None


@dataclass(frozen=True, slots=True)
class ClientDeclaration:
    """One entry of ``x-testbed.clients``."""

    name: str
    place: Place
    network: str = ""
    """Empty: the only one there is."""
    as_number: int | None = None


@dataclass(frozen=True, slots=True)
class NetworkDeclaration:
    """One network of the Compose file."""

    name: str
    place: Place
    subnet: Cidr | None = None


@dataclass(frozen=True, slots=True)
class Fabric:
    """The machines of the Compose file and the networks between them, in file order."""

    nodes: tuple[NodeDeclaration, ...]
    routers: tuple[RouterDeclaration, ...] = ()
    networks: tuple[NetworkDeclaration, ...] = ()
    clients: tuple[ClientDeclaration, ...] = ()


@dataclass(frozen=True, slots=True)
class ManifestReference:
    """One entry of ``x-testbed.manifests``: a file's path or the object itself."""

    content: str | Value
    where: str
    place: Place


@dataclass(frozen=True, slots=True)
class Settings:
    """The ``x-testbed`` section with its defaults filled in; ``None`` is a value that was wrong."""

    place: Place
    name: str
    cni: str
    traits: Traits
    backend: Backend
    backend_place: Place
    cluster: Cidr | None
    node_cidr_mask: int | None
    """With IPAM blocks: the prefix length of a block."""
    mask_place: Place
    service: Cidr | None
    manifests: tuple[ManifestReference, ...]
    default_pods: int | None
    pods_place: Place
    ipip: str
    proxy: str
    proxies: tuple[str, ...]
    """All modes of kube-proxy."""
    clients: tuple[ClientDeclaration, ...] = ()
    load_balancer: LoadBalancer = field(default_factory=LoadBalancer)
    load_balancer_place: Place | None = None
