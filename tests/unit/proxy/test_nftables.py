"""kube-proxy's nftables mode, held by golden files in the spelling of ``nft list table``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from testbed.dataplane import nft
from testbed.dataplane.spec import Unit
from testbed.dataplane.vantage import Vantage
from testbed.proxy import nftables
from testbed.topology.portals import Portal, Target

GOLDEN = Path(__file__).parents[2] / "golden" / "proxy" / "nftables"
NODE = Vantage(
    "node1",
    IPv4Address("172.18.0.2"),
    IPv4Network("10.244.0.0/16"),
    IPv4Network("10.96.0.0/16"),
)
HERE = Target(IPv4Address("10.244.0.5"), 80, "node1")
THERE = Target(IPv4Address("10.244.1.7"), 80, "node2")
PLAIN = Portal("ns1/svc1", "p80", "tcp", IPv4Address("10.96.0.41"), 80, (HERE, THERE))
EXPOSED = replace(
    PLAIN,
    node_port=30080,
    external_ips=(IPv4Address("192.0.2.1"),),
    load_balancer_ip=IPv4Address("198.51.100.1"),
)
RANGES = (IPv4Network("203.0.113.0/24"), IPv4Network("172.18.0.0/16"))
PORTALS = {
    "cluster-ip": PLAIN,
    "cluster-ip-local": replace(PLAIN, internal_local=True),
    "cluster-ip-local-elsewhere": replace(PLAIN, internal_local=True, targets=(THERE,)),
    "exposed": EXPOSED,
    "exposed-local": replace(EXPOSED, external_local=True, health_check_node_port=32000),
    "exposed-local-elsewhere": replace(EXPOSED, external_local=True, targets=(THERE,)),
    "exposed-without-endpoints": replace(EXPOSED, targets=()),
    "affinity": replace(PLAIN, affinity_seconds=10800),
    "source-ranges": replace(EXPOSED, source_ranges=RANGES),
    "nameless-udp": replace(PLAIN, service="kube-system/dns", port_name="", protocol="udp"),
}


def written(*units: Unit) -> str:
    """The table of all units, as nft reads it."""
    return nft.table([unit["nft"] for unit in units])


def of(*portals: Portal, vantage: Vantage = NODE) -> dict[str, Any]:
    """The unit of one Service."""
    found: dict[str, Any] = nftables.service(portals, vantage)["nft"]
    return found


@pytest.mark.parametrize("name", PORTALS)
def test_tables_are_golden(name: str, golden: Callable[[Path, str], None]) -> None:
    """The whole table with one Service, as ``nft list table ip kube-proxy`` shows it."""
    portals = (PORTALS[name],)
    units = nftables.dispatch(portals, NODE), nftables.service(portals, NODE)
    golden(GOLDEN / f"{name}.nft", written(*units))


def test_names_carry_a_hash_of_themselves() -> None:
    """kube-proxy's own examples."""
    elsewhere = replace(PLAIN, targets=(Target(IPv4Address("10.180.0.1"), 80),))
    assert list(of(elsewhere)["chains"]) == [
        "service-ULMVA6XW-ns1/svc1/tcp/p80",
        "endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80",
    ]


def test_long_names_are_cut() -> None:
    """Only an endpoint's can be too long; 240 characters are left besides the prefix."""
    long = replace(PLAIN, service=f"{'n' * 120}/{'s' * 120}")
    names = [name for name in of(long)["chains"] if name.startswith("endpoint-")]
    assert {len(name) for name in names} == {len("endpoint-") + 240}
    assert all(name.endswith("...") for name in names)
    assert len(set(names)) == 2


def test_terminating_endpoints_serve_when_none_is_ready() -> None:
    """Until something is ready, those that still serve get the traffic."""
    leaving = replace(THERE, ready=False, terminating=True)
    assert "10.244.1.7" in str(of(replace(PLAIN, targets=(leaving,)))["chains"])
    assert "10.244.1.7" not in str(of(replace(PLAIN, targets=(HERE, leaving)))["chains"])


def test_ports_of_one_service_share_a_unit() -> None:
    """Each port has its own chains; the cluster IP is one element."""
    dns = replace(PLAIN, port_name="dns", protocol="udp", port=53)
    found = of(PLAIN, dns)
    assert found["elements"]["cluster-ips"] == {"10.96.0.41": ""}
    assert list(found["elements"]["service-ips"]) == [
        "10.96.0.41 . tcp . 80",
        "10.96.0.41 . udp . 53",
    ]


def test_source_ranges_that_overlap_are_joined() -> None:
    """As nft itself does with a set of intervals that has no name."""
    ranges = (IPv4Network("203.0.113.0/24"), IPv4Network("203.0.0.0/16"))
    portal = replace(EXPOSED, source_ranges=ranges)
    chains = of(portal)["chains"]
    firewall = next(chains[name] for name in chains if name.startswith("firewall-"))
    assert firewall["rules"] == ["ip saddr != 203.0.0.0/16 drop"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(10800, "3h"), (5400, "1h30m"), (86400, "1d"), (90061, "1d1h1m1s")]
)
def test_affinity_lasts_as_nft_spells_it(seconds: int, text: str) -> None:
    """The time after a client's last connection until it is forgotten."""
    sets = of(replace(PLAIN, affinity_seconds=seconds))["sets"]
    assert {each["spec"].split("timeout ")[-1] for each in sets.values()} == {f"{text};"}


@pytest.mark.parametrize("name", PORTALS)
def test_every_chain_that_is_named_exists(name: str) -> None:
    """No rule and no element leads astray, and no chain is out of reach."""
    portals = (PORTALS[name],)
    text = written(nftables.dispatch(portals, NODE), nftables.service(portals, NODE))
    words = text.replace(",", "").split()
    led = {after for word, after in pairwise(words) if word in ("goto", "jump")}
    own = set(of(*portals)["chains"])
    there = own | set(nftables.dispatch(portals, NODE)["nft"]["chains"])
    assert led <= there
    assert own <= led


def test_a_thousand_services_are_planned_fast() -> None:
    """1,000 Services of 10 endpoints each take a fraction of a second on one node."""
    services = [big(number) for number in range(1000)]
    started = perf_counter()
    for portal in services:
        nftables.service((portal,), NODE)
    assert perf_counter() - started < 1.5, "0.15 s on the machine it was written on"


def big(number: int) -> Portal:
    """One of many Services, with ten endpoints."""
    targets = tuple(
        Target(IPv4Address(0x0AF40000 + number * 16 + each), 8080, f"node{each % 3 + 1}")
        for each in range(10)
    )
    address = IPv4Address(0x0A600000 + 1 + number)
    return Portal(f"many/svc{number:04}", "http", "tcp", address, 80, targets)
