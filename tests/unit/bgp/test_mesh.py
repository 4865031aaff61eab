"""Who speaks BGP with whom."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

from testbed.bgp import bird, mesh, router
from testbed.dataplane.spec import NodeSpec
from testbed.dataplane.underlay import Segment, Underlay
from testbed.topology.model import Backend, Cluster, Network, Node, Router

UNDERLAY = Underlay(
    {
        "rack1": Segment(IPv4Network("172.18.0.0/16")),
        "rack2": Segment(IPv4Network("172.19.0.0/16")),
    }
)
CLUSTER = Cluster(
    name="t",
    cni="calico",
    backend=Backend("none"),
    cluster_cidr=IPv4Network("10.244.0.0/16"),
    node_cidr_mask=26,
    service_cidr=IPv4Network("10.96.0.0/16"),
    nodes=tuple(
        Node(f"node{index + 1}", index, (IPv4Network(f"10.244.{index}.0/26"),), network=network)
        for index, network in enumerate(("rack1", "rack1", "rack2"))
    ),
    pods=(),
    networks=(Network("rack1"), Network("rack2")),
    routers=(
        Router("silent", 0, ("rack1", "rack2")),
        Router("tor1", 1, ("rack1", "rack2"), 64513),
        Router("tor2", 2, ("rack2",), 64514),
    ),
)


def peers(node: int, cluster: Cluster = CLUSTER) -> list[tuple[str, int]]:
    """Name and AS number of a node's peers."""
    speaker = mesh.speaker(cluster, cluster.nodes[node], UNDERLAY, tunnel="", programs_routes=True)
    return [(peer.name, peer.as_number) for peer in speaker.peers]


def planned(name: str) -> NodeSpec:
    """What a router holds."""
    here = next(each for each in CLUSTER.routers if each.name == name)
    return router.plan(CLUSTER, here, UNDERLAY)


def test_nodes_speak_with_all_others_and_the_routers_of_their_network() -> None:
    """Nodes in the mesh's own AS, wherever they are; routers without an AS number do not speak."""
    assert peers(0) == [
        ("Mesh_172_18_0_3", 64512),
        ("Mesh_172_19_0_4", 64512),
        ("Global_172_18_255_253", 64513),
    ]
    assert peers(2) == [
        ("Mesh_172_18_0_2", 64512),
        ("Mesh_172_18_0_3", 64512),
        ("Global_172_19_255_253", 64513),
        ("Global_172_19_255_252", 64514),
    ]


def test_options_of_the_backend_reach_bird() -> None:
    """CrossSubnet and the restart time; both are off by default."""
    options: dict[str, int | bool | str] = {"mode": "CrossSubnet", "max_restart_time": 5}
    cluster = replace(CLUSTER, backend=Backend("ipip", options))
    speaker = mesh.speaker(
        cluster, cluster.nodes[2], UNDERLAY, tunnel="tunl0", programs_routes=True
    )
    assert (speaker.cross_subnet, speaker.max_restart_time) == (True, 5)
    assert (str(speaker.address), str(speaker.subnet)) == ("172.19.0.4", "172.19.0.0/16")
    plain = mesh.speaker(CLUSTER, CLUSTER.nodes[0], UNDERLAY, tunnel="", programs_routes=True)
    assert (plain.cross_subnet, plain.max_restart_time) == (False, None)


def test_a_router_without_an_as_number_only_forwards() -> None:
    """No file, no process."""
    assert planned("silent") == NodeSpec("t", "silent", sysctls={"net.ipv4.ip_forward": "1"})


def test_a_router_waits_for_the_nodes_of_its_networks() -> None:
    """Each by the address on its own network."""
    text = planned("tor1").files[0].content
    for name, address in (
        ("Node_172_18_0_2", "172.18.0.2"),
        ("Node_172_18_0_3", "172.18.0.3"),
        ("Node_172_19_0_4", "172.19.0.4"),
    ):
        assert f"protocol bgp {name} from nodes {{\n  neighbor {address} as 64512;\n" in text
    assert "local as 64513;" in text
    text = planned("tor2").files[0].content
    assert text.count("protocol bgp ") == 1
    assert "router id 172.19.255.252;" in text


def test_a_router_s_bird_reads_its_one_file() -> None:
    """And is started as on a node."""
    spec = planned("tor1")
    (process,) = spec.processes
    assert process.files == tuple(file.path for file in spec.files)
    assert process.argv == bird.process().argv
