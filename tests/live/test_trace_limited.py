"""Traces from pods whose egress is limited: by one device more, whole and broken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from testbed.dataplane.features import Features
from tests.live.breaking import HERE, THERE, Fault, World, both, judged, rule, trace
from tests.live.conftest import Lasting, Running

CASES = [(cni, mode) for cni in ("flannel", "calico") for mode in ("iptables", "nftables", "ipvs")]
LIMITED, NEAR, FAR, PLAIN = "limited", "near", "both", "netexec-node2-1"
TARGETS = (NEAR, FAR, PLAIN, "node1", "node2", "svc/near", "svc/itself")
"""A neighbour, pods of another node, of which one is limited, too, both nodes, and Services."""


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def cluster(lasting: Lasting, able: Features, request: pytest.FixtureRequest) -> Iterator[Running]:
    """Bridged and routed pods; Services that a bridge or a node's routing translates."""
    cni, mode = request.param
    if mode == "ipvs" and not able.ip_vs:
        pytest.skip("this kernel has no ip_vs")
    with lasting(f"limited-{cni}", name=f"limited-{cni}-{mode}", proxy=mode) as found:
        yield found


def shaped(cluster: Running, **trace_of: Any) -> list[str]:
    """The senders of the shaped legs of a trace, of which every hop must be as expected."""
    found = trace(cluster, **trace_of)
    hops = [hop for leg in (found.request, found.reply) for hop in leg.observed]
    assert found.ok, found.diagnosis
    assert all(hop.expected for hop in hops), [hop for hop in hops if not hop.expected]
    return [hop.event.node for hop in hops if "shaped" in hop.happened]


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_limited_pod_sends_is_shaped(cluster: Running, target: str) -> None:
    """And so is what a limited pod answers; what they get is not."""
    answered = {FAR: ["node2"], "svc/itself": ["node1"]}.get(target, [])
    assert shaped(cluster, source=LIMITED, target=target) == ["node1", *answered]


def test_what_a_limited_pod_gets_is_not(cluster: Running) -> None:
    """The control: only its answers are."""
    for source in (NEAR, PLAIN, "node2"):
        for target in (LIMITED, "svc/itself"):
            assert shaped(cluster, source=source, target=target) == ["node1"]
    assert shaped(cluster, source=NEAR, target=PLAIN) == []


def faults(world: World) -> Iterator[Fault]:
    """The device itself, and what follows it: it is no hop that had to choose a way."""
    (device,) = [word for word in world.run("node1", "ls /sys/class/net").split() if "bwp" in word]
    shape = world.run("node1", f"tc qdisc show dev {device} root").split()
    rate, burst, latency = (shape[shape.index(each) + 1] for each in ("rate", "burst", "lat"))
    whole = f"handle 1: tbf rate {rate} burst {burst} latency {latency}"
    link = f"ip link set {device}"
    yield Fault(
        "down", both("node1", f"{link} down", f"{link} up"), "interface-down", "node1", device
    )
    queue = f"tc qdisc replace dev {device} root"
    blackhole = both("node1", f"{queue} blackhole", f"{queue} {whole}")
    yield Fault("drops", blackhole, "rule", "node1", device)
    ip, there = world.live.ip(LIMITED), world.there
    forget = both(
        "node1", f"{link} down; ip neigh flush dev eth0; ip neigh flush {ip}", f"{link} up"
    )
    yield Fault("asked for", forget, "interface-down", "node1", device, LIMITED, source=PLAIN)
    slow = f"{queue} handle 1: tbf rate 8bit burst 1600 limit 100k"
    often = f"timeout 1 ip netns exec {world.inside(LIMITED)} ping -q -i 0.002 {there}"
    words = f"of {device}"
    # timeout says 124: while the queue is full, ping waits for room and does not end by itself.
    held = both("node1", f"{slow}; {often} || true", f"{queue} blackhole; {queue} {whole}")
    yield Fault("held", held, "rule", "node1", words)
    yield Fault("answers held", held, "rule", "node1", words, LIMITED, source=PLAIN, leg="reply")
    dropped = rule("node1", f"FORWARD -s {ip} -j DROP")
    early = rule("node1", f"PREROUTING -t raw -s {ip} -j DROP")
    for target in (THERE, "svc/near", "svc/itself"):
        if world.live.cluster.proxy != "ipvs" or target == THERE:
            yield Fault(f"rule, {target}", dropped, "rule", "node1", ip, target)
        yield Fault(f"early rule, {target}", early, "rule", "node1", ip, target)
    gone = both("node1", f"ip route add blackhole {there}", f"ip route del blackhole {there}")
    yield Fault("blackhole", gone, "blackhole", "node1", there)
    off = f"net.ipv4.conf.{'cni0' if world.bridged else world.port(LIMITED)}.forwarding"
    steps = both("node1", f"sysctl -qw {off}=0", f"sysctl -qw {off}=1")
    yield Fault("forwarding", steps, "forwarding-off", "node1", off)
    port = world.port(LIMITED)
    if world.bridged:
        back = f"ip link set {port} master cni0; bridge link set dev {port} hairpin on"
        apart = both("node1", f"ip link set {port} nomaster", back)
        yield Fault("off its bridge", apart, "interface-down", "node1", "no port of cni0")
        blocked = f"bridge link set dev {port} state"
        steps = both("node1", f"{blocked} 0", f"{blocked} 3")
        yield Fault("blocked", steps, "interface-down", "node1", f"{port}: state disabled")


def test_faults_are_named(cluster: Running) -> None:
    """As those of any other pod."""
    found = list(faults(World(cluster)))
    assert len(found) >= 13
    judged(cluster, [replace(each, source=each.source.replace(HERE, LIMITED)) for each in found])


def test_a_connection_from_a_port_in_time_wait_is_followed(cluster: Running) -> None:
    """The kernel then continues the old connection's sequence numbers."""
    world = World(cluster)
    inside = f"ip netns exec {world.inside(NEAR)}"
    ports, reuse = "net.ipv4.ip_local_port_range", "net.ipv4.tcp_tw_reuse"
    was = [world.run("node1", f"{inside} sysctl -n {name}").strip() for name in (ports, reuse)]
    url = f"http://{world.there}:8080/hostname"
    try:
        world.run("node1", f"{inside} sysctl -qw '{ports}=40000 40031' {reuse}=1")
        world.run("node1", f"for i in $(seq 32); do {inside} curl -s -m 2 {url} || true; done")
        left = world.run("node1", f"{inside} ss -Htan state time-wait sport ge :40000").splitlines()
        assert len(left) >= 16  # curl fails where no port is free: then they are all in that state
        time.sleep(1.2)  # a port is free for another connection after a second
        found = [trace(cluster, NEAR, THERE, protocol="tcp", port=8080) for _ in range(3)]
    finally:
        world.run("node1", f"{inside} sysctl -qw '{ports}={was[0]}' {reuse}={was[1]}")
    assert [each.ok for each in found] == [True] * 3, [each.diagnosis for each in found]
