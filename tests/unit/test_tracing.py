"""Tracing in a testbed that is there: who is meant, and what is handed on."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

import pytest

from testbed import existing, tracing
from testbed.errors import UsageError
from testbed.node import inventory
from testbed.topology.model import Backend, Cluster, Container, Node, Pod
from testbed.topology.service import Service, ServicePort
from testbed.verify.trace import run
from tests.unit.verify.trace import traces

CLUSTER = Cluster(
    name="t",
    cni="flannel",
    backend=Backend("vxlan"),
    cluster_cidr=IPv4Network("10.244.0.0/16"),
    node_cidr_mask=24,
    service_cidr=IPv4Network("10.96.0.0/16"),
    nodes=(
        Node("node1", 0, (IPv4Network("10.244.0.0/24"),)),
        Node("node2", 1, (IPv4Network("10.244.1.0/24"),)),
    ),
    pods=(Pod("default", "a", "node1", (Container("c", "netexec", ()),), hostname="a"),),
)


def listing(name: str, ip: str) -> dict[str, Any]:
    """What the engine says of a container."""
    network = {"NetworkID": "n", "IPAddress": ip}
    state = "running" if ip else "exited"
    return {
        "Names": [f"/t-{name}"],
        "State": state,
        "NetworkSettings": {"Networks": {"t": network}},
    }


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the trace proper was called with, in a testbed whose node2 does not run."""
    listings = {"node1": listing("node1", "172.18.0.2"), "node2": listing("node2", "")}
    pod = {"namespace": "default", "name": "a", "ip": "10.244.0.2", "state": "Running"}
    noted: dict[str, Any] = {}

    def trace(_client: Any, _cluster: Any, *rest: Any, **probe: Any) -> Any:
        noted.update(probe, rest=rest)
        return traces.answered(), b""

    monkeypatch.setattr(inventory, "containers", lambda *_: listings)
    monkeypatch.setattr(existing, "cluster_of", lambda *_: CLUSTER)
    states = {"node1": {"pods": [pod]}, "node2": {}}
    monkeypatch.setattr(existing, "states_of", lambda *_: states)
    monkeypatch.setattr(tracing, "with_services", lambda *_: CLUSTER)
    monkeypatch.setattr(run, "trace", trace)
    return noted


CLIENT = cast(Any, None)


def test_only_what_runs_is_asked(asked: dict[str, Any]) -> None:
    """A node that does not run has no address, but can be meant."""
    tracing.trace(CLIENT, "t", "a", "node2", protocol="udp", port=53, size=9, dont_fragment=True)
    containers, observed, source, target = asked["rest"]
    assert containers == {"node1": "t-node1"}
    assert list(observed.node_ips) == ["node1"]
    assert (source.place, source.node, source.ip, source.pod) == (
        "default/a",
        "node1",
        "10.244.0.2",
        True,
    )
    assert (target.place, target.ip, target.pod) == ("node2", "", False)
    assert (asked["protocol"], asked["port"], asked["size"]) == ("udp", 53, 9)
    assert asked["dont_fragment"] is True


def test_both_unknown_ends_are_named_at_once(asked: dict[str, Any]) -> None:
    """With what there is, once."""
    with pytest.raises(UsageError) as caught:
        tracing.trace(CLIENT, "t", "x", "y")
    assert str(caught.value).splitlines() == [
        "testbed 't' has no node, router, client or pod 'x'.",
        "testbed 't' has no node, router, client or pod 'y'.",
        "nodes: node1, node2",
        "pods: a",
    ]
    assert not asked


def test_what_may_have_been_meant(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service without ``svc/``, and addresses that cannot be traced."""
    web = Service("default", "web", (ServicePort(80, "TCP", "", 8080),))
    monkeypatch.setattr(tracing, "with_services", lambda *_: replace(CLUSTER, services=(web,)))
    for target, hint in (
        ("web", "There is a Service of that name: write svc/web."),
        ("default/web", "There is a Service of that name: write svc/default/web."),
        ("fd00::1", "Only IPv4 can be traced."),
    ):
        with pytest.raises(UsageError) as caught:
            tracing.trace(CLIENT, "t", "a", target)
        assert str(caught.value).splitlines()[-1] == hint
    assert not asked


def test_a_service_is_resolved_by_the_pods_that_run(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first port is sent to, at its cluster IP, and its endpoints are known."""
    ports = (ServicePort(80, "TCP", "", 8080),)
    web = Service(
        "default", "web", ports, selector={"app": "a"}, cluster_ip=IPv4Address("10.96.0.9")
    )
    pods = (replace(CLUSTER.pods[0], labels={"app": "a"}),)
    served = replace(CLUSTER, services=(web,), pods=pods)
    monkeypatch.setattr(tracing, "with_services", lambda *_: served)
    tracing.trace(CLIENT, "t", "node2", "svc/web")
    _, _, source, target = asked["rest"]
    assert (source.place, target.place, target.ip) == ("node2", "svc/default/web", "10.96.0.9")
    assert (asked["protocol"], asked["port"]) == ("tcp", 80)
    (behind,) = asked["service"].usable
    assert (str(behind), behind.end.place) == ("10.244.0.2:8080", "default/a")
    with pytest.raises(UsageError, match="services: web"):
        tracing.trace(CLIENT, "t", "a", "svc/shop")


def test_an_address_is_whoever_has_it(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod, a node, or a Service; netexec's ports, or the Service's."""
    ports = (ServicePort(80, "TCP", "", 8080, node_port=30080),)
    web = Service("default", "web", ports, cluster_ip=IPv4Address("10.96.0.9"))
    monkeypatch.setattr(tracing, "with_services", lambda *_: replace(CLUSTER, services=(web,)))
    tracing.trace(CLIENT, "t", "node1", "10.244.0.2", protocol="tcp")
    assert (asked["rest"][3].place, asked["port"], asked["service"]) == ("default/a", 8080, None)
    tracing.trace(CLIENT, "t", "a", "172.18.0.2")
    assert (asked["rest"][3].place, asked["protocol"]) == ("node1", "icmp")
    for target, port in (("10.96.0.9", None), ("node1", 30080), ("172.18.0.2", 30080)):
        tracing.trace(CLIENT, "t", "a", target, protocol="tcp", port=port)
        assert asked["service"].key == "default/web"
        assert asked["port"] == port or 80
    with pytest.raises(UsageError, match="ICMP has no ports"):
        tracing.trace(CLIENT, "t", "a", "10.244.0.2", port=80)


def test_nothing_is_sent_to_an_address_that_nobody_has(asked: dict[str, Any]) -> None:
    """The message has every address that there is."""
    with pytest.raises(UsageError) as caught:
        tracing.trace(CLIENT, "t", "a", "192.0.2.1")
    assert str(caught.value).splitlines() == [
        "nothing of testbed 't' has address 192.0.2.1, and nothing is sent elsewhere.",
        "nodes: node1 172.18.0.2, node2 -",
        "pods: a 10.244.0.2",
        "services: none",
    ]
    assert not asked


def test_other_targets_are_no_services(asked: dict[str, Any]) -> None:
    """Ping is the default."""
    tracing.trace(CLIENT, "t", "a", "node2")
    assert (asked["protocol"], asked["port"], asked["service"]) == ("icmp", 0, None)
