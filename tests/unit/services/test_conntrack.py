"""Which connections of UDP must be forgotten."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from testbed.services.conntrack import stale
from testbed.topology.portals import Portal, Target

ONE, TWO = (Target(IPv4Address(f"10.244.0.{number}"), 53, "node1") for number in (1, 2))
DNS = Portal(
    "kube-system/dns",
    "dns",
    "udp",
    IPv4Address("10.96.0.10"),
    53,
    (ONE, TWO),
    node_port=30053,
    external_ips=(IPv4Address("198.51.100.1"),),
)


def difference(before: Portal | None, after: Portal | None) -> list[str]:
    """What is deleted, as one would type it."""
    old, new = ({each.service: (each,)} if each else {} for each in (before, after))
    return [" ".join(line) for line in stale(old, new)]


def test_a_removed_endpoint() -> None:
    """By every address of the Service, and by its node port."""
    assert difference(DNS, replace(DNS, targets=(ONE,))) == [
        "-D -p udp --orig-dst 10.96.0.10 --dst-nat 10.244.0.2",
        "-D -p udp --orig-dst 198.51.100.1 --dst-nat 10.244.0.2",
        "-D -p udp --dport 30053 --dst-nat 10.244.0.2",
    ]


def test_an_endpoint_that_serves_no_more() -> None:
    """Is as good as removed."""
    gone = replace(DNS, targets=(ONE, replace(TWO, ready=False, serving=False)))
    assert len(difference(DNS, gone)) == 3


def test_a_removed_service() -> None:
    """All its endpoints."""
    assert len(difference(DNS, None)) == 6


def test_a_first_endpoint() -> None:
    """Clients that were refused have entries that lead nowhere."""
    assert difference(replace(DNS, targets=()), DNS) == [
        "-D -p udp --orig-dst 10.96.0.10",
        "-D -p udp --orig-dst 198.51.100.1",
        "-D -p udp --dport 30053",
    ]
    assert difference(None, DNS) == difference(replace(DNS, targets=()), DNS)


def test_tcp_goes_on() -> None:
    """Its established connections are left alone; and where nothing changes, nothing is deleted."""
    tcp = replace(DNS, protocol="tcp")
    assert difference(tcp, replace(tcp, targets=())) == []
    assert difference(DNS, DNS) == []
    assert difference(DNS, replace(DNS, targets=(ONE, TWO, replace(TWO, port=54)))) == []
