"""What the Docker host's kernel and engine can do: detected once, frozen, an argument of planners.

Felix calls the same thing ``environment.Features``. Each flag was answered by doing the thing in a
node's own conditions (:mod:`testbed.agent.features`), not by reading a kernel configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["KERNEL_FLAGS", "Features"]


@dataclass(frozen=True, slots=True)
class Features:
    """What nodes can be made of on this engine. Every ``bool`` but the last is a kernel feature."""

    bridge: bool
    veth: bool
    vxlan: bool
    ipip: bool
    ipip_ebpf: bool
    """The same tunnel by a TUN device and tc programs, where the driver is missing."""
    gre: bool
    wireguard: bool
    dummy: bool
    ifb: bool
    macvlan: bool
    ipvlan: bool
    tun: bool
    ip_vs: bool
    """IP Virtual Server, kube-proxy's ipvs mode."""
    ipset: bool
    iptables_nft: bool
    """iptables translated to nf_tables, with NAT."""
    iptables_legacy: bool
    nft: bool
    """nf_tables with NAT, fib and numgen expressions: kube-proxy's nftables mode."""
    nfqueue: bool
    br_netfilter: bool
    """Bridged packets pass iptables, so that a Service works between pods of one node."""
    netem: bool
    tbf: bool
    htb: bool
    clsact: bool
    mirred: bool
    """tc's u32 classifier and redirection, which shape a pod's egress through an ifb."""
    bpf: bool
    """tc programs can be loaded."""
    bpffs: bool
    sctp: bool
    overlay_in_container: bool
    namespaces: bool
    """New mount, PID, network, IPC and UTS namespaces inside a node."""
    privileged: bool
    """Whether the engine starts privileged containers; otherwise nodes get a capability set."""
    kernel_release: str = ""
    engine_version: str = ""
    api_version: str = ""
    cgroup_version: str = ""
    """``1`` or ``2``."""
    storage_driver: str = ""
    architecture: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict, hash=False)
    """For what is missing: the tool's or the engine's own words."""

    @property
    def available(self) -> frozenset[str]:
        """The names of the kernel features that work."""
        return frozenset(name for name in KERNEL_FLAGS if getattr(self, name))

    @classmethod
    def full(cls) -> Features:
        """Everything: for plans that are made without an engine."""
        everything: dict[str, Any] = dict.fromkeys((*KERNEL_FLAGS, "privileged"), True)
        return cls(**everything)

    def to_json(self) -> str:
        """One line, stable key order."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Features:
        """The value that :meth:`to_json` wrote.

        Raises:
            ValueError: it is not such a text, or one of another version of testbed.
        """
        values: Any = json.loads(text)
        if not isinstance(values, dict) or values.keys() != {each.name for each in fields(cls)}:
            raise ValueError("not the features of this version of testbed")
        return cls(**values)


KERNEL_FLAGS = tuple(
    each.name for each in fields(Features) if each.type == "bool" and each.name != "privileged"
)
"""The names of the kernel features, in the order they are shown."""
