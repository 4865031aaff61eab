"""What the command line says instead of the file."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.errors import TopologyError
from testbed.topology.load import Overrides, from_dict
from testbed.topology.model import Cluster
from tests.unit.topology.strategies import CNIS


def data(*names: str, **x_testbed: Any) -> dict[str, Any]:
    """A minimal topology."""
    services = {name: {"image": "testbed-node"} for name in names or ("node1", "node2", "node3")}
    return {"services": services, "x-testbed": {"cni": "flannel", **x_testbed}}


def made(overrides: Overrides, **x_testbed: Any) -> Cluster:
    """A minimal cluster."""
    return from_dict(data(**x_testbed), overrides, cnis=CNIS)


def refused(topology: dict[str, Any], overrides: Overrides) -> str:
    """The whole message about overrides that do not fit."""
    with pytest.raises(TopologyError) as raised:
        from_dict(topology, overrides, cnis=CNIS)
    return str(raised.value)


def test_name_override() -> None:
    """The command line wins."""
    assert made(Overrides(name="other"), name="lab").name == "other"


def test_pods_per_node_override() -> None:
    """The command line wins, also with nothing."""
    assert len(made(Overrides(pods_per_node=4)).pods) == 12
    assert made(Overrides(pods_per_node=0), default_pods=9).pods == ()


def test_ipip_override() -> None:
    """The command line wins, for backends that have such tunnels."""
    made_here = made(Overrides(ipip="ebpf"), cni="calico", backend="ipip", ipip="kernel")
    assert made_here.ipip == "ebpf"
    assert made(Overrides(), cni="calico").ipip == "auto"
    message = refused(data(backend="host-gw"), Overrides(ipip="auto"))
    assert message == "--ipip: backend host-gw has no IP-in-IP tunnels; remove it"
    message = refused(data(backend="ipip"), Overrides(ipip="Kernel"))
    assert message == '--ipip: "Kernel" is not supported; write auto, kernel or ebpf'


def test_proxy_override() -> None:
    """The command line wins; kube-proxy's own default is iptables."""
    assert made(Overrides()).proxy == "iptables"
    assert made(Overrides(), proxy="none").proxy == "none"
    assert made(Overrides(proxy="nftables"), proxy="none").proxy == "nftables"
    assert refused(data(), Overrides(proxy="nft")) == (
        '--proxy: kube-proxy has no mode "nft"; its modes: iptables, ipvs, nftables, none'
    )
    cluster = from_dict(data(proxy="ebpf"), cnis=CNIS, proxies=("ebpf", "none"))
    assert cluster.proxy == "ebpf"


@pytest.mark.parametrize(
    ("services", "count", "expected"),
    [
        (("node1", "node2", "node3"), 2, ["node1", "node2"]),
        (("node1", "node2"), 4, ["node1", "node2", "node3", "node4"]),
        (("node08", "node09"), 4, ["node08", "node09", "node10", "node11"]),
        (("control", "worker"), 4, ["control", "worker", "worker2", "worker3"]),
        (("n3", "n1"), 4, ["n3", "n1", "n2", "n4"]),
    ],
)
def test_nodes_override(services: tuple[str, ...], count: int, expected: list[str]) -> None:
    """Keeps the first services, or goes on with the last one's naming."""
    cluster = from_dict(data(*services), Overrides(nodes=count), cnis=CNIS)
    assert [node.name for node in cluster.nodes] == expected


def test_a_pod_on_a_dropped_node_is_refused() -> None:
    """The message says which option dropped the node."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"nodeName": "node3", "containers": [{"name": "c", "image": "netexec"}]},
    }
    assert refused(data(manifests=[pod]), Overrides(nodes=2)) == (
        'topology: spec.nodeName: pod default/web wants node "node3", but --nodes 2 leaves it out; '
        "the nodes are node1, node2"
    )


def test_overrides_are_validated_together_with_the_file() -> None:
    """Every problem at once, each at the option it comes from."""
    message = refused(data(), Overrides(name="A", nodes=0, pods_per_node=-1))
    assert message == (
        '--name: "A" is not a DNS label (RFC 1123); use lower-case letters, digits and "-", '
        "beginning and ending with a letter or digit\n"
        "--nodes: 0 nodes are out of range; use 1 to 1023, the ports of a Linux bridge\n"
        "--pods-per-node: -1 is out of range; use 0 to 65536"
    )


def test_overrides_that_do_not_fit_the_addresses() -> None:
    """Too many nodes for the cluster CIDR, too many pods for a node's."""
    assert "has subnets of /24 for 256 of 257 nodes" in refused(data(), Overrides(nodes=257))
    message = refused(data(), Overrides(pods_per_node=254))
    assert message.startswith("--pods-per-node: 254 default pods do not fit on node1")
    message = refused(data(), Overrides(name="a" * 60))
    assert message.startswith('--name: the container of node "node1" would be called')
