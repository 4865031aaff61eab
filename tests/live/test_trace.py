"""Tracing one packet: every kind of pair, and every way of breaking it, named by its true cause.

Each breakage is undone and the same pair traced again: the cause named is the fault that was made,
not one that was there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.packets.capturefile import read
from tests.live.breaking import (
    HERE,
    NEAR,
    TCP,
    THERE,
    Fault,
    World,
    both,
    judged,
    rule,
    seen,
    trace,
)
from tests.live.conftest import Cli, Lasting, Running

TOPOLOGIES = ("flannel", "flannel-host-gw", "calico", "kindnet")


@pytest.fixture(scope="module", params=TOPOLOGIES)
def cluster(lasting: Lasting, request: pytest.FixtureRequest) -> Iterator[Running]:
    """Three nodes of each CNI, the same for all its traces."""
    with lasting(request.param, name="trace") as found:
        yield found


PAIRS = [
    (HERE, THERE),
    (HERE, NEAR),
    ("node1", HERE),
    ("node1", THERE),
    (HERE, HERE),
    (HERE, "node1"),
    (HERE, "node2"),
    ("node1", "node2"),
]


@pytest.mark.parametrize(
    ("source", "target", "probe"),
    [(*pair, {}) for pair in PAIRS] + [(*pair, TCP) for pair in PAIRS if pair[1] in (NEAR, THERE)],
    ids=lambda value: (
        value.replace("netexec-", "") if isinstance(value, str) else value.get("protocol", "icmp")
    ),
)
def test_every_pair_takes_the_expected_path(
    cluster: Running, source: str, target: str, probe: dict[str, Any]
) -> None:
    """Same node, cross node, node to pod, pod to node, itself: no hop missing, none too many."""
    found = trace(cluster, source, target, **probe)
    assert found.answered, found.error
    assert found.diagnosis is None, found.diagnosis
    assert found.ok, seen(found)
    assert not found.strays, found.strays
    for leg in (found.request, found.reply):
        hops = [(hop.place, hop.interface, hop.direction) for hop in leg.expected]
        observed = [(h.event.place, h.event.interface, h.event.direction) for h in leg.observed]
        assert observed == hops


def faults(world: World) -> list[Fault]:
    """Every fault that this CNI can have."""
    return [
        missing_route(world),
        *wrong_ways(world),
        *own_routes(world),
        *blocked_tunnels(world),
        *in_rules(world),
        *in_links(world),
        *in_routing(world),
    ]


def in_rules(world: World) -> Iterator[Fault]:
    """netfilter: dropped, rejected, translated."""
    there = world.there
    other = world.live.ip("netexec-node2-2")
    yield Fault("FORWARD drops", rule("node2", f"FORWARD -d {there} -j DROP"), "rule", "node2")
    yield Fault("rejected", rule("node1", f"FORWARD -d {there} -j REJECT"), "rule", "node1")
    yield Fault(
        "reply dropped",
        rule("node2", f"FORWARD -s {there} -j DROP"),
        "rule",
        "node2",
        leg="reply",
    )
    yield Fault(
        "DNAT elsewhere",
        rule("node2", f"PREROUTING -t nat -d {there} -p tcp -j DNAT --to {other}"),
        "nat",
        "node2",
        probe=TCP,
        answered=True,
    )


def in_links(world: World) -> Iterator[Fault]:
    """Devices and neighbours."""
    there, veth = world.there, world.veth
    on_veth = world.run("node2", f"ip -4 route show dev {veth}").strip()
    again = f"; ip route replace {on_veth} dev {veth}" if on_veth else ""
    mtu = world.run("node1", f"cat /sys/class/net/{world.overlay}/mtu").strip()
    flush = f"ip neigh flush to {there}"
    arp = f"nsenter --net={world.netns} ip link set eth0 arp"
    deliverer = "cni0" if world.cni == "flannel" else veth
    yield Fault(
        "MTU",
        both(
            "node1",
            f"ip link set {world.overlay} mtu 1300",
            f"ip link set {world.overlay} mtu {mtu}",
        ),
        "mtu",
        "node1",
        probe={"size": 1400, "dont_fragment": True},
        whole={},
    )
    yield Fault(
        "interface down",
        both("node2", f"ip link set {veth} down", f"ip link set {veth} up{again}"),
        "interface-down",
        "node2",
    )
    yield Fault(
        "wrong neighbour",
        both(
            "node2",
            f"ip neigh replace {there} lladdr 02:00:00:00:00:99 dev {deliverer} nud permanent",
            f"ip neigh del {there} dev {deliverer}",
        ),
        "no-neighbour",
        "node2",
    )
    yield Fault(
        "ARP unanswered",
        both("node2", f"{arp} off; {flush}", f"{arp} on; {flush}"),
        "arp-unanswered",
        "node2",
    )


def in_routing(world: World) -> Iterator[Fault]:
    """Settings and policies around routes."""
    here, veth = world.here, world.veth
    sysctl = "sysctl -qw net.ipv4"
    was = world.run("node2", "cat /proc/sys/net/ipv4/conf/all/rp_filter").strip()
    yield Fault(
        "rp_filter",
        both(
            "node2",
            f"ip route add {here} dev {veth}; {sysctl}.conf.all.rp_filter=1",
            f"{sysctl}.conf.all.rp_filter={was}; ip route del {here} dev {veth}",
        ),
        "rp-filter",
        "node2",
    )
    yield Fault(
        "forwarding off",
        both("node2", f"{sysctl}.ip_forward=0", f"{sysctl}.ip_forward=1"),
        "forwarding-off",
        "node2",
    )
    yield Fault(
        "routing policy",
        both(
            "node1",
            f"ip rule add from {here} prio 100 lookup 77;"
            " ip route add unreachable default table 77",
            "ip rule del prio 100; ip route flush table 77",
        ),
        "blackhole",
        "node1",
    )


def missing_route(world: World) -> Fault:
    """BIRD puts its routes back within two seconds, so it is stopped before."""
    route = world.run("node1", f"ip route show {world.remote}").strip()
    make, undo = both("node1", f"ip route del {world.remote}", f"ip route replace {route}")
    if world.cni == "calico":
        make = (("node1", "testbed-agent process stop bird"), *make)
        undo = (("node1", "testbed-agent process start bird"),)
    return Fault("missing route", (make, undo), "no-route", "node1")


def wrong_ways(world: World) -> Iterator[Fault]:
    """To another node: by VXLAN's tables, or by a route."""
    if world.overlay != "flannel.1":
        way = f"{world.there} via {world.node3} dev {world.overlay} onlink"
        detour = both("node1", f"ip route add {way}", f"ip route del {way}")
        # node3 knows the way: it arrives nevertheless.
        yield Fault("wrong route", detour, "wrong-route", "node1", answered=True)
        return
    vtep = str(world.live.cluster.node("node2").pod_cidr.network_address)
    shown = world.run("node1", f"ip neigh show {vtep} dev flannel.1")
    mac = shown.split("lladdr ")[1].split()[0]
    entry = next(
        line
        for line in world.run("node1", "bridge fdb show dev flannel.1").splitlines()
        if mac in line
    )
    node2 = entry.split("dst ")[1].split()[0]
    fdb = f"bridge fdb replace {mac} dev flannel.1 dst"
    right = f"{fdb} {node2} self permanent"
    away = both("node1", f"{fdb} {world.node3} self permanent", right)
    yield Fault("wrong FDB", away, "wrong-fdb", "node1")
    gone = both("node1", f"bridge fdb del {mac} dev flannel.1 dst {node2} self", right)
    yield Fault("no FDB", gone, "no-fdb", "node1")
    neighbour = f"{vtep} lladdr {mac} dev flannel.1 nud permanent"
    forgotten = both("node1", f"ip neigh del {vtep} dev flannel.1", f"ip neigh replace {neighbour}")
    yield Fault("no neighbour", forgotten, "no-neighbour", "node1")


def own_routes(world: World) -> Iterator[Fault]:
    """Of a pod, where its node has one for each: Calico's blackhole is around them."""
    if world.cni == "calico":
        route = world.run("node2", f"ip route show {world.there}").strip()
        gone = both("node2", f"ip route del {world.there}", f"ip route add {route}")
        yield Fault("pod's route", gone, "no-route", "node2")


def blocked_tunnels(world: World) -> Iterator[Fault]:
    """Outer packets that do not pass; those of the eBPF driver never meet netfilter on nodes."""
    if world.overlay == "flannel.1":
        words = "-p udp --dport 8472 -j DROP"
        yield Fault("UDP 8472 blocked", rule("node2", f"INPUT {words}"), "rule", "node2")
        yield Fault("UDP 8472 not let out", rule("node1", f"OUTPUT {words}"), "rule", "node1")
    elif world.overlay == "tunl0" and world.live.outcome.status["ipip"] == "kernel":
        yield Fault("protocol 4 blocked", rule("node2", "INPUT -p 4 -j DROP"), "rule", "node2")
    elif world.overlay == "tunl0":
        # Classic BPF, which every kernel has: drop (2) what has 4 in the tenth byte behind 14.
        program = "4,48 0 0 23,21 0 1 4,6 0 0 2,6 0 0 4294967295"
        way = "dev eth0 egress pref 9 protocol ip bpf"
        block = both(
            "node1",
            f"tc filter add {way} bytecode '{program}' direct-action",
            f"tc filter del {way}",
        )
        yield Fault("protocol 4 blocked", block, "rule", "node1")


def test_every_fault_is_named(cluster: Running) -> None:
    """What was broken, where it was broken, and the walk up to there; undone, the packet passes."""
    broken = faults(World(cluster))
    assert len(broken) >= 10
    judged(cluster, broken)


def test_protocol_4_is_blocked_on_the_way(make: Callable[..., Running]) -> None:
    """By the router between two racks, as a firewall would; whichever driver made the packets."""
    live = make("calico-cross-subnet")
    target = next(pod for pod in live.cluster.pods if pod.node == "node3").name
    whole = trace(live, HERE, target)
    assert whole.ok, (whole.diagnosis, seen(whole))
    assert {hop.event.place for hop in whole.request.observed} >= {"node1", "tor", "node3"}
    live.host("tor").check_output("iptables -I FORWARD -p 4 -j DROP")
    verdict = trace(live, HERE, target).diagnosis
    assert verdict is not None
    assert (verdict.cause, verdict.leg, verdict.place) == ("rule", "request", "tor"), verdict
    assert any("-j DROP" in line for line in verdict.evidence), verdict
    live.host("tor").check_output("iptables -D FORWARD -p 4 -j DROP")
    assert trace(live, HERE, target).ok


def test_nobody_listens(cluster: Running) -> None:
    """TCP is reset, UDP is told that the port is unreachable: the walk is complete both ways."""
    for probe in ({"protocol": "tcp", "port": 9}, {"protocol": "udp", "port": 9}):
        found = trace(cluster, HERE, THERE, **probe)
        assert found.diagnosis is not None
        assert (found.diagnosis.cause, found.diagnosis.place) == ("no-listener", f"default/{THERE}")
        assert found.request.complete


def test_a_large_probe_is_fragmented(cluster: Running) -> None:
    """Without DF: one hop a crossing, made up of several frames."""
    found = trace(cluster, HERE, THERE, size=3000)
    assert found.answered, found.error
    assert {hop.fragments for hop in found.request.observed} & {3}, found.request.observed


def test_outputs(cluster: Running, cli: Cli, tmp_path: Path) -> None:
    """Text, JSON with stable keys, a capture that tells the same, and pictures by themselves."""
    files = {kind: tmp_path / f"walk.{kind}" for kind in ("pcapng", "svg", "html")}
    words = [word for kind, path in files.items() for word in (_FLAGS[kind], str(path))]
    done = cli("trace", HERE, THERE, "--name", cluster.name, *words)
    assert done.returncode == 0, done.stderr
    assert f"{HERE}" in done.stdout
    packets = read(files["pcapng"].read_bytes())
    assert {f"default/{HERE}/eth0", "node1/eth0", "node2/eth0", f"default/{THERE}/eth0"} <= {
        packet.interface for packet in packets
    }
    assert [packet.time_ns for packet in packets] == sorted(packet.time_ns for packet in packets)
    for kind in ("svg", "html"):
        text = files[kind].read_text()
        assert "node1" in text
        assert "http://" not in text.replace("http://www.w3.org/", "")
    shown = json.loads(cli("trace", HERE, THERE, "--name", cluster.name, "-o", "json").stdout)
    assert shown["answered"] is True
    assert len(shown["request"]["observed"]) == len(shown["request"]["expected"])


_FLAGS = {"pcapng": "--pcap", "svg": "--svg", "html": "--html"}


def test_the_pod_is_gone(cluster: Running) -> None:
    """Its end of the cable is pulled out; last but one, since nothing puts it back."""
    world = World(cluster)
    world.run("node2", f"ip link del {world.veth}")
    found = trace(cluster, HERE, THERE)
    assert found.diagnosis is not None
    assert (found.diagnosis.cause, found.answered) == ("pod-gone", False), found.diagnosis


def test_the_node_is_down(cluster: Running) -> None:
    """Last: it stays down."""
    cluster.client.api.stop(cluster.container("node2"))
    found = trace(cluster, HERE, THERE)
    assert found.diagnosis is not None
    assert (found.diagnosis.cause, found.diagnosis.place) == ("node-down", "node2")
