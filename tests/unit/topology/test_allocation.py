"""Which addresses and ports Services get."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from testbed.topology.allocation import complete
from testbed.topology.service import Service
from testbed.topology.source import Problems
from tests.unit.topology.reading import read, service

CIDR = IPv4Network("10.96.0.0/16")


def completed(*texts: str, cidr: IPv4Network = CIDR) -> tuple[Service, ...]:
    """The Services of a manifest, completed."""
    problems = Problems()
    found = complete(read("".join(texts)).services, cidr, problems)
    problems.check()
    return found


def addresses(*texts: str, cidr: IPv4Network = CIDR) -> list[str]:
    """Their cluster IPs."""
    return [str(each.cluster_ip) for each in completed(*texts, cidr=cidr)]


def node_ports(*texts: str) -> list[list[int | None]]:
    """Their ports of the nodes."""
    return [[port.node_port for port in each.ports] for each in completed(*texts)]


def test_addresses_in_order_past_those_that_are_asked_for() -> None:
    """From the eleventh on; headless Services get none."""
    asked = service("b", "ports: [{port: 80}], clusterIP: 10.96.0.11")
    headless = service("c", "clusterIP: None")
    dns = service("d", "ports: [{port: 53}], clusterIP: 10.96.0.10")
    found = addresses(service("a"), asked, headless, dns, service("e"))
    assert found == ["10.96.0.12", "10.96.0.11", "None", "10.96.0.10", "10.96.0.13"]


def test_a_small_range_is_used_up_but_for_the_well_known() -> None:
    """The API server's own stays free; those before the eleventh come last."""
    four = [service(name) for name in "abcd"]
    assert addresses(*four, cidr=IPv4Network("10.96.0.0/28"))[-1] == "10.96.0.14"
    found = addresses(*four, service("e"), cidr=IPv4Network("10.96.0.0/28"))
    assert found[-1] == "10.96.0.2"
    found = addresses(*four, service("e"), cidr=IPv4Network("10.96.0.0/29"))
    assert found == [f"10.96.0.{number}" for number in range(2, 7)]


def test_node_ports_in_order_past_those_that_are_asked_for() -> None:
    """For types NodePort and LoadBalancer, unless the latter says not to."""
    asked = service("b", "type: NodePort, ports: [{port: 80, nodePort: 30000}]")
    none = service(
        "c", "type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{port: 80}]"
    )
    two = service("d", "type: LoadBalancer, ports: [{name: a, port: 1}, {name: b, port: 2}]")
    found = node_ports(service("a", "type: NodePort, ports: [{port: 80}]"), asked, none, two)
    assert found == [[30001], [30000], [None], [30002, 30003]]


def test_one_port_of_two_protocols_has_one_node_port() -> None:
    """As a DNS server wants it."""
    ports = "{name: u, port: 53, protocol: UDP}, {name: t, port: 53}"
    assert node_ports(service("a", f"type: NodePort, ports: [{ports}]")) == [[30000, 30000]]
    ports = "{name: u, port: 53, protocol: UDP}, {name: t, port: 53, nodePort: 30053}"
    assert node_ports(service("a", f"type: NodePort, ports: [{ports}]")) == [[30053, 30053]]


def test_the_health_check_has_a_port_of_its_own() -> None:
    """Only for type LoadBalancer with policy Local."""
    local = "externalTrafficPolicy: Local, ports: [{port: 80}]"
    one, other = completed(
        service("a", f"type: LoadBalancer, {local}"), service("b", f"type: NodePort, {local}")
    )
    assert (one.ports[0].node_port, one.health_check_node_port) == (30000, 30001)
    assert (other.ports[0].node_port, other.health_check_node_port) == (30002, None)


def test_what_runs_keeps_what_it_has() -> None:
    """New Services get what the others leave."""
    problems = Problems()
    others = completed(service("a", "type: NodePort, ports: [{port: 80}]"))
    (new,) = complete(
        read(service("b", "type: NodePort, ports: [{port: 80}]")).services, CIDR, problems, others
    )
    problems.check()
    assert (new.cluster_ip, new.ports[0].node_port) == (IPv4Address("10.96.0.12"), 30001)
