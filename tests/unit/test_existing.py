"""The status of a testbed: the topology, the engine's listing and the agents' states, joined."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from testbed import lifecycle
from testbed.dataplane.underlay import Segment
from testbed.existing import describe
from testbed.plan import cnis
from testbed.topology.load import load
from testbed.topology.model import Backend, Client, Cluster, Network, Router

SEGMENTS = {
    "rack1": Segment(IPv4Network("172.18.0.0/16"), identity="net1"),
    "rack2": Segment(IPv4Network("172.19.0.0/16"), identity="net2"),
}


def racks() -> Cluster:
    """Two nodes on two networks, a router, no pods."""
    flannel = load(Path(__file__).parents[2] / "compose" / "flannel.yaml", cnis=cnis())
    node1, node2, _ = flannel.nodes
    return replace(
        flannel,
        nodes=(replace(node1, network="rack1"), replace(node2, network="rack2")),
        pods=(),
        networks=(Network("rack1"), Network("rack2")),
        routers=(Router("tor", 0, ("rack1", "rack2")),),
    )


def running(name: str, **addresses: str) -> dict[str, Any]:
    """A container that runs, as the engine lists it."""
    endpoints = {
        network: {"NetworkID": network, "IPAddress": address}
        for network, address in addresses.items()
    }
    return {
        "Names": [f"/flannel-{name}"],
        "State": "running",
        "NetworkSettings": {"Networks": endpoints},
    }


LISTINGS = {
    "node1": running("node1", net1="172.18.0.2"),
    "node2": running("node2", net2="172.19.0.3"),
    "tor": running("tor", net2="172.19.255.254", net1="172.18.255.254"),
}
READY: dict[str, Any] = {name: {"phase": "ready"} for name in LISTINGS}


def test_routers_have_their_addresses_in_the_order_of_their_networks() -> None:
    """Whatever the engine's order is; nodes have one address."""
    status = describe(racks(), SEGMENTS, LISTINGS, READY, {})
    assert status["state"] == "ready"
    assert [node["ip"] for node in status["nodes"]] == ["172.18.0.2", "172.19.0.3"]
    assert status["networks"] == [
        {"name": "rack1", "subnet": "172.18.0.0/16"},
        {"name": "rack2", "subnet": "172.19.0.0/16"},
    ]
    assert status["routers"] == [
        {
            "name": "tor",
            "container": "flannel-tor",
            "ips": ["172.18.255.254", "172.19.255.254"],
            "state": "ready",
        }
    ]


def test_a_router_that_does_not_run_degrades_the_testbed() -> None:
    """Also one that is gone; its networks may be gone, too."""
    stopped = {**LISTINGS, "tor": {**running("tor"), "State": "exited"}}
    status = describe(racks(), SEGMENTS, stopped, READY, {})
    assert (status["state"], status["routers"][0]["state"]) == ("degraded", "stopped")
    gone = {name: item for name, item in LISTINGS.items() if name != "tor"}
    status = describe(racks(), {}, gone, READY, {})
    assert status["networks"][0] == {"name": "rack1", "subnet": ""}
    assert status["routers"] == [{"name": "tor", "container": "", "ips": [], "state": "missing"}]
    assert status["state"] == "degraded"


def test_clients_are_part_of_the_state() -> None:
    """One that does not run degrades the testbed, as a router does."""
    cluster = replace(racks(), clients=(Client("outside", 0, "rack1"),))
    there = {**LISTINGS, "outside": running("outside", net1="172.18.255.253")}
    status = describe(cluster, SEGMENTS, there, {**READY, "outside": {"phase": "ready"}}, {})
    assert status["clients"] == [
        {
            "name": "outside",
            "container": "flannel-outside",
            "ip": "172.18.255.253",
            "state": "ready",
        }
    ]
    assert status["state"] == "ready"
    assert describe(cluster, SEGMENTS, LISTINGS, READY, {})["state"] == "degraded"


def test_a_check_counts_a_router_like_a_node() -> None:
    """A finding says why it is not ready."""
    routers = [{"name": "a", "state": "ready"}, {"name": "b", "state": "stopped"}]
    findings = list(lifecycle.judge_routers(routers))
    assert [(each.kind, each.target, each.ok, each.detail) for each in findings] == [
        ("node", "a", True, ""),
        ("node", "b", False, "the router is stopped"),
    ]


def test_the_ipip_driver_is_told_where_there_are_tunnels() -> None:
    """And nowhere else."""
    cluster = replace(racks(), ipip="ebpf")
    assert describe(cluster, SEGMENTS, LISTINGS, READY, {})["ipip"] == ""
    tunnels = replace(cluster, backend=Backend("ipip"))
    assert describe(tunnels, SEGMENTS, LISTINGS, READY, {})["ipip"] == "ebpf"


def test_several_pod_cidrs_are_joined() -> None:
    """The IPAM blocks of a Calico node."""
    cluster = racks()
    blocks = IPv4Network("10.244.0.0/26"), IPv4Network("10.244.9.64/26")
    cluster = replace(cluster, nodes=(replace(cluster.nodes[0], pod_cidrs=blocks),))
    status = describe(cluster, SEGMENTS, LISTINGS, READY, {})
    assert status["nodes"][0]["pod_cidr"] == "10.244.0.0/26,10.244.9.64/26"
