"""Two flannel nodes with a pod each, and a packet's way between them, made by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any

from testbed.packets.packet import ICMP, TCP, UDP, Packet, Tcp
from testbed.verify.observed import Observed
from testbed.verify.oracle import Encapsulation, Vxlan
from testbed.verify.trace.case import Case
from testbed.verify.trace.diagnosis import CAUSES, diagnose, questions
from testbed.verify.trace.model import Diagnosis, Endpoint, Event, ExpectedHop, Facts, Probe
from testbed.verify.trace.walk import Walk, follow

MARKER = "tb-4f1c"
VXLAN = Vxlan(1, 8472)
A, B = (
    Endpoint("default/a", "node1", "10.244.0.2", True),
    Endpoint("default/b", "node2", "10.244.1.2", True),
)
NODE1, NODE2 = (
    Endpoint("node1", "node1", "172.18.0.2", False),
    Endpoint("node2", "node2", "172.18.0.3", False),
)
NODES = {
    "node1": IPv4Address("172.18.0.2"),
    "node2": IPv4Address("172.18.0.3"),
    "node3": IPv4Address("172.18.0.4"),
}
VTEP = {"node1": "9e:00:00:00:00:01", "node2": "9e:00:00:00:00:02", "node3": "9e:00:00:00:00:03"}
VETH = {"node1": "vetha", "node2": "vethb"}
STEP_NS = 10_000
LATER = 2_000_000
"""When replies begin."""
ICMP_PROBE = Probe("icmp", B.ip, size=56, marker=MARKER)
TCP_PROBE = Probe("tcp", B.ip, 8080, marker=MARKER, sequence=1000)
UDP_PROBE = Probe("udp", B.ip, 8081, marker=MARKER)


def hop(
    place: str, interface: str, direction: str, how: Encapsulation = None, *, node: str = ""
) -> ExpectedHop:
    """An expected hop."""
    return ExpectedHop(place, node or place, interface, direction, how)


def way(there: str, back: str, source: str, target: str) -> tuple[ExpectedHop, ...]:
    """From pod ``source`` on node ``there`` to pod ``target`` on node ``back``, by VXLAN."""
    return (
        hop(source, "eth0", "out", node=there),
        hop(there, VETH[there], "in"),
        hop(there, "cni0", "in"),
        hop(there, "flannel.1", "out"),
        hop(there, "eth0", "out", VXLAN),
        hop(back, "eth0", "in", VXLAN),
        hop(back, "flannel.1", "in"),
        hop(back, "cni0", "out"),
        hop(back, VETH[back], "out"),
        hop(target, "eth0", "in", node=back),
    )


PATH = (way("node1", "node2", A.place, B.place), way("node2", "node1", B.place, A.place))
INDEX = {"a": 0, "vetha": 1, "cni0": 2, "flannel": 3, "out": 4, "in": 5, "decapsulated": 6}


def echo(*, reply: bool = False, ttl: int = 64, size: int = 56) -> Packet:
    """An ICMP echo request of the probe, or its reply."""
    ends = (A.ip, B.ip) if not reply else (B.ip, A.ip)
    return Packet(
        source_mac="02:00:00:00:00:01",
        destination_mac="02:00:00:00:00:02",
        ethertype=0x0800,
        source=IPv4Address(ends[0]),
        destination=IPv4Address(ends[1]),
        ttl=ttl,
        protocol=ICMP,
        icmp_type=0 if reply else 8,
        icmp_code=0,
        icmp_identity=7,
        payload=(MARKER * 500).encode()[:size],
        length=42 + size,
    )


def segment(flags: str, *, reply: bool = False, number: int = 1000) -> Packet:
    """A TCP segment of the probe's connection."""
    packet = echo(reply=reply)._replace(
        protocol=TCP, icmp_type=None, icmp_code=None, icmp_identity=None, payload=b""
    )
    ports = (8080, 40000) if reply else (40000, 8080)
    tcp = Tcp(77, number + 1, flags, 0) if reply else Tcp(number, 0, flags, 0)
    return packet._replace(source_port=ports[0], destination_port=ports[1], tcp=tcp)


def datagram(*, reply: bool = False) -> Packet:
    """A UDP datagram of the probe, or what answers it."""
    ports = (8081, 40000) if reply else (40000, 8081)
    return (
        echo(reply=reply)
        ._replace(
            protocol=UDP,
            icmp_type=None,
            icmp_code=None,
            icmp_identity=None,
            source_port=ports[0],
            destination_port=ports[1],
            payload=b"" if reply else b"echo " + MARKER.encode() * 4,
        )
        ._replace(payload=(b"" if reply else b"echo ") + MARKER.encode() * 4)
    )


def vxlan(inner: Packet, source: str = "node1", target: str = "node2", vni: int = 1) -> Packet:
    """The frame that carries ``inner`` from one node to another."""
    return Packet(
        source_mac="02:42:00:00:00:01",
        destination_mac="02:42:00:00:00:02",
        ethertype=0x0800,
        source=NODES[source],
        destination=NODES[target],
        ttl=64,
        protocol=UDP,
        source_port=50000,
        destination_port=8472,
        vni=vni,
        inner=inner,
        length=inner.length + 50,
    )


def at(expected: ExpectedHop, packet: Packet, time: int) -> Event:
    """A sight of ``packet`` at a hop."""
    packet = packet._replace(
        time_ns=time,
        interface=f"{expected.place}/{expected.interface}",
        direction=expected.direction,
    )
    return Event(expected.place, expected.node, expected.interface, expected.direction, packet)


def travel(
    path: Sequence[ExpectedHop],
    packet: Packet,
    *,
    hops: int | None = None,
    begin: int = 1_000_000,
    reply: bool = False,
) -> list[Event]:
    """What is seen of ``packet`` on the first ``hops`` of ``path``, as flannel treats it."""
    ends = ("node2", "node1") if reply else ("node1", "node2")
    events = []
    for count, expected in enumerate(path[:hops]):
        ttl = 64 - (count >= 3) - (count >= 7)
        inner = packet._replace(ttl=ttl)
        if 3 <= count <= 6:
            inner = inner._replace(source_mac=VTEP[ends[0]], destination_mac=VTEP[ends[1]])
        elif count > 6:
            inner = inner._replace(
                source_mac="02:00:00:00:01:01", destination_mac=f"02:00:{count > 9:02}:00:01:02"
            )
        seen = vxlan(inner, *ends) if expected.encapsulation else inner
        events.append(at(expected, seen, begin + count * STEP_NS))
    return events


def link(name: str, *flags: str, mtu: int = 1450, **more: Any) -> dict[str, Any]:
    """A row of ``ip -j link``."""
    return {
        "ifname": name,
        "flags": list(flags or ("BROADCAST", "UP", "LOWER_UP")),
        "mtu": mtu,
        "operstate": "UP",
        **more,
    }


def node_facts(node: str, other: str, index: int) -> dict[str, Any]:
    """A healthy flannel node of two, number ``index`` from 0."""
    there = 1 - index
    return {
        "links": [
            link("eth0", mtu=1500),
            link("flannel.1", address=VTEP[node], linkinfo={"info_kind": "vxlan"}),
            link("cni0", linkinfo={"info_kind": "bridge"}),
            link(VETH[node], master="cni0", linkinfo={"info_kind": "veth"}),
        ],
        "addresses": [
            {"ifname": "eth0", "addr_info": [{"local": str(NODES[node])}]},
            {"ifname": "flannel.1", "addr_info": [{"local": f"10.244.{index}.0"}]},
            {"ifname": "cni0", "addr_info": [{"local": f"10.244.{index}.1"}]},
        ],
        "routes": [
            {"dst": "default", "gateway": "172.18.0.1", "dev": "eth0"},
            {"dst": f"10.244.{index}.0/24", "dev": "cni0"},
            {"dst": f"10.244.{there}.0/24", "gateway": f"10.244.{there}.0", "dev": "flannel.1"},
            {"dst": "172.18.0.0/16", "dev": "eth0"},
        ],
        "neighbours": [
            {
                "dst": f"10.244.{there}.0",
                "dev": "flannel.1",
                "lladdr": VTEP[other],
                "state": ["PERMANENT"],
            },
        ],
        "fdb": [{"mac": VTEP[other], "ifname": "flannel.1", "dst": str(NODES[other])}],
        "sysctls": {"net.ipv4.ip_forward": "1", "net.ipv4.conf.cni0.forwarding": "1"},
        "counters": {"TcpExt.IPReversePathFilter": 0},
        "iptables": FILTER,
        "nft": "",
        "filters": "",
    }


FILTER = """*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:FLANNEL-FWD - [0:0]
[216:15524] -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
[216:15524] -A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
"""


def pod_facts() -> dict[str, Any]:
    """A healthy pod."""
    return {"links": [link("lo", "LOOPBACK", "UP"), link("eth0")], "iptables": "", "counters": {}}


def healthy() -> dict[str, dict[str, dict[str, Any]]]:
    """The facts of both nodes, by node and namespace."""
    return {
        "node1": {"": node_facts("node1", "node2", 0), A.place: pod_facts()},
        "node2": {"": node_facts("node2", "node1", 1), B.place: pod_facts()},
    }


@dataclass
class World:
    """A probe from pod a to pod b, to be broken."""

    probe: Probe = ICMP_PROBE
    before: dict[str, dict[str, dict[str, Any]]] = field(default_factory=healthy)
    after: dict[str, dict[str, dict[str, Any]]] = field(default_factory=healthy)
    pods: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            A.place: {"ip": A.ip, "host_interface": "vetha", "state": "Running"},
            B.place: {"ip": B.ip, "host_interface": "vethb", "state": "Running"},
        }
    )
    nodes: dict[str, IPv4Address] = field(default_factory=lambda: dict(NODES))
    answers: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Destination → the answer to every question for it."""

    def node(self, name: str) -> dict[str, Any]:
        """The facts of a node after the probe."""
        return self.after[name][""]

    def count(
        self, name: str, old: str, new: str, *, space: str = "", key: str = "iptables"
    ) -> None:
        """A ruleset before and after."""
        self.before[name][space][key] = old
        self.after[name][space][key] = new

    def case(
        self,
        events: Iterable[Event],
        *,
        answered: bool = False,
        error: str = "",
        source: Endpoint = A,
        target: Endpoint = B,
        path: tuple[tuple[ExpectedHop, ...], tuple[ExpectedHop, ...]] = PATH,
    ) -> Case:
        """What there is to judge."""
        walk: Walk = follow(list(events), self.probe, path, source, target, nodes=self.nodes)
        facts = {node: Facts(self.before[node], self.after[node]) for node in self.after}
        observed = Observed(self.nodes, self.pods)
        case = Case(self.probe, source, target, walk, observed, facts, answered, error)
        answers = {
            each: self.answers[each.to] for each in questions(case) if each.to in self.answers
        }
        return replace(case, answers=answers)


def request(hops: int, packet: Packet | None = None) -> list[Event]:
    """The request's first hops."""
    return travel(PATH[0], packet or echo(), hops=hops)


def reply(hops: int) -> list[Event]:
    """The whole request, and the reply's first hops."""
    back = travel(PATH[1], echo(reply=True), hops=hops, begin=LATER, reply=True)
    return request(10) + back


def rule(text: str, packets: int, after: str = ":OUTPUT ACCEPT [0:0]\n") -> str:
    """The filter table with one more rule at its beginning."""
    line = f"[{packets}:{packets * 134}] {text}\n"
    return FILTER.replace(":FLANNEL-FWD - [0:0]\n", f":FLANNEL-FWD - [0:0]\n{line}")


def verdict(world: World, events: list[Event], **how: Any) -> Diagnosis:
    """The diagnosis, whose cause is always one of the documented words."""
    found = diagnose(world.case(events, **how))
    assert found is not None
    assert found.cause in CAUSES
    return found


def error(
    code: int, kind: int = 3, *, source: str = "10.244.0.1", mtu: int | None = None
) -> Packet:
    """An ICMP error about the probe."""
    return Packet(
        source_mac="02:00:00:00:00:09",
        source=IPv4Address(source),
        destination=IPv4Address(A.ip),
        ttl=64,
        protocol=1,
        icmp_type=kind,
        icmp_code=code,
        icmp_mtu=mtu,
        quoted=echo(),
    )
