"""What ``status -v`` asks of the nodes, and how BIRD's words are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import NodeError
from testbed.node import details
from testbed.plan import cnis
from testbed.topology.load import load
from testbed.topology.model import Backend

SHOWN = """\
BIRD 2.0.12 ready.
Name       Proto      Table      State  Since         Info
static1    Static     master4    up     12:18:29.436  
Mesh_172_18_0_3 BGP        ---        up     12:18:30.123  Established   
Mesh_172_18_0_4 BGP        ---        start  2025-01-31    Active        Socket: Connection refused
"""  # noqa: W291  # as birdc prints it
CLUSTER = replace(
    load(Path(__file__).parents[3] / "compose" / "flannel.yaml", cnis=cnis()),
    cni="calico",
    backend=Backend("ipip"),
    ipip="ebpf",
)
BIRD = {"phase": "ready", "processes": [{"name": "bird", "state": "Running"}]}
STATES = {"node1": BIRD, "node2": {"phase": "ready"}, "node3": BIRD}
LISTINGS = {
    "node1": {"Id": "1", "State": "running"},
    "node2": {"Id": "2", "State": "running"},
    "node3": {"Id": "3", "State": "exited"},
}


class Nodes:
    """Nodes that answer commands; those in ``broken`` fail."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.broken: set[tuple[str, str]] = set()

    def run(self, client: Any, container: str, argv: list[str]) -> tuple[int, bytes, bytes]:
        """As :func:`testbed.node.container.run`."""
        del client
        asked = (container, argv[0])
        self.asked.append(asked)
        if asked in self.broken:
            return 1, b"", b"Unable to connect to server control socket\n"
        if argv[0] == "birdc":
            return 0, SHOWN.encode(), b""
        return 0, b'{"driver": "ebpf", "counters": {"encapsulated": 1}}', b""


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """Nodes that answer."""
    made = Nodes()
    monkeypatch.setattr(details, "run", made.run)
    return made


def test_sessions_are_rows_of_birds_table() -> None:
    """The last column may have several words, or none."""
    rows = details.sessions(SHOWN)
    assert [(row["name"], row["state"], row["info"]) for row in rows] == [
        ("static1", "up", ""),
        ("Mesh_172_18_0_3", "up", "Established"),
        ("Mesh_172_18_0_4", "start", "Active        Socket: Connection refused"),
    ]
    assert list(rows[0]) == ["name", "proto", "table", "state", "since", "info"]
    assert rows[2]["since"] == "2025-01-31"


def test_only_those_that_can_answer_are_asked(nodes: Nodes) -> None:
    """Running nodes with an eBPF tunnel; of BIRD those that run one."""
    found = details.read(None, CLUSTER, LISTINGS, STATES)  # type: ignore[arg-type]  # not used
    assert sorted(nodes.asked) == [("1", "birdc"), ("1", "testbed-agent"), ("2", "testbed-agent")]
    assert found["ipip_counters"] == {"node1": {"encapsulated": 1}, "node2": {"encapsulated": 1}}
    assert list(found["bgp"]) == ["node1"]
    assert found["processes"] == {"node1": BIRD["processes"]}
    assert found["errors"] == []


def test_the_kernels_tunnels_have_no_counters_of_ours(nodes: Nodes) -> None:
    """``ip -s link`` has them."""
    cluster = replace(CLUSTER, ipip="kernel")
    found = details.read(None, cluster, LISTINGS, STATES)  # type: ignore[arg-type]  # not used
    assert found["ipip_counters"] == {}
    assert nodes.asked == [("1", "birdc")]


def test_who_does_not_answer_is_named(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' answers are shown all the same."""
    nodes.broken = {("1", "birdc")}
    found = details.read(None, CLUSTER, LISTINGS, STATES)  # type: ignore[arg-type]  # not used
    assert found["bgp"] == {}
    assert len(found["ipip_counters"]) == 2
    assert found["errors"] == [
        "node1: `birdc -s /var/run/calico/bird.ctl show protocols` failed (1): "
        "Unable to connect to server control socket"
    ]

    def gone(*words: object) -> None:
        raise NodeError("the node stopped meanwhile")

    monkeypatch.setattr(details, "run", gone)
    found = details.read(None, CLUSTER, LISTINGS, STATES)  # type: ignore[arg-type]  # not used
    assert sorted(found["errors"])[0] == "node1: the node stopped meanwhile"
