"""What one node should hold: the value that planners make and that the in-node agent applies.

A :class:`NodeSpec` is complete: the agent decides nothing. Kernel objects carry the native lines
that create, change and delete them together with the attributes by which the agent recognises them
in the kernel's own listing (``ip -json``), so that ``sync`` is level-triggered without the agent
knowing what a VTEP is.

Order is meaning: objects are applied in the order given and removed in reverse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

__all__ = [
    "ContainerSpec",
    "File",
    "KernelObject",
    "NodeSpec",
    "PodSpec",
    "PortMapping",
    "Process",
    "Ruleset",
    "Tunnel",
    "Unit",
]


@dataclass(frozen=True, slots=True)
class File:
    """A file on the node; parent directories are made (0755)."""

    path: str
    content: str
    mode: int = 0o644
    attaches: bool = False
    """Whether pods are attached by it: running pods do not follow when it changes."""


@dataclass(frozen=True, slots=True)
class KernelObject:
    """One link, address, route, neighbour or FDB entry.

    ``key`` finds it in the kernel's listing (a subset of the row's JSON). ``fixed`` must hold or
    the object is deleted and created anew; ``want`` must hold or ``change`` is run. Nested mappings
    are compared as subsets too. Lines are what ``ip -batch`` (``bridge -batch`` for FDB) reads.
    """

    kind: str
    """``link``, ``address``, ``route``, ``neighbour`` or ``fdb``."""
    key: Mapping[str, Any]
    create: tuple[str, ...]
    delete: tuple[str, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    want: Mapping[str, Any] = field(default_factory=dict)
    change: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ruleset:
    """A fragment of an ``iptables-save`` or ``ipset save`` file, in that command's own spelling.

    Chains declared with ``:NAME`` belong to the fragment whole; a rule of any other chain is a
    single rule that the fragment adds there (``-A`` appended, ``-I`` prepended). Sets belong to the
    fragment whole.
    """

    name: str
    content: str
    tool: str = "iptables-restore"
    """Or ``ipset``, ``wg``, ``nft``."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """An IP-in-IP device made of a TUN and tc programs, for kernels without the ipip driver.

    It is there before any :class:`KernelObject` is applied.
    """

    name: str
    uplink: str


@dataclass(frozen=True, slots=True)
class Process:
    """A daemon that the agent keeps running, as runit does in a calico-node container."""

    name: str
    argv: tuple[str, ...]
    reload: tuple[str, ...] = ()
    """Run when the content of one of ``files`` changes; empty: the daemon is started anew."""
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PortMapping:
    """One entry of the ``portMappings`` capability."""

    host_port: int
    container_port: int
    protocol: str
    """Lower case, as CNI spells it."""
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One application container of a pod."""

    name: str
    image: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"


@dataclass(frozen=True, slots=True)
class PodSpec:
    """One pod of a node, ready to be sandboxed."""

    namespace: str
    name: str
    uid: str
    hostname: str
    containers: tuple[ContainerSpec, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    host_network: bool = False
    share_process_namespace: bool = False
    restart_policy: str = "Always"
    port_mappings: tuple[PortMapping, ...] = ()
    bandwidth: Mapping[str, int] = field(default_factory=dict)
    """The ``bandwidth`` capability: ``ingressRate``, ``egressRate``, bursts; bits per second."""


Unit = Mapping[str, Any]
"""Rules in native terms, as a proxy's planner writes them and one agent module each applies them.

``iptables``
    A fragment as of :class:`Ruleset`.
``ipset``
    A fragment as of :class:`Ruleset`, for ``ipset restore``.
``nft``
    ``{"chains": {name: {"base": "type filter hook …" or "", "rules": [rule, …]}},
    "sets": {name: declaration}, "elements": {set's or map's name: {key: value or ""}}}`` of the
    table ``ip kube-proxy``.
``ipvs``
    ``{"-t 10.96.0.10:80": {"flags": "-s rr", "servers": {"10.244.0.5:80": "-m -w 1"}}}``, as
    ``ipvsadm --save --numeric`` spells them.
``addresses``
    A list of what ``kube-ipvs0`` holds.
"""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """Everything that one node should hold."""

    testbed: str
    node: str
    files: tuple[File, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """``net.ipv4.ip_forward`` → ``1``."""
    objects: tuple[KernelObject, ...] = ()
    rulesets: tuple[Ruleset, ...] = ()
    tunnels: tuple[Tunnel, ...] = ()
    processes: tuple[Process, ...] = ()
    pods: tuple[PodSpec, ...] = ()
    cluster: Mapping[str, Any] = field(default_factory=dict)
    """The whole topology, as :mod:`testbed.topology.serialize` writes it: testbed's only state."""

    @property
    def attachment(self) -> str:
        """Digest of what a sync cannot change; of another one, the node is made anew.

        That is what pods are attached by, and who makes a tunnel's device: the kernel's own keeps
        its name.
        """
        fixed: list[list[str]] = [[file.path, file.content] for file in self.files if file.attaches]
        fixed += [[tunnel.name, tunnel.uplink] for tunnel in self.tunnels]
        return sha256(json.dumps(fixed).encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """The text that is copied to ``/etc/testbed/spec.json`` on the node; stable key order."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"
