"""Whom a text means: a name, a Service, or an address that something has."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from testbed.errors import UsageError
from testbed.verify.trace import words
from testbed.verify.trace.destination import found
from testbed.verify.trace.model import Endpoint, Service
from tests.unit.verify.trace import traces
from tests.unit.verify.trace.outside import (
    BALANCER,
    CLIENT,
    EXTERNAL,
    IP,
    OBSERVED,
    PODS,
    SUBNETS,
    cluster,
    place,
    portal,
)


def meant(
    source: str,
    text: str,
    protocol: str | None = None,
    port: int | None = None,
    **how: Any,
) -> tuple[Endpoint, Service | None]:
    """In a testbed with one Service."""
    known = {"default/web": [portal("b,c", **how)]}
    return found(
        *(cluster(), OBSERVED, known, place(source), text),
        protocol=protocol,
        port=port,
        subnets=SUBNETS,
    )


@pytest.mark.parametrize(
    ("source", "text", "asked", "kind", "address", "entered"),
    [
        ("a", "svc/web", (None, None), "cluster-ip", f"{IP}:80", "node1"),
        ("node2", IP, (None, None), "cluster-ip", f"{IP}:80", "node2"),
        ("client", "svc/web", (None, None), "load-balancer", f"{BALANCER}:80", "node1"),
        ("tor", "svc/web", (None, None), "load-balancer", f"{BALANCER}:80", "node1"),
        ("a", BALANCER, (None, None), "load-balancer", f"{BALANCER}:80", "node1"),
        ("client", BALANCER, ("tcp", 81), "load-balancer", f"{BALANCER}:81", "node1"),
        ("client", EXTERNAL, (None, None), "external-ip", f"{EXTERNAL}:80", "node1"),
        ("client", "node3", ("tcp", 30080), "node-port", "172.19.0.4:30080", "node3"),
        ("a", "172.18.0.3", ("tcp", 30080), "node-port", "172.18.0.3:30080", "node2"),
        ("tor", "node2", ("tcp", 30080), "node-port", "172.18.0.3:30080", "node2"),
    ],
)
def test_a_service_is_meant(
    source: str,
    text: str,
    asked: tuple[str | None, int | None],
    kind: str,
    address: str,
    entered: str,
) -> None:
    """By its name, by each of its addresses, and by its port on any node."""
    end, service = meant(source, text, *asked)
    assert service is not None
    assert (service.kind, service.address, service.entered) == (kind, address, entered)
    assert (end.place, end.ip) == ("svc/default/web", address.partition(":")[0])
    assert service.protocol == "tcp"


def test_without_a_balancer_a_client_asks_the_external_ip() -> None:
    """It needs a route there."""
    _, service = meant("client", "svc/web", load_balancer_ip=None)
    assert service is not None
    assert service.address == f"{EXTERNAL}:80"


def test_an_external_ip_may_be_a_nodes() -> None:
    """Then that node is where it comes in; pods and nodes are served by their own all the same."""
    own: dict[str, Any] = {"external_ips": (IPv4Address("172.18.0.3"),)}
    for source, text, entered in (
        ("client", "node2", "node2"),
        ("client", "172.18.0.3", "node2"),
        ("a", "node2", "node1"),
    ):
        _, service = meant(source, text, "tcp", 80, **own)
        assert service is not None
        assert (service.kind, service.entered) == ("external-ip", entered)


@pytest.mark.parametrize(
    ("text", "asked", "place_"),
    [
        (PODS["c"], (None, None), "default/c"),
        ("default/c", ("tcp", 8080), "default/c"),
        ("172.18.0.3", (None, None), "node2"),
        ("172.18.0.3", ("tcp", 30081), "node2"),
        ("172.18.0.3", ("udp", 30080), "node2"),
        ("node2", ("tcp", None), "node2"),
        (CLIENT, ("tcp", 30080), "client"),
        ("172.18.255.254", ("tcp", 30080), "tor"),
    ],
)
def test_somebody_else_is_meant(
    text: str, asked: tuple[str | None, int | None], place_: str
) -> None:
    """Pods and machines, where no Service has that port."""
    end, service = meant("a", text, *asked)
    assert (end.place, service) == (place_, None)


def test_a_node_that_does_not_run_is_meant_itself() -> None:
    """Its Services are not the matter."""
    down = replace(OBSERVED, node_ips={"node1": OBSERVED.node_ips["node1"]})
    known = {"default/web": [portal("b,c")]}
    end, service = found(
        *(cluster(), down, known, place("a"), "node2"), protocol="tcp", port=30080, subnets=SUBNETS
    )
    assert (end.place, end.ip, service) == ("node2", "", None)


def test_an_address_that_nobody_has_is_refused_with_all_there_are() -> None:
    """Nothing is sent there."""
    with pytest.raises(UsageError) as caught:
        meant("a", "192.0.2.1")
    assert str(caught.value).splitlines() == [
        "nothing of testbed 't' has address 192.0.2.1, and nothing is sent elsewhere.",
        "nodes: node1 172.18.0.2, node2 172.18.0.3, node3 172.19.0.4",
        "routers: tor 172.18.255.254",
        f"clients: client {CLIENT}, far 172.19.255.250",
        "pods: a 10.244.1.9, b 10.244.1.10, c 10.244.2.9, d 10.244.3.9",
        f"services: web {IP} {BALANCER} {EXTERNAL}",
    ]


@pytest.mark.parametrize(
    ("text", "how", "said"),
    [
        (IP, {}, f"Trace to {BALANCER}, which is its address from outside"),
        (IP, {"load_balancer_ip": None}, f"Trace to {EXTERNAL}"),
        (
            "svc/web",
            {"load_balancer_ip": None, "external_ips": ()},
            "It has a node port: `testbed trace client NODE --proto tcp --port 30080`",
        ),
        (
            "svc/web",
            {"load_balancer_ip": None, "external_ips": (), "node_port": None},
            "Trace from a pod or a node",
        ),
    ],
)
def test_a_cluster_ip_leads_nowhere_from_outside(text: str, how: dict[str, Any], said: str) -> None:
    """What does instead is told."""
    with pytest.raises(UsageError, match="client runs no kube-proxy") as caught:
        meant("client", text, **how)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("source", "text", "asked", "said"),
    [
        ("client", "svc/web", (None, None), f"{BALANCER}:80, load balancer, entered by node1"),
        ("client", EXTERNAL, (None, None), f"{EXTERNAL}:80, external IP, entered by node1"),
        ("client", "node3", ("tcp", 30080), "172.19.0.4:30080, node port of node3"),
        ("a", "svc/web", (None, None), f"{IP}:80"),
    ],
)
def test_a_walk_says_by_what_it_came_in(
    source: str, text: str, asked: tuple[str | None, int | None], said: str
) -> None:
    """The kind of address, and the node."""
    _, service = meant(source, text, *asked)
    told = words.target(replace(traces.answered(), service=service))
    assert told == f"svc/default/web ({said})"
