"""Loading whole topologies."""

from __future__ import annotations

import sys
from io import BytesIO, TextIOWrapper
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from testbed.errors import TopologyError
from testbed.topology.cnis import Traits
from testbed.topology.load import from_dict, load, objects
from testbed.topology.model import Cluster, Container, ContainerPort, Network, Pod
from tests.unit.topology.strategies import CNIS, clusters


def data(*names: str, **x_testbed: Any) -> dict[str, Any]:
    """A minimal topology."""
    services = {name: {"image": "testbed-node"} for name in names or ("node1", "node2", "node3")}
    return {"services": services, "x-testbed": {"cni": "flannel", **x_testbed}}


def made(**x_testbed: Any) -> Cluster:
    """A minimal cluster."""
    return from_dict(data(**x_testbed), cnis=CNIS)


def a_pod(name: str, **spec: Any) -> dict[str, Any]:
    """A manifest."""
    containers = [{"name": "c", "image": "netexec"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": containers, **spec},
    }


def test_defaults() -> None:
    """What a topology is that says nothing but its CNI and its nodes."""
    cluster = made()
    assert (cluster.name, cluster.cni) == ("topology", "flannel")
    assert cluster.networks == (Network("default"),)
    assert (cluster.backend.type, cluster.backend.options) == ("vxlan", {})
    assert str(cluster.cluster_cidr) == "10.244.0.0/16"
    assert str(cluster.service_cidr) == "10.96.0.0/16"
    assert [(node.name, node.index, str(node.pod_cidr)) for node in cluster.nodes] == [
        ("node1", 0, "10.244.0.0/24"),
        ("node2", 1, "10.244.1.0/24"),
        ("node3", 2, "10.244.2.0/24"),
    ]
    assert cluster.nodes[0].labels == {
        "kubernetes.io/hostname": "node1",
        "kubernetes.io/os": "linux",
    }


def test_default_pods() -> None:
    """Two netexec pods a node, node by node."""
    cluster = made()
    assert [(pod.name, pod.node) for pod in cluster.pods] == [
        (f"netexec-node{node}-{number}", f"node{node}") for node in (1, 2, 3) for number in (1, 2)
    ]
    assert cluster.pods[0] == Pod(
        namespace="default",
        name="netexec-node1-1",
        node="node1",
        containers=(
            Container(
                name="netexec",
                image="netexec",
                argv=("/usr/local/bin/netexec",),
                ports=(ContainerPort(8080, "TCP", "http"), ContainerPort(8081, "UDP", "udp")),
            ),
        ),
        labels={"app": "netexec"},
        hostname="netexec-node1-1",
    )


def test_manifests_come_before_default_pods() -> None:
    """Both are there, and the default ones count when the scheduler spreads the others."""
    pods = made(manifests=[a_pod("b"), a_pod("a")], default_pods=1).pods
    assert [pod.name for pod in pods[:3]] == ["b", "a", "netexec-node1-1"]
    assert [pod.node for pod in pods[:2]] == ["node1", "node2"]


def test_no_pods_at_all() -> None:
    """``default_pods: 0`` leaves the nodes empty."""
    assert made(default_pods=0).pods == ()


def test_backend_as_a_name_and_as_a_mapping() -> None:
    """Options keep the topology's spelling and their types."""
    assert made(backend="host-gw").backend.type == "host-gw"
    backend = made(backend={"type": "vxlan", "vni": 7, "direct_routing": True}).backend
    assert (backend.type, backend.options) == ("vxlan", {"vni": 7, "direct_routing": True})


def test_a_cni_without_backends() -> None:
    """Its backend has no name."""
    topology = data(cni="plain")
    assert from_dict(topology, cnis={"plain": Traits({})}).backend.type == ""


def test_underlay_and_node_settings() -> None:
    """A network of any name, a node's labels and its own pod CIDR."""
    topology = data("a", "b")
    topology["networks"] = {"lan": {"ipam": {"config": [{"subnet": "172.30.0.0/24"}]}}}
    for service in topology["services"].values():
        service["networks"] = ["lan"]
    topology["services"]["b"]["x-testbed"] = {
        "labels": {"disk": "ssd"},
        "pod_cidr": "10.244.0.0/25",
    }
    cluster = from_dict(topology, cnis=CNIS)
    assert cluster.networks == (Network("lan", IPv4Network("172.30.0.0/24")),)
    assert [str(node.pod_cidr) for node in cluster.nodes] == ["10.244.1.0/24", "10.244.0.0/25"]
    assert cluster.node("b").labels["disk"] == "ssd"


def test_name_comes_from_x_testbed_or_compose_or_the_file() -> None:
    """In this order."""
    assert made(name="lab").name == "lab"
    assert from_dict({**data(), "name": "lab"}, cnis=CNIS).name == "lab"
    assert from_dict(data(), cnis=CNIS, path=Path("some/lab.test.yaml")).name == "lab"


def test_a_service_without_settings_and_extensions() -> None:
    """Anchors, merge keys and foreign ``x-`` keys are Compose, and welcome."""
    topology = data()
    topology |= {"x-anchors": {"a": 1}, "version": "3.9", "networks": None}
    topology["services"]["node1"] |= {"x-note": 1, "hostname": "node1", "networks": ["default"]}
    assert len(from_dict(topology, cnis=CNIS).nodes) == 3


def test_messages_name_files_as_the_user_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative below the working directory, absolute elsewhere."""
    path = tmp_path / "sub" / "lab.yaml"
    path.parent.mkdir()
    path.write_text("services: {a: {image: testbed-node}}\n")
    monkeypatch.chdir(tmp_path)
    for given_path in (path, Path("sub/lab.yaml")):
        with pytest.raises(TopologyError, match=r"^sub/lab\.yaml:1: x-testbed: missing"):
            load(given_path, cnis=CNIS)
    monkeypatch.chdir("/")
    with pytest.raises(TopologyError, match=r"sub/lab\.yaml:1: x-testbed: missing"):
        load(path, cnis=CNIS)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and a directory are problems like any other."""
    with pytest.raises(TopologyError, match="there is no file"):
        load(tmp_path / "none.yaml", cnis=CNIS)
    with pytest.raises(TopologyError, match="is a directory"):
        load(tmp_path, cnis=CNIS)
    with pytest.raises(TopologyError, match="cannot be read: File name too long"):
        load(tmp_path / ("a" * 300), cnis=CNIS)


def test_only_a_mapping_is_a_topology() -> None:
    """Also when it is data already."""
    with pytest.raises(TopologyError, match="the document must be a mapping"):
        from_dict([], cnis=CNIS)  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(clusters())
def test_every_cluster_is_consistent(cluster: Cluster) -> None:
    """Pods are on nodes, names are unique, pod CIDRs are disjoint parts of the cluster's."""
    names = {node.name for node in cluster.nodes}
    assert {pod.node for pod in cluster.pods} <= names
    assert len({pod.key for pod in cluster.pods}) == len(cluster.pods)
    assert [node.index for node in cluster.nodes] == list(range(len(names)))
    for node in cluster.nodes:
        assert node.pod_cidr.subnet_of(cluster.cluster_cidr)
        others = [other for other in cluster.nodes if other is not node]
        assert not any(node.pod_cidr.overlaps(other.pod_cidr) for other in others)
        ports = [
            (port.host_port, port.protocol)
            for pod in cluster.pods_on(node.name)
            for container in pod.containers
            for port in container.ports
            if port.host_port
        ]
        assert len(set(ports)) == len(ports)


def test_manifests_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and standard input, with every problem of all of them."""
    (tmp_path / "a.yaml").write_text("a: 1\n---\nb: 2\n")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"c: 3\n")))
    found = objects(["a.yaml", "-"])
    assert [(value.place.file, value.place.line) for _, value in found] == [
        ("a.yaml", 1),
        ("a.yaml", 3),
        ("standard input", 1),
    ]
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"\xff")))
    with pytest.raises(TopologyError) as raised:
        objects(["none.yaml", "empty.yaml", "-"])
    assert str(raised.value) == (
        '-f: manifest: there is no file "none.yaml"; check the path\n'
        "empty.yaml: the file is empty; write a Kubernetes manifest\n"
        "standard input: not UTF-8 text; convert it to UTF-8"
    )
