"""A cluster as JSON and back."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given, settings

from testbed.topology.load import from_dict
from testbed.topology.model import Backend, Client, Cluster, LoadBalancer, Pod
from testbed.topology.serialize import (
    from_json,
    service_from_json,
    service_to_json,
    slice_from_json,
    slice_to_json,
    to_json,
)
from testbed.topology.service import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Service,
    ServicePort,
)
from tests.unit.topology.strategies import CNIS, clusters, wide_clusters

FULL = Cluster(
    name="lab",
    cni="flannel",
    backend=Backend("vxlan"),
    cluster_cidr=IPv4Network("10.244.0.0/16"),
    node_cidr_mask=24,
    service_cidr=IPv4Network("10.96.0.0/16"),
    nodes=(),
    pods=(Pod("default", "web-1", "node1", (), owner="web", gated=True),),
    proxy="nftables",
    clients=(Client("outside", 0, "rack", 64513), Client("other", 1)),
    load_balancer=LoadBalancer(
        ((IPv4Address("172.18.255.1"), IPv4Address("172.18.255.9")),), "bgp"
    ),
    services=(
        Service(
            namespace="default",
            name="web",
            ports=(
                ServicePort(80, "TCP", "http", "http", 30000),
                ServicePort(53, "UDP", "dns", 53),
            ),
            type="LoadBalancer",
            cluster_ip=IPv4Address("10.96.0.11"),
            selector={"app": "web"},
            external_ips=(IPv4Address("192.0.2.1"),),
            load_balancer_ip=IPv4Address("172.18.255.1"),
            load_balancer_source_ranges=(IPv4Network("10.0.0.0/8"),),
            session_affinity_seconds=60,
            external_traffic_policy="Local",
            internal_traffic_policy="Local",
            publish_not_ready_addresses=True,
            health_check_node_port=30001,
        ),
        Service("default", "headless", ()),
    ),
    slices=(
        EndpointSlice(
            "default",
            "web-1",
            "web",
            (EndpointPort(8080, "TCP", "http"),),
            (
                Endpoint(IPv4Address("10.244.0.2"), "node1", False, True, True),
                Endpoint(IPv4Address("10.244.0.3")),
            ),
        ),
    ),
)
"""Every field of what a cluster serves and how, away from its default somewhere."""


def test_services_and_what_reaches_them() -> None:
    """Nothing is lost of clients, the load balancer, Services and EndpointSlices."""
    assert from_json(json.loads(json.dumps(to_json(FULL)))) == FULL


def test_each_by_itself() -> None:
    """Nodes keep Services and EndpointSlices one by one; their keys are the model's."""
    for service in FULL.services:
        row = service_to_json(service)
        assert list(row) == list(Service.__slots__)
        assert service_from_json(json.loads(json.dumps(row))) == service
    for piece in FULL.slices:
        assert list(slice_to_json(piece)) == list(EndpointSlice.__slots__)
        assert slice_from_json(json.loads(json.dumps(slice_to_json(piece)))) == piece


@settings(max_examples=50, deadline=None)
@given(clusters() | wide_clusters())
def test_round_trip(cluster: Cluster) -> None:
    """Nothing is lost on the way through text, whatever order the keys come back in."""
    text = json.dumps(to_json(cluster), sort_keys=True)
    assert from_json(json.loads(text)) == cluster


def test_keys_are_stable() -> None:
    """The same cluster gives the same bytes, with the model's keys in the model's order."""
    data = {"services": {"a": {"image": "testbed-node"}}, "x-testbed": {"cni": "flannel"}}
    cluster = from_dict(data, cnis=CNIS)
    written = to_json(cluster)
    assert list(written) == list(Cluster.__slots__)
    assert json.dumps(written) == json.dumps(to_json(from_json(written)))
    assert written["networks"] == [{"name": "default", "subnet": None}]
    assert written["nodes"][0]["pod_cidrs"] == ["10.244.0.0/24"]
