"""What the nodes report about themselves, joined: which pod runs where, with which address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

__all__ = ["Observed"]


@dataclass(frozen=True, slots=True)
class Observed:
    """The running testbed as its engine and its agents describe it."""

    node_ips: Mapping[str, IPv4Address]
    """Only of nodes that run."""
    pods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Pod key → its entry in the node's state file."""
    phases: Mapping[str, str] = field(default_factory=dict)
    """Node → what its agent says of it; only of nodes that run."""

    @classmethod
    def of(cls, addresses: Mapping[str, str], states: Mapping[str, Mapping[str, Any]]) -> Observed:
        """Join the underlay addresses and the state files of all nodes."""
        return cls(
            {node: IPv4Address(address) for node, address in addresses.items() if address},
            {
                f"{pod['namespace']}/{pod['name']}": pod
                for node, state in states.items()
                if addresses.get(node)
                for pod in state.get("pods", [])
            },
            {
                node: state.get("phase", "booting")
                for node, state in states.items()
                if addresses.get(node)
            },
        )

    def ended(self, pod: str) -> bool:
        """Whether the pod has done its work: all containers ended well and none is to restart."""
        return bool(self.pods.get(pod, {}).get("state") == "Succeeded")

    def ip(self, pod: str) -> IPv4Address | None:
        """The address of a pod that has one."""
        address = self.pods.get(pod, {}).get("ip")
        return IPv4Address(address) if address else None
