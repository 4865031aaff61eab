"""Nodes and pods as tests speak of them.

A handle knows its addresses as they were when they were last read (:meth:`Testbed.refresh`).
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from testbed.api.place import Address, Interface, Place
from testbed.errors import UsageError
from testbed.target import Target, resolve
from testbed.topology import model

if TYPE_CHECKING:
    from testbed.api.testbed import Testbed

__all__ = ["Node", "Pod"]


class Node(Place):
    """A node, a router or a client."""

    @property
    def key(self) -> str:
        """Its name."""
        return self.name

    @property
    def ip(self) -> IPv4Address:
        """Its address on the underlay; a router's first.

        Raises:
            NodeError: it does not run.
        """
        return self._testbed.node_ip(self.name)

    @property
    def addresses(self) -> frozenset[Address]:
        """Every global address of its devices, that of an overlay's included."""
        return self._testbed.node_addresses(self.name)

    @property
    def uplink(self) -> Interface:
        """``eth0``, its way to other nodes."""
        return self["eth0"]

    def __getitem__(self, device: str) -> Interface:
        return Interface(self.name, device, self.name)


class Pod(Place):
    """A pod."""

    def __init__(self, testbed: Testbed, pod: model.Pod, target: Target) -> None:
        super().__init__(testbed, pod.name, target)
        self._pod = pod

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return self._pod.key

    @property
    def namespace(self) -> str:
        """Its Kubernetes namespace."""
        return self._pod.namespace

    @property
    def node(self) -> Node:
        """Where it runs."""
        return self._testbed.nodes[self._pod.node]

    @property
    def ip(self) -> IPv4Address:
        """Its address; its node's with ``hostNetwork``.

        Raises:
            NodeError: it has none, because it does not run.
        """
        return IPv4Address(self._entry["ip"])

    @property
    def addresses(self) -> frozenset[Address]:
        """Its address; all of its node's with ``hostNetwork``."""
        return self.node.addresses if self._pod.host_network else frozenset({self.ip})

    @property
    def eth0(self) -> Interface:
        """Its network card."""
        return self["eth0"]

    @property
    def veth(self) -> Interface:
        """The other end of its network card, on the node.

        Raises:
            UsageError: it has none, because it is in its node's network namespace.
        """
        device = self._entry["host_interface"]
        if not device:
            raise UsageError(f"pod {self} has no veth: it is in the network namespace of its node")
        return self.node[device]

    def __getitem__(self, device: str) -> Interface:
        if self._pod.host_network:
            return self.node[device]
        return Interface(self.key, device, self._pod.node, self.key)

    def container(self, name: str) -> Pod:
        """The same pod, but commands and testinfra are in this container instead of its first.

        Raises:
            UsageError: it has no such container.
        """
        target = resolve(self._testbed.cluster, f"{self.key}:{name}")
        return Pod(self._testbed, self._pod, target)

    @property
    def _entry(self) -> Mapping[str, Any]:
        return self._testbed.pod_entry(self.key)
