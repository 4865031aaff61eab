"""kube-proxy's ipvs mode, held by golden files in the spelling of ipset, iptables and ipvsadm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from testbed.dataplane.spec import Unit
from testbed.dataplane.vantage import Vantage
from testbed.proxy import ipvs
from testbed.topology.portals import Portal, Target

GOLDEN = Path(__file__).parents[2] / "golden" / "proxy" / "ipvs"
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
RANGES = (IPv4Network("203.0.113.0/24"), IPv4Network("192.0.2.7/32"))
PORTALS: dict[str, tuple[Portal, ...]] = {
    "none": (),
    "cluster-ip": (PLAIN,),
    "exposed": (EXPOSED,),
    "exposed-local": (replace(EXPOSED, external_local=True, health_check_node_port=32000),),
    "source-ranges": (replace(EXPOSED, source_ranges=RANGES),),
    "udp-affinity": (
        replace(PLAIN, service="kube-system/dns", port_name="", protocol="udp", port=53),
        replace(EXPOSED, protocol="udp", external_local=True, affinity_seconds=10800),
    ),
    "sctp": (replace(EXPOSED, protocol="sctp", external_local=True, targets=()),),
}
TCP = "-t 10.96.0.41:80"


def written(portals: tuple[Portal, ...]) -> str:
    """Everything that is fed to tools on node1, sets without members left out."""
    shared, own = ipvs.dispatch(portals, NODE), ipvs.service(portals, NODE)
    sets = members(shared)
    lines = [f"add {name} {entry}" for name, entries in sets.items() for entry in entries]
    rules = [line for line in shared["iptables"].splitlines() if line.startswith(("*", "-"))]
    virtual = []
    for key, each in own["ipvs"].items():
        virtual.append(f"-A {key} {each['flags']}")
        virtual += [f"-a {key} -r {server} {how}" for server, how in each["servers"].items()]
    parts = {"ipset": lines, "iptables": rules, "ipvsadm": virtual, "addresses": own["addresses"]}
    return "\n".join(
        f"# {name}\n" + "".join(f"{e}\n" for e in part) for name, part in parts.items()
    )


def members(shared: Unit) -> dict[str, list[str]]:
    """Set → its members."""
    found: dict[str, list[str]] = {}
    for line in shared["ipset"].splitlines():
        verb, name, what = line.split(" ", 2)
        if verb == "create":
            found[name] = []
        else:
            found[name].append(what)
    return found


def servers(*portals: Portal) -> dict[str, list[str]]:
    """Virtual server → its servers."""
    found: dict[str, dict[str, Any]] = ipvs.service(portals, NODE)["ipvs"]
    return {key: list(each["servers"]) for key, each in found.items()}


@pytest.mark.parametrize("name", PORTALS)
def test_one_service(name: str, golden: Callable[[Path, str], None]) -> None:
    """Everything that one Service brings, and what is there without any."""
    golden(GOLDEN / f"{name}.txt", written(PORTALS[name]))


def test_all_sets_are_always_there() -> None:
    """With the options by which kube-proxy makes them."""
    sets = ipvs.dispatch((), NODE)["ipset"].splitlines()
    assert len(sets) == 17
    assert "create KUBE-NODE-PORT-TCP bitmap:port range 0-65535" in sets
    assert "create KUBE-LOOP-BACK hash:ip,port,ip family inet hashsize 1024 maxelem 65536" in sets


def test_policy_local_prefers_the_nodes_own_endpoints() -> None:
    """Where it has none the whole cluster's serve, unlike in the other modes."""
    local = replace(EXPOSED, external_local=True)
    found = servers(local)
    assert found[TCP] == ["10.244.0.5:80", "10.244.1.7:80"]
    for key in ("-t 192.0.2.1:80", "-t 198.51.100.1:80", "-t 0.0.0.0:30080"):
        assert found[key] == ["10.244.0.5:80"]
    elsewhere = servers(replace(local, targets=(THERE,)))
    assert set(map(tuple, elsewhere.values())) == {("10.244.1.7:80",)}


def test_internal_policy_local() -> None:
    """A Service that only the cluster can reach has no servers where it has no endpoints."""
    internal = replace(PLAIN, internal_local=True)
    assert servers(internal) == {TCP: ["10.244.0.5:80"]}
    assert servers(replace(internal, targets=(THERE,))) == {TCP: []}
    outside = replace(internal, targets=(THERE,), node_port=30080)
    assert servers(outside)[TCP] == ["10.244.1.7:80"]


def test_without_endpoints_there_are_no_servers() -> None:
    """The virtual server is there all the same: IPVS refuses connections."""
    assert servers(replace(PLAIN, targets=())) == {TCP: []}


def test_hairpin_concerns_the_nodes_own_endpoints() -> None:
    """Whether they are ready or not."""
    unready = replace(HERE, address=IPv4Address("10.244.0.6"), ready=False)
    shared = ipvs.dispatch((replace(PLAIN, targets=(HERE, unready, THERE)),), NODE)
    assert members(shared)["KUBE-LOOP-BACK"] == [
        "10.244.0.5,tcp:80,10.244.0.5",
        "10.244.0.6,tcp:80,10.244.0.6",
    ]


def test_an_external_ip_of_the_node_is_not_bound() -> None:
    """It has it already, on the link where it belongs."""
    portal = replace(PLAIN, external_ips=(NODE.address,))
    assert ipvs.service((portal,), NODE)["addresses"] == ["10.96.0.41"]
    assert members(ipvs.dispatch((portal,), NODE))["KUBE-IPVS-IPS"] == ["10.96.0.41"]


def test_source_ranges_with_the_node() -> None:
    """The node itself may use the load balancer then; everybody is two halves of everybody."""
    ranges = (IPv4Network("172.18.0.0/16"), IPv4Network("0.0.0.0/0"))
    shared = ipvs.dispatch((replace(EXPOSED, source_ranges=ranges),), NODE)
    sets = members(shared)
    front = "198.51.100.1,tcp:80"
    assert sets["KUBE-LOAD-BALANCER-SOURCE-IP"] == [f"{front},198.51.100.1"]
    assert sets["KUBE-LOAD-BALANCER-SOURCE-CIDR"] == [
        f"{front},0.0.0.0/1",
        f"{front},128.0.0.0/1",
        f"{front},172.18.0.0/16",
    ]
    assert "-m ipvs" not in shared["iptables"]


def test_a_thousand_services_are_planned_fast() -> None:
    """1,000 Services of 10 endpoints each take a fraction of a second on one node."""
    services = [big(number) for number in range(1000)]
    started = perf_counter()
    ipvs.dispatch(services, NODE)
    for portal in services:
        ipvs.service((portal,), NODE)
    assert perf_counter() - started < 1.5, "0.1 s on the machine it was written on"


def big(number: int) -> Portal:
    """One of many Services, with ten endpoints."""
    targets = tuple(
        Target(IPv4Address(0x0AF40000 + number * 16 + each), 8080, f"node{each % 3 + 1}")
        for each in range(10)
    )
    address = IPv4Address(0x0A600000 + 1 + number)
    return Portal(f"many/svc{number:04}", "http", "tcp", address, 80, targets)
