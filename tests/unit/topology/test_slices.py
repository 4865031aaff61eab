"""EndpointSlices written by hand."""

from __future__ import annotations

from ipaddress import IPv4Address

from testbed.topology.service import Endpoint, EndpointPort, EndpointSlice
from tests.unit.topology.reading import read

SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-abc12
  labels:
    kubernetes.io/service-name: web
    endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io
addressType: IPv4
ports:
- {name: "", port: 8080, protocol: TCP, appProtocol: http}
- {name: dns, port: 53, protocol: UDP}
endpoints:
- addresses: [10.0.0.1, 10.0.0.2]
  conditions: {ready: true, serving: true, terminating: false}
  nodeName: node1
  hostname: web-0
  zone: here
  targetRef: {kind: Pod, name: web, namespace: default, uid: 6b1f7a3e}
- addresses: [10.0.0.3]
- addresses: [10.0.0.4]
  conditions: {ready: false}
- addresses: [10.0.0.5]
  conditions: {ready: false, serving: true, terminating: true}
"""


def test_what_kubectl_get_prints() -> None:
    """Of an endpoint's addresses the first counts; conditions that are not given have defaults."""
    (declared,) = read(SLICE).slices
    assert declared.slice == EndpointSlice(
        namespace="default",
        name="web-abc12",
        service="web",
        ports=(EndpointPort(8080), EndpointPort(53, "UDP", "dns")),
        endpoints=(
            Endpoint(IPv4Address("10.0.0.1"), "node1"),
            Endpoint(IPv4Address("10.0.0.3")),
            Endpoint(IPv4Address("10.0.0.4"), ready=False, serving=False),
            Endpoint(IPv4Address("10.0.0.5"), ready=False, terminating=True),
        ),
    )


def test_a_slice_may_be_empty() -> None:
    """No endpoints are none; its Service need not exist."""
    text = SLICE.partition("ports:")[0]
    (declared,) = read(text).slices
    assert (declared.slice.ports, declared.slice.endpoints) == ((), ())
