"""Services as people write them and as kubectl prints them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.errors import TopologyError
from testbed.topology.service import Service, ServicePort
from tests.unit.topology.reading import read, service

KUBECTL_GET = """\
apiVersion: v1
kind: Service
metadata:
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: |
      {"apiVersion":"v1","kind":"Service"}
  creationTimestamp: "2024-05-02T10:11:12Z"
  labels: {app: web}
  name: web
  namespace: default
  resourceVersion: "1234"
  uid: 6b1f7a3e-0b52-4a43-9f1e-2f0f4a9b7d11
spec:
  allocateLoadBalancerNodePorts: true
  clusterIP: 10.96.7.8
  clusterIPs:
  - 10.96.7.8
  externalTrafficPolicy: Cluster
  internalTrafficPolicy: Cluster
  ipFamilies:
  - IPv4
  ipFamilyPolicy: SingleStack
  ports:
  - name: http
    nodePort: 31234
    port: 80
    protocol: TCP
    targetPort: http
  selector:
    app: web
  sessionAffinity: None
  type: LoadBalancer
status:
  loadBalancer:
    ingress:
    - ip: 172.18.255.200
"""


def one(spec: str) -> Service:
    """The Service ``web`` with a spec, as it is read."""
    (declared,) = read(service("web", spec)).services
    return declared.service


def refused(spec: str) -> str:
    """What is said about a wrong spec."""
    with pytest.raises(TopologyError) as raised:
        one(spec)
    return str(raised.value)


def test_what_kubectl_get_prints() -> None:
    """``kubectl get service web -o yaml`` is accepted as it is; its status is the cluster's own."""
    (declared,) = read(KUBECTL_GET).services
    assert declared.service == Service(
        namespace="default",
        name="web",
        ports=(ServicePort(80, "TCP", "http", "http", 31234),),
        type="LoadBalancer",
        cluster_ip=IPv4Address("10.96.7.8"),
        selector={"app": "web"},
    )


def test_defaults() -> None:
    """A port's target is the port, its protocol TCP; there is no affinity and no policy Local."""
    assert one("ports: [{port: 80}]") == Service(
        "default", "web", (ServicePort(80, target_port=80),)
    )


def test_every_honoured_field() -> None:
    """All of a Service's spec that testbed keeps."""
    assert one(
        "type: LoadBalancer, clusterIP: 10.96.0.9, selector: {app: web}, "
        "ports: [{name: a, port: 80, targetPort: 8080, nodePort: 30000, appProtocol: http}, "
        "{name: b, port: 80, targetPort: udp, protocol: UDP, nodePort: 30000}], "
        "externalIPs: [192.0.2.1, 192.0.2.2], loadBalancerIP: 192.0.2.3, "
        'loadBalancerSourceRanges: [10.1.2.3/8, " 0.0.0.0/0"], sessionAffinity: ClientIP, '
        "sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}, externalTrafficPolicy: Local, "
        "internalTrafficPolicy: Local, publishNotReadyAddresses: true, healthCheckNodePort: 30001"
    ) == Service(
        namespace="default",
        name="web",
        ports=(
            ServicePort(80, "TCP", "a", 8080, 30000),
            ServicePort(80, "UDP", "b", "udp", 30000),
        ),
        type="LoadBalancer",
        cluster_ip=IPv4Address("10.96.0.9"),
        selector={"app": "web"},
        external_ips=(IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")),
        load_balancer_ip=IPv4Address("192.0.2.3"),
        load_balancer_source_ranges=(IPv4Network("10.0.0.0/8"), IPv4Network("0.0.0.0/0")),
        session_affinity_seconds=60,
        external_traffic_policy="Local",
        internal_traffic_policy="Local",
        publish_not_ready_addresses=True,
        health_check_node_port=30001,
    )


def test_affinity_lasts_three_hours_by_default() -> None:
    """Kubernetes' own default of ``timeoutSeconds``."""
    assert one("ports: [{port: 80}], sessionAffinity: ClientIP").session_affinity_seconds == 10800


def test_headless_needs_no_ports() -> None:
    """``clusterIP: None`` is a name in a DNS, and needs none."""
    (declared,) = read(service("web", "clusterIP: None, clusterIPs: [None]")).services
    assert declared.headless
    assert declared.service.ports == ()


def test_zero_and_empty_are_not_given() -> None:
    """As the API, whose fields have no other way to say so."""
    spec = 'ports: [{port: 80, nodePort: 0, targetPort: 0}], clusterIP: "", loadBalancerIP: ""'
    assert one(f"{spec}, healthCheckNodePort: 0, loadBalancerSourceRanges: []") == one(
        "ports: [{port: 80}]"
    )


def test_external_policy_with_external_ips_alone() -> None:
    """They make a Service of type ClusterIP one that outsiders reach."""
    spec = "ports: [{port: 80}], externalIPs: [192.0.2.1], externalTrafficPolicy: Local"
    assert one(spec).external_traffic_policy == "Local"


def test_ports_twice_on_one_line() -> None:
    """What is there twice is found wherever it stands."""
    assert "port 80/TCP is already on line 5" in refused(
        "ports: [{name: a, port: 80}, {name: b, port: 80}]"
    )
