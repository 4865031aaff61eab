"""Tracing to load balancers that BGP announces, and from other networks than the address's own."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.live.conftest import Lasting, Running
from tests.live.walks import announcer, asked, broken, on, seen, trace, wanted, well

CLIENT = "client"


@pytest.fixture(scope="module")
def bgp(lasting: Lasting) -> Iterator[Running]:
    """Calico; addresses are announced by BGP."""
    with lasting("load-balancer-bgp", "trace-out-bgp") as found:
        yield found


@pytest.fixture(scope="module")
def racks(lasting: Lasting) -> Iterator[Running]:
    """Two networks with a router between them, and a client in each."""
    with lasting("balancer-racks", "trace-out-racks") as found:
        yield found


@pytest.mark.parametrize("name", ["one-a", "two-a", "three-b", "local"])
def test_with_bgp_any_node_that_announces_it_may_be_entered(bgp: Running, name: str) -> None:
    """The client's hash decides, which shows in the packets."""
    entered = set()
    for _ in range(4):
        found = well(bgp, CLIENT, f"svc/{name}")
        assert found.service is not None
        assert seen(found) == wanted(found)
        entered.add(found.service.entered)
        kept = str(found.request.observed[-1].event.packet.source) == found.source.ip
        assert kept is (name == "local")
    assert entered <= ({"node1", "node2"} if name == "local" else {"node1", "node2", "node3"})


def test_with_bgp_a_service_without_endpoints_is_not_announced(bgp: Running) -> None:
    """The verdict is about the endpoints, not about the route."""
    found = trace(bgp, CLIENT, "svc/nobody")
    assert found.diagnosis is not None
    assert (found.diagnosis.cause, found.diagnosis.place) == ("no-endpoints", CLIENT)
    assert "no node announces" in found.diagnosis.summary


def test_with_bgp_a_client_that_was_told_no_route_is_named(bgp: Running) -> None:
    """Its BIRD is disabled for a while."""
    birdc = "birdc -s /var/run/calico/bird.ctl"
    shown = on(bgp, CLIENT, f"{birdc} show protocols").splitlines()
    names = [line.split()[0] for line in shown if " BGP " in line]
    assert names
    with broken(bgp, CLIENT, "svc/one-a", "no-route", CLIENT, "announces it by BGP") as judge:
        for name in names:
            on(bgp, CLIENT, f"{birdc} disable {name}")
        try:
            time.sleep(0.5)
            judge()
        finally:
            for name in names:
                on(bgp, CLIENT, f"{birdc} enable {name}")


@pytest.mark.parametrize(
    ("source", "target", "entered"),
    [
        ("tor", "svc/web", ""),
        ("near", "svc/web", ""),
        ("beyond", "svc/web", ""),
        ("node3", "balancer of web", "node3"),
        ("tor", "web at node3", "node3"),
        ("beyond", "web at node1", "node1"),
        ("netexec-node1-1", "web at node3", "node3"),
    ],
)
def test_routers_and_clients_of_other_networks_ask_as_well(
    racks: Running, source: str, target: str, entered: str
) -> None:
    """The address is announced in one network; the others come there by the router."""
    where, probe = asked(racks, target)
    found = trace(racks, source, where, **probe)
    assert found.ok, (found.error, found.diagnosis, seen(found), wanted(found))
    assert found.service is not None
    assert found.service.entered == (entered or announcer(racks, "web"))
    assert found.target.place == "default/web"
