"""What ``testbed apply`` makes of a cluster that runs."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.errors import TopologyError
from testbed.topology.changes import applied
from testbed.topology.cnis import Traits
from testbed.topology.model import Cluster
from tests.unit.topology.reading import made, objects, service

BLOCKS = Traits({}, blocks=True, tunnels=frozenset({"ipip"}))


def pod(name: str, spec: str = "", metadata: str = "") -> str:
    """A pod's document; ``spec`` goes inside a flow mapping, before the containers."""
    head = f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}{metadata}}}\n"
    return head + f"spec: {{{spec}containers: [{{name: c, image: netexec}}]}}\n"


def deployment(replicas: int, image: str = "netexec", name: str = "web") -> str:
    """A Deployment's document."""
    return (
        f"---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\n"
        f"spec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n"
        f"  template:\n    metadata: {{labels: {{app: {name}}}}}\n"
        f"    spec: {{containers: [{{name: c, image: {image}}}]}}\n"
    )


def after(cluster: Cluster, *texts: str, traits: Traits | None = None) -> Cluster:
    """The cluster with manifests applied."""
    documents = objects("".join(texts))
    return applied(cluster, documents, traits=traits) if traits else applied(cluster, documents)


def refused(cluster: Cluster, *texts: str) -> str:
    """What is said about manifests that do not fit."""
    with pytest.raises(TopologyError) as raised:
        after(cluster, *texts)
    return str(raised.value)


def names(cluster: Cluster) -> list[str]:
    """The pods' names."""
    return [each.name for each in cluster.pods]


def test_the_same_again_changes_nothing() -> None:
    """Applying twice is applying once."""
    everything = (pod("a"), deployment(3), service("s", "type: NodePort, ports: [{port: 80}]"))
    once = after(made(), *everything)
    assert after(once, *everything) == once
    assert after(once, *reversed(everything)) == once


def test_new_pods_go_where_there_is_room() -> None:
    """Pods that run are counted; they keep their places."""
    cluster = after(made(), pod("a"), pod("b", "nodeName: node1, "), pod("c", "nodeName: node1, "))
    more = after(cluster, pod("d"), pod("e"))
    assert more.pods[:3] == cluster.pods
    assert Counter(each.node for each in more.pods) == {"node1": 3, "node2": 2}


def test_a_changed_pod_stays_on_its_node() -> None:
    """Unless its manifest now says otherwise."""
    cluster = after(made(), pod("a"), pod("b"))
    assert [each.node for each in cluster.pods] == ["node1", "node2"]
    changed = after(cluster, pod("b", metadata=", labels: {x: y}"))
    assert [each.node for each in changed.pods] == ["node1", "node2"]
    assert changed.pods[1].labels == {"x": "y"}
    assert after(cluster, pod("b", "nodeName: node1, ")).pods[1].node == "node1"
    selector = "nodeSelector: {kubernetes.io/hostname: node1}, "
    assert after(cluster, pod("b", selector)).pods[1].node == "node1"


def test_host_ports_of_running_pods_are_taken() -> None:
    """The message names the pod that has the port."""
    web = pod("web", "hostNetwork: true, nodeName: node1, ").replace(
        "image: netexec", "image: nginx, ports: [{containerPort: 80}]"
    )
    cluster = after(made(), web)
    other = web.replace("name: web", "name: web2")
    assert refused(cluster, other) == (
        "f.yaml:5: pod default/web2: port 80/TCP of node1 is taken by pod default/web (running); "
        "choose another port or node"
    )


def test_scaling() -> None:
    """Pods that are still wanted stay as they are, on their nodes."""
    two = after(made(), pod("a"), deployment(2))
    four = after(two, deployment(4))
    assert four.pods[:3] == two.pods
    assert len(four.pods) == 5
    assert after(four, deployment(2)) == two
    assert names(after(four, deployment(0))) == ["a"]


def test_another_template_replaces_the_pods() -> None:
    """All of them, and no others."""
    before = after(made(), deployment(2), deployment(1, name="db"))
    now = after(before, deployment(2, image="redis"))
    assert {each.containers[0].image for each in now.pods if each.owner == "web"} == {"redis"}
    assert [each for each in now.pods if each.owner == "db"] == [before.pods[2]]
    assert len(now.pods) == 3


def test_nodes_keep_their_addresses() -> None:
    """A node that runs gets no more, and what runs already always fits."""
    cluster = made(cluster_cidr="10.0.0.0/28", node_cidr_mask=29)
    full = after(cluster, deployment(10))
    assert after(full, deployment(10)) == full
    assert "no address is left in 10.0.0.0/29" in refused(full, deployment(11))
    assert refused(full, pod("a", "nodeName: node2, ")) == (
        "f.yaml:5: pod default/a finds no address on node2: the 10.0.0.8/29 that it has number 5 "
        "pods, and a running node gets no more; move pods or use a topology with more addresses, "
        "and `testbed up`"
    )


def test_every_address_of_a_block_counts() -> None:
    """But those of a tunnel, and those that other nodes have borrowed."""
    backend = {"type": "ipip", "block_size": 29}
    cluster = made(cni="calico", backend=backend, cluster_cidr="10.0.0.0/28")
    assert all(len(node.pod_cidrs) == 1 for node in cluster.nodes)
    full = after(cluster, deployment(14), traits=BLOCKS)
    assert [node.pod_cidrs for node in full.nodes] == [node.pod_cidrs for node in cluster.nodes]
    with pytest.raises(TopologyError, match="no address is left"):
        after(full, deployment(15), traits=BLOCKS)


def test_a_service_keeps_what_was_chosen_for_it() -> None:
    """Whatever else the manifest changes."""
    spec = "type: LoadBalancer, externalTrafficPolicy: Local, "
    ports = "{name: a, port: 80}, {name: b, port: 81}"
    cluster = after(made(), service("x", f"{spec}ports: [{ports}]"), service("y"))
    x, y = cluster.services
    assert (x.cluster_ip, x.health_check_node_port) == (IPv4Address("10.96.0.11"), 30002)
    changed = after(cluster, service("x", f"{spec}ports: [{{name: c, port: 82}}, {ports}]"))
    now, unchanged = changed.services
    assert unchanged == y
    assert now.cluster_ip == x.cluster_ip
    assert now.health_check_node_port == 30002
    assert {port.name: port.node_port for port in now.ports} == {"a": 30000, "b": 30001, "c": 30003}
    (plain, _) = after(changed, service("x", "ports: [{port: 80}]")).services
    assert (plain.type, plain.cluster_ip) == ("ClusterIP", x.cluster_ip)
    assert (plain.ports[0].node_port, plain.health_check_node_port) == (None, None)


def test_a_node_port_may_be_chosen_later() -> None:
    """The manifest's word is stronger than what was chosen."""
    cluster = after(made(), service("x", "type: NodePort, ports: [{port: 80}]"))
    now = after(cluster, service("x", "type: NodePort, ports: [{port: 80, nodePort: 32000}]"))
    assert now.services[0].ports[0].node_port == 32000


def test_a_cluster_ip_is_for_life() -> None:
    """As in Kubernetes, where the field is immutable."""
    cluster = after(made(), service("x"), service("h", "clusterIP: None"))
    message = refused(cluster, service("x", "clusterIP: 10.96.0.99, ports: [{port: 80}]"))
    assert message == (
        "f.yaml:5: spec.clusterIP of Service default/x is 10.96.0.11, and a Service keeps it for "
        "life; remove it here, or `testbed delete` the Service first"
    )
    assert "keeps it for life" in refused(cluster, service("x", "clusterIP: None"))
    assert after(cluster, service("h", "ports: [{port: 80}]")).services[1].cluster_ip is None
    assert "cannot become type NodePort" in refused(
        cluster, service("h", "type: NodePort, ports: [{port: 80}]")
    )


def test_new_services_find_what_is_free() -> None:
    """Addresses and ports of those that run are taken."""
    cluster = after(made(), service("x", "type: NodePort, ports: [{port: 80}]"))
    now = after(cluster, service("y", "type: NodePort, ports: [{port: 80}]"))
    assert now.services[1].cluster_ip == IPv4Address("10.96.0.12")
    assert now.services[1].ports[0].node_port == 30001
    message = refused(cluster, service("y", "ports: [{port: 80}], clusterIP: 10.96.0.11"))
    assert "10.96.0.11 is that of Service default/x; choose another" in message


def test_slices_are_replaced() -> None:
    """By namespace and name."""
    text = (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
        "metadata: {name: s, labels: {kubernetes.io/service-name: web}}\n"
        "endpoints: [{addresses: [10.0.0.1], nodeName: node1}]\n"
    )
    cluster = after(made(), text)
    assert cluster.slices[0].endpoints[0].node == "node1"
    now = after(cluster, text.replace("10.0.0.1", "10.0.0.2"))
    assert [str(each.endpoints[0].address) for each in now.slices] == ["10.0.0.2"]
    assert "there is no such node" in refused(cluster, text.replace("node1", "node7"))


def test_namespaces_that_something_is_in() -> None:
    """They exist; others are declared, as with any manifest."""
    namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
    cluster = after(made(), namespace, service("x", namespace="shop"))
    assert len(after(cluster, service("y", namespace="shop")).services) == 2
    assert 'namespace "mall", which does not exist' in refused(
        cluster, service("y", namespace="mall")
    )


def test_nothing_else_changes() -> None:
    """Nodes, networks and settings are those of the cluster."""
    cluster = made(service_cidr="10.96.0.0/24")
    now = after(cluster, pod("a"), service("x"))
    assert now.service_cidr == IPv4Network("10.96.0.0/24")
    assert now.nodes == cluster.nodes
    assert cluster.pods == ()
