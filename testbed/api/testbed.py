"""A running testbed as a Python object.

::

    with Testbed.up("flannel", nodes=2) as testbed:
        with testbed.capture() as packets:
            testbed.pods["netexec-node1-1"].ping(testbed.pods["netexec-node2-1"])
        print(packets.table())
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from testbed import applying, existing, lifecycle, tracing
from testbed.api.asked import LARGEST, protocol_of, within
from testbed.api.handles import Node, Pod
from testbed.api.loading import loaded, objects_of
from testbed.api.named import Named
from testbed.api.packets import Captured, captured
from testbed.api.place import Address, Interface, Place
from testbed.api.snapshot import Snapshot
from testbed.applying import Change
from testbed.errors import NodeError
from testbed.node import container, engine
from testbed.target import resolve
from testbed.topology.model import Cluster
from testbed.topology.service import Service
from testbed.verify.report import Report
from testbed.verify.trace.model import Trace

if TYPE_CHECKING:
    import docker

__all__ = ["Testbed", "quiet"]

_SIZE = 56


def quiet(node: str, step: str, message: str) -> None:
    """A narrator that says nothing."""
    del node, step, message


class Testbed:
    """A testbed that is there; as a context manager, one that :meth:`up` made is removed."""

    __test__ = False  # pytest would otherwise collect a class of this name

    def __init__(
        self,
        client: docker.DockerClient,
        cluster: Cluster,
        outcome: lifecycle.Outcome | None = None,
    ) -> None:
        """Use :meth:`up` or :meth:`attach`."""
        self.client = client
        self._outcome = outcome
        self._leaving: list[Callable[[], object]] = []
        self._snapshot: Snapshot | None = None
        self._node_addresses: dict[str, frozenset[Address]] = {}
        self.nodes: Named[Node] = Named("node")
        self.routers: Named[Node] = Named("router")
        self.clients: Named[Node] = Named("client")
        self.pods: Named[Pod] = Named("pod", _key)
        """By name, for those of namespace ``default``, or ``namespace/name``."""
        self.services: Named[Service] = Named("Service", _key)
        """The same; their addresses and ports are those that were chosen."""
        self._hold(cluster)

    def _hold(self, cluster: Cluster) -> None:
        """Make handles of what the testbed has."""
        self.cluster = cluster
        self.nodes.hold({each.name: self._node(each.name) for each in cluster.nodes})
        self.routers.hold({each.name: self._node(each.name) for each in cluster.routers})
        self.clients.hold({each.name: self._node(each.name) for each in cluster.clients})
        self.pods.hold(
            {each.key: Pod(self, each, resolve(cluster, each.key)) for each in cluster.pods}
        )
        self.services.hold({each.key: each for each in cluster.services})

    @classmethod
    def up(
        cls,
        topology: str | Path | Cluster,
        *,
        client: docker.DockerClient | None = None,
        tell: existing.Narrator = quiet,
        **overrides: Any,
    ) -> Self:
        """``testbed up``: make a testbed what its topology says, and check it.

        Args:
            topology: the name of one of testbed's own, the path of a Compose file, or what was
                loaded from one.
            client: a connection to the engine; by default one of its own.
            tell: told what is being done.
            overrides: ``name``, ``nodes``, ``pods_per_node`` and ``ipip``, as on the command line.

        Raises:
            TestbedError: it is not there as asked; what was made stays, for `testbed down`.
        """
        cluster = topology if isinstance(topology, Cluster) else loaded(topology, **overrides)
        with ExitStack() as unless:
            used = client or unless.enter_context(closing(engine.connect()))
            outcome = lifecycle.up(cluster, used, tell)
            found = cls(used, outcome.cluster, outcome)
            found._leaving = [found.down] if client else [found.down, used.close]
            unless.pop_all()
        return found

    @classmethod
    def attach(cls, name: str, *, client: docker.DockerClient | None = None) -> Self:
        """Use a testbed that runs already.

        Raises:
            UsageError: there is none of that name.
        """
        with ExitStack() as unless:
            used = client or unless.enter_context(closing(engine.connect()))
            found = cls(used, existing.whole_cluster_of(used, existing.choose(used, name)))
            found._leaving = [] if client else [used.close]
            unless.pop_all()
        return found

    @property
    def name(self) -> str:
        """Its name."""
        return self.cluster.name

    @property
    def outcome(self) -> lifecycle.Outcome:
        """What the last check found; one that was attached to is checked when first asked."""
        if self._outcome is None:
            self.check()
            assert self._outcome
        return self._outcome

    def check(self) -> Report:
        """``testbed check``: probe all pairs, and capture between nodes."""
        self.refresh()
        self._outcome = lifecycle.check(self.client, self.name)
        return self._outcome.report

    def refresh(self) -> None:
        """Forget addresses, so that they are read anew: nodes or pods were restarted or changed."""
        self._snapshot = None
        self._node_addresses.clear()

    def status(self) -> dict[str, Any]:
        """``testbed status -o json``."""
        return existing.status(self.client, self.name)

    def apply(self, *manifests: str | Path | Mapping[str, Any]) -> Change:
        """``testbed apply``: create or change pods, Deployments, Services and EndpointSlices.

        Args:
            manifests: files, or objects as Python data.

        Raises:
            TopologyError: they are wrong; nothing was changed.
            NodeError: a node does not run, or could not hold them.
        """
        done = applying.apply(self.client, self.name, objects_of(manifests), quiet)
        return self._changed(done)

    def delete(self, *manifests: str | Path | Mapping[str, Any]) -> Change:
        """``testbed delete``: the opposite of :meth:`apply`.

        Raises:
            TopologyError: they are wrong, or something is not there; nothing was changed.
        """
        done = applying.delete(self.client, self.name, objects_of(manifests), quiet)
        return self._changed(done)

    def _changed(self, done: Change) -> Change:
        """Make handles anew."""
        self.refresh()
        self._hold(done.cluster)
        return done

    def down(self) -> None:
        """``testbed down``: remove it."""
        existing.down(self.client, self.name, quiet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for act in self._leaving:
            act()

    def __repr__(self) -> str:
        return f"<testbed {self.name}: {len(self.nodes)} nodes, {len(self.pods)} pods>"

    def capture(
        self,
        *where: Interface | Place | str,
        filter: str = "",  # noqa: A002 - the word of everybody who captures
    ) -> AbstractContextManager[Captured]:
        """Capture while the block runs; its packets can be asserted on when it has ended.

        Args:
            where: interfaces (``node1.uplink``, ``pod["eth0"]``), nodes and pods (their ``eth0``),
                or words as ``testbed capture`` takes them (``node1:flannel.1``). By default every
                node's uplink.
            filter: what to capture, in tcpdump's own language; by default everything.

        Raises:
            UsageError: an interface is not there, or the filter is wrong.
            NodeError: a node cannot be asked, or not everything of it came.
        """
        return captured(self, where, filter)

    def trace(
        self,
        source: Place | str,
        target: Place | Service | Address | str,
        *,
        tcp: int | None = None,
        udp: int | None = None,
        size: int = _SIZE,
        df: bool = False,
    ) -> Trace:
        """``testbed trace``: send one probe and follow it there and back.

        By default that is ICMP; to a Service it is what its first port is for.

        Args:
            source: a node, a router, a client or a pod, or its name.
            target: the same; a Service or ``svc/[namespace/]name``, which is the cluster IP for
                pods and nodes, and the load balancer's address or an external IP for others; or
                an address of any of them.
            tcp: the target's port, for a TCP connection.
            udp: the target's port, for a UDP datagram.
            size: bytes of payload, for ICMP and UDP.
            df: whether routers must not fragment it.

        Raises:
            UsageError: there is no such source or target, or such a probe cannot be sent.
        """
        within("size", size, 0, LARGEST)
        asked = tcp is not None or udp is not None
        protocol, port = protocol_of(tcp, udp) if asked else (None, None)
        return tracing.trace(
            self.client,
            self.name,
            str(source),
            str(target),
            protocol=protocol,
            port=port,
            size=size,
            dont_fragment=df,
        )[0]

    @property
    def snapshot(self) -> Snapshot:
        """What runs where, as last read."""
        if self._snapshot is None:
            self._snapshot = Snapshot.read(self.client, self.name)
        return self._snapshot

    def node_ip(self, name: str) -> IPv4Address:
        """A node's or router's address on the underlay.

        Raises:
            NodeError: it does not run.
        """
        address = self.snapshot.observed.node_ips.get(name)
        if address is None:
            raise NodeError(f"{name} of testbed {self.name} has no address: it does not run")
        return address

    def node_addresses(self, name: str) -> frozenset[Address]:
        """All global addresses of a node's or router's devices.

        Raises:
            NodeError: it does not run.
        """
        if name not in self._node_addresses:
            said = container.execute(self.client, f"{self.name}-{name}", ["ip", "-j", "address"])
            self._node_addresses[name] = frozenset(
                ip_address(address["local"])
                for link in json.loads(said)
                for address in link.get("addr_info", ())
                if address.get("scope") == "global"
            )
        return self._node_addresses[name]

    def pod_entry(self, key: str) -> Mapping[str, Any]:
        """What the agent says of a pod that has an address.

        Raises:
            NodeError: it has none.
        """
        for fresh in (False, True):
            if fresh:  # it may have got one since
                self.refresh()
            entry = self.snapshot.observed.pods.get(key, {})
            if entry.get("ip"):
                return entry
        state = entry.get("state", "not there")
        raise NodeError(f"pod {key} of testbed {self.name} has no address: it is {state}")

    def _node(self, name: str) -> Node:
        return Node(self, name, resolve(self.cluster, name))


def _key(name: str) -> str:
    return name if "/" in str(name) else f"default/{name}"
