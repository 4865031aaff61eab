"""A cluster with a client and a Service that is reached from outside, for several tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from testbed.topology.model import Client, Cluster, LoadBalancer
from testbed.topology.portals import Portal, Target
from testbed.topology.service import Service as Declared
from testbed.verify.observed import Observed
from testbed.verify.trace.model import Endpoint, ExpectedHop, Service
from testbed.verify.trace.path import endpoint
from testbed.verify.trace.service import on_node, resolve
from tests.unit.verify.trace import test_path

IP, BALANCER, EXTERNAL = "10.96.0.10", "172.18.255.200", "198.51.100.7"
NODE_PORT = 30080
PODS = {"a": "10.244.1.9", "b": "10.244.1.10", "c": "10.244.2.9", "d": "10.244.3.9"}
ON = {"a": "node1", "b": "node1", "c": "node2", "d": "node3", "host": "node2"}
ADDRESSES = {**PODS, "host": "172.18.0.3"}
CLIENT = "172.18.255.250"
SUBNETS = {"rack1": IPv4Network("172.18.0.0/16"), "rack2": IPv4Network("172.19.0.0/16")}
OBSERVED = Observed(
    {**test_path.ADDRESSES, "client": IPv4Address(CLIENT), "far": IPv4Address("172.19.255.250")},
    {f"default/{name}": {"ip": ip, "host_interface": f"veth{name}"} for name, ip in PODS.items()},
)


def cluster(cni: str = "flannel", mode: str = "iptables", announce: str = "layer2") -> Cluster:
    """Two racks; the client is in the first, as are node1 and node2, and ``far`` in the other."""
    backend = {"flannel": "vxlan", "calico": "ipip"}[cni]
    found = test_path.cluster(cni, backend)
    return replace(
        found,
        proxy=mode,
        networks=tuple(replace(found.networks[0], name=name) for name in SUBNETS),
        clients=(Client("client", 0, "rack1", as_number=64514), Client("far", 1, "rack2")),
        load_balancer=LoadBalancer(announce=announce),
        services=(Declared("default", "web", (), cluster_ip=IPv4Address(IP)),),
    )


def portal(names: str, **how: Any) -> Portal:
    """With these pods behind it."""
    targets = tuple(
        Target(IPv4Address(ADDRESSES[name]), 8080, ON[name])
        for name in names.replace(",", " ").split()
    )
    balancer = IPv4Address(BALANCER)
    fields: dict[str, Any] = {"node_port": NODE_PORT, "load_balancer_ip": balancer, **how}
    fields.setdefault("external_ips", (IPv4Address(EXTERNAL),))
    return Portal("default/web", "http", "tcp", IPv4Address(IP), 80, targets, **fields)


def asked(found: Cluster, source: str, target: str, portals: Sequence[Portal]) -> Service:
    """The Service by its name, by an address, or by the node port of a node."""
    known = {"default/web": tuple(portals)}
    start = endpoint(found, OBSERVED, source)
    if target in found.machines:
        end = endpoint(found, OBSERVED, target)
        served = on_node(found, OBSERVED, known, start, end, "tcp", NODE_PORT)
        assert served is not None
        return served
    ip = "" if target == "web" else target
    return resolve(found, OBSERVED, known, "default/web", start, ip=ip, subnets=SUBNETS)


def spelled(hops: Sequence[ExpectedHop]) -> str:
    """``a:eth0>`` for each hop, with ``*`` where it is encapsulated."""
    return " ".join(
        f"{hop.place.removeprefix('default/')}:{hop.interface}"
        f"{'>' if hop.direction == 'out' else '<'}{'*' if hop.encapsulation else ''}"
        for hop in hops
    )


def place(text: str) -> Endpoint:
    """Who is meant by a name, as a trace has it."""
    return endpoint(cluster(), OBSERVED, text)
