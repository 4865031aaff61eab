"""A testbed without containers: flannel's topology, with addresses as its nodes would say them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from testbed.api import place
from testbed.api.snapshot import Snapshot
from testbed.api.testbed import Testbed
from testbed.node import container
from testbed.plan import cnis
from testbed.topology.load import Overrides, load
from testbed.topology.model import Cluster
from testbed.verify.observed import Observed

TOPOLOGY = Path(__file__).parents[2] / "live" / "topologies" / "pods.yaml"
POD, THERE = "default/netexec-node1-1", "default/netexec-node2-1"
NODE_ADDRESSES = [
    {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "scope": "host"}]},
    {
        "ifname": "eth0",
        "addr_info": [
            {"local": "172.18.0.2", "scope": "global"},
            {"local": "fe80::1", "scope": "link"},
        ],
    },
    {"ifname": "flannel.1", "addr_info": [{"local": "10.244.0.0", "scope": "global"}]},
]


def cluster(name: str = "made", nodes: int = 2) -> Cluster:
    """Two nodes with default pods, and one in its node's network namespace if there are three."""
    return load(TOPOLOGY, Overrides(name=name, nodes=nodes), cnis=cnis())


@dataclass
class Engine:
    """Answers for commands in containers; what was run is remembered."""

    answers: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    ran: list[tuple[str, list[str]]] = field(default_factory=list)

    def run(
        self, client: Any, where: str, argv: list[str], seconds: float = 0
    ) -> tuple[int, bytes, bytes]:
        """Instead of :func:`testbed.node.container.run`."""
        del client, seconds
        self.ran.append((where, argv))
        if argv == ["ip", "-j", "address"]:
            return 0, json.dumps(NODE_ADDRESSES).encode(), b""
        return self.answers.pop(0)


@dataclass
class Reading:
    """What is read when a testbed is asked for addresses."""

    snapshot: Snapshot
    times: int = 0

    def read(self, client: Any, name: str) -> Snapshot:
        """Instead of :meth:`Snapshot.read`."""
        del client, name
        self.times += 1
        return self.snapshot


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """No Docker."""
    fake = Engine()
    monkeypatch.setattr(place, "run", fake.run)
    monkeypatch.setattr(container, "run", fake.run)
    return fake


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    """Both nodes run, and the first pod of each."""
    pods: dict[str, dict[str, Any]] = {
        POD: {"ip": "10.244.0.2", "host_interface": "veth1", "state": "Running"},
        THERE: {"ip": "10.244.1.2", "host_interface": "veth2", "state": "Running"},
        "default/on-the-node": {"ip": "172.18.0.4", "host_interface": None, "state": "Running"},
    }
    nodes = {f"node{number}": IPv4Address(f"172.18.0.{number + 1}") for number in (1, 2, 3)}
    containers = {node: f"made-{node}" for node in nodes}
    fake = Reading(Snapshot(containers, Observed(nodes, pods)))
    monkeypatch.setattr(Snapshot, "read", fake.read)
    return fake


@pytest.fixture
def made(engine: Engine, reading: Reading) -> Testbed:
    """Three nodes."""
    return Testbed(None, cluster(nodes=3))  # type: ignore[arg-type]  # nobody asks an engine
