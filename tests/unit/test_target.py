"""Finding nodes and pods by what a user types."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.plan import cnis
from testbed.target import Target, resolve
from testbed.topology.load import load
from testbed.topology.model import Router

CLUSTER = load(Path(__file__).parents[2] / "compose" / "flannel-pods.yaml", cnis=cnis())
ROUTED = replace(CLUSTER, routers=(Router("tor", 0, ("default",)),))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node2", Target("flannel-pods-node2")),
        ("web", Target("flannel-pods-node1", "default/web")),
        ("default/web", Target("flannel-pods-node1", "default/web")),
        ("web:nginx", Target("flannel-pods-node1", "default/web:nginx")),
        ("kube-system/on-the-node", Target("flannel-pods-node3", "kube-system/on-the-node")),
    ],
)
def test_targets(text: str, expected: Target) -> None:
    """NODE, POD, NAMESPACE/POD and POD:CONTAINER."""
    assert resolve(CLUSTER, text) == expected


def test_a_router_is_a_target_like_a_node() -> None:
    """Its commands run in its container as they are."""
    assert resolve(ROUTED, "tor") == Target("flannel-pods-tor")
    with pytest.raises(UsageError, match="routers: tor\n"):
        resolve(ROUTED, "nope")


def test_an_unknown_target_lists_what_there_is() -> None:
    """Nodes and pods, so that the next attempt succeeds."""
    with pytest.raises(UsageError) as caught:
        resolve(CLUSTER, "nope")
    assert "nodes: node1, node2, node3" in str(caught.value)
    assert "kube-system/on-the-node" in str(caught.value)
    assert "routers" not in str(caught.value)


def test_an_unknown_container_lists_the_pods_own() -> None:
    """Not those of other pods."""
    with pytest.raises(UsageError, match=r"no container 'x'; it has nginx, probe"):
        resolve(CLUSTER, "web:x")


def test_commands_run_in_the_node_or_through_the_agent() -> None:
    """A node's command is run as it is."""
    assert resolve(CLUSTER, "node1").argv(["ip", "route"]) == ["ip", "route"]
    assert resolve(CLUSTER, "web").argv(["ls"], tty=True) == [
        "testbed-agent",
        "exec",
        "--tty",
        "default/web",
        "--",
        "ls",
    ]
