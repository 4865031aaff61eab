"""More faults than every CNI is broken by: bridges, tunnels, pods, replies, and a router between.

Each is made, named and undone, as in :mod:`tests.live.test_trace`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.live.conftest import SLOWNESS, Lasting, Running
from tests.live.test_trace import (
    HERE,
    NEAR,
    THERE,
    Steps,
    World,
    both,
    rule,
    seen,
    trace,
)

TCP = {"protocol": "tcp", "port": 8080}


@dataclass(frozen=True)
class Fault:
    """How to make and undo it; what the diagnosis must say, and the words that prove it."""

    name: str
    steps: tuple[Steps, Steps]
    cause: str
    place: str
    words: str = ""
    target: str = THERE
    probe: dict[str, Any] = field(default_factory=dict)
    leg: str = "request"
    answered: bool = False


@pytest.fixture(scope="module")
def flannel(lasting: Lasting) -> Iterator[Running]:
    """Bridges and VXLAN."""
    with lasting("flannel", name="faults") as found:
        yield found


@pytest.fixture(scope="module")
def calico(lasting: Lasting) -> Iterator[Running]:
    """Routed pods, and a router between two racks."""
    with lasting("calico-cross-subnet", name="faults-racks") as found:
        yield found


def within(world: World, pod: str, steps: tuple[Steps, Steps]) -> tuple[Steps, Steps]:
    """Steps in a pod's network namespace, with its node's rights: pods have none to do so."""
    node = next(each.node for each in world.live.cluster.pods if each.name == pod)
    inside = f"ip netns exec {_of(world, pod)['netns'].rpartition('/')[2]} sh -ec"
    make, undo = (
        tuple((node, f'{inside} "{command}"') for _, command in commands) for commands in steps
    )
    return make, undo


def nft(where: str, body: str, family: str = "inet") -> tuple[Steps, Steps]:
    """A table of one's own."""
    return both(
        where,
        f"echo 'table {family} broken {{ {body}; }}' | nft -f -",
        f"nft delete table {family} broken",
    )


def in_filters(world: World) -> Iterator[Fault]:
    """What iptables does not show, rules within pods, and refusals that look like nobody's."""
    here, there, near = world.here, world.there, world.live.ip(NEAR)
    node2, pod = "node2", f"default/{THERE}"
    hook = "chain c { type filter hook %s priority -5;"
    uncounted = f"map m {{ type ipv4_addr : verdict; elements = {{ {there} : drop }} }};"
    yield Fault(
        "verdict map",
        nft(node2, f"{uncounted} {hook % 'forward'} ip daddr vmap @m; }}"),
        "rule",
        node2,
        "which counts nothing",
    )
    drop = f"-p IPv4 --ip-dst {near} -j DROP"
    yield Fault(
        "ebtables",
        both("node1", f"ebtables -A FORWARD {drop}", f"ebtables -D FORWARD {drop}"),
        "rule",
        "node1",
        "table bridge filter",
        NEAR,
    )
    yield Fault(
        "the pod's own OUTPUT",
        within(world, THERE, rule(THERE, f"OUTPUT -d {here} -j DROP")),
        "rule",
        pod,
        "OUTPUT",
        leg="reply",
    )
    yield Fault(
        "a reset that is a rule's",
        within(
            world,
            THERE,
            nft(THERE, f"{hook % 'input'} tcp dport 8080 counter reject with tcp reset; }}"),
        ),
        "rule",
        pod,
        "rejected it",
        probe=TCP,
        leg="reply",
    )
    masquerade = rule("node1", f"POSTROUTING -t nat -s {here} -d {there} -j MASQUERADE")
    yield Fault("pods masqueraded", masquerade, "nat", "node1", "MASQUERADE", answered=True)
    yield Fault(
        "SNAT to nowhere",
        rule("node1", f"POSTROUTING -t nat -s {here} -d {there} -j SNAT --to 192.0.2.9"),
        "nat",
        "node1",
        "192.0.2.9",
        leg="reply",
    )
    queue = "dev flannel.1 root"
    yield Fault(
        "a queue without room",
        both(
            "node1",
            f"tc qdisc add {queue} tbf rate 8bit burst 10 limit 1",
            f"tc qdisc del {queue}",
        ),
        "rule",
        "node1",
        "tbf",
    )


def in_bridges(world: World) -> Iterator[Fault]:
    """Ports, and what a bridge has learned."""
    veth = world.veth
    other = str(_of(world, "netexec-node2-2")["host_interface"])
    mac = json.loads(world.run(THERE, "ip -j link show eth0"))[0]["address"]
    yield Fault(
        "port disabled",
        both(
            "node2",
            f"bridge link set dev {veth} state 0",
            f"bridge link set dev {veth} state 3",
        ),
        "interface-down",
        "node2",
        "state disabled",
    )
    yield Fault(
        "behind another port",
        both(
            "node2",
            f"bridge fdb replace {mac} dev {other} master static sticky",
            f"bridge fdb del {mac} dev {other} master",
        ),
        "wrong-fdb",
        "node2",
        other,
    )
    ports = [str(_of(world, pod)["host_interface"]) for pod in (HERE, NEAR)]
    isolate = "; ".join(f"bridge link set dev {port} isolated %s" for port in ports)
    yield Fault(
        "ports isolated",
        both("node1", isolate.replace("%s", "on"), isolate.replace("%s", "off")),
        "interface-down",
        "node1",
        "isolated",
        NEAR,
    )


def _of(world: World, pod: str) -> dict[str, Any]:
    """What its node says of a pod."""
    node = next(each.node for each in world.live.cluster.pods if each.name == pod)
    pods: list[dict[str, Any]] = json.loads(world.run(node, "testbed-agent status"))["pods"]
    return next(each for each in pods if each["name"] == pod)


def in_pods(world: World) -> Iterator[Fault]:
    """Addresses and gateways of pods, and rules for packets with a mark."""
    here, there, near = world.here, world.there, world.live.ip(NEAR)
    pod = f"default/{HERE}"
    route = f"{there} via 10.244.0.1 src 10.99.0.9"
    yield Fault(
        "not its own address",
        within(
            world,
            HERE,
            both(
                HERE,
                f"ip addr add 10.99.0.9/32 dev eth0; ip route add {route}",
                f"ip route del {route}; ip addr del 10.99.0.9/32 dev eth0",
            ),
        ),
        "wrong-source",
        pod,
        "10.99.0.9",
        leg="reply",
    )
    yield Fault(
        "another pod as gateway",
        within(
            world, HERE, both(HERE, f"ip route add {there} via {near}", f"ip route del {there}")
        ),
        "wrong-route",
        pod,
        NEAR,
    )
    mute = "sysctl -qw net.ipv4.conf.cni0.arp_ignore"
    flush = f"ip -n {_of(world, HERE)['netns'].rpartition('/')[2]} neigh flush dev eth0"
    yield Fault(
        "gateway does not answer",
        both("node1", f"{mute}=8; {flush}", f"{mute}=0; {flush}"),
        "arp-unanswered",
        pod,
        "10.244.0.1",
    )
    mark = f"PREROUTING -d {there} -j MARK --set-mark 5"
    yield Fault(
        "a mark",
        both(
            "node1",
            f"iptables -t mangle -I {mark}; ip rule add fwmark 5 prio 99 unreachable",
            f"iptables -t mangle -D {mark}; ip rule del prio 99",
        ),
        "blackhole",
        "node1",
        "fwmark 0x5",
    )
    nat = "iptables-save -t nat > /run/nat; iptables -t nat -F POSTROUTING"
    yield Fault(
        "not masqueraded",
        both("node1", nat, "iptables-restore < /run/nat"),
        "no-snat",
        "node1",
        here,
        "node2",
        answered=True,
    )


def in_racks(world: World) -> Iterator[Fault]:
    """A router routes what carries the pods' packets; Calico's pods have a gateway by ARP only."""
    far = "netexec-node3-1"
    node3 = world.node3
    yield Fault(
        "router's blackhole",
        both("tor", f"ip route add blackhole {node3}", f"ip route del blackhole {node3}"),
        "blackhole",
        "tor",
        node3,
        far,
    )
    veth = str(_of(world, HERE)["host_interface"])
    proxy = f"sysctl -qw net.ipv4.conf.{veth}.proxy_arp"
    flush = f"ip -n {_of(world, HERE)['netns'].rpartition('/')[2]} neigh flush dev eth0"
    yield Fault(
        "proxy ARP off",
        both("node1", f"{proxy}=0; {flush}", f"{proxy}=1; {flush}"),
        "arp-unanswered",
        f"default/{HERE}",
        f"{veth}.proxy_arp = 0",
    )


@pytest.mark.parametrize(
    "faults", [in_filters, in_bridges, in_pods], ids=lambda each: each.__name__
)
def test_flannel(flannel: Running, faults: Any) -> None:
    """Every fault is named by its cause and its place; undone, the packet passes."""
    judged(flannel, faults)


def test_racks(calico: Running) -> None:
    """The same with a router in between."""
    judged(calico, in_racks)


def test_a_vni_of_its_own(flannel: Running) -> None:
    """The device is named, and what the advice says puts it right: last, as it is made anew."""
    world = World(flannel)
    made = world.run("node2", "ip -d link show flannel.1")
    mac, node2 = made.split("link/ether ")[1].split()[0], flannel.host("node2").interface("eth0")
    options = f"type vxlan id 2 local {node2.addresses[0]} dev eth0 dstport 8472 nolearning"
    world.run("node2", f"ip link del flannel.1; ip link add flannel.1 address {mac} {options}")
    world.run("node2", "ip link set flannel.1 mtu 1450 up")
    verdict = trace(flannel, HERE, THERE).diagnosis
    assert verdict is not None
    assert (verdict.cause, verdict.place) == ("wrong-tunnel", "node2"), verdict
    assert "VNI 2, not 1" in verdict.summary


def judged(live: Running, faults: Any) -> None:
    """Make, trace and undo them one by one."""
    world = World(live)
    wrong: list[str] = []
    for fault in faults(world):
        make, undo = fault.steps
        try:
            for where, command in make:
                world.run(where, command)
            found = trace(live, HERE, fault.target, **fault.probe)
        finally:
            for where, command in undo:
                world.run(where, command)
        verdict = found.diagnosis
        said = (verdict.cause, verdict.place, verdict.leg) if verdict else None
        told = "\n".join((verdict.summary, *verdict.evidence, verdict.advice)) if verdict else ""
        right = said == (fault.cause, fault.place, fault.leg) and fault.words in told
        if found.ok or found.answered is not fault.answered or not right:
            wrong.append(f"{fault.name}: {verdict}\n  seen: {seen(found)}")
        passes_again(live, fault)
    assert not wrong, "\n".join(wrong)


def passes_again(live: Running, fault: Fault) -> None:
    """The control: without the fault the same packet arrives."""
    deadline = time.monotonic() + 15 * SLOWNESS
    while not (found := trace(live, HERE, fault.target, **fault.probe)).ok:
        assert time.monotonic() < deadline, f"after {fault.name}: {found.diagnosis}"
        time.sleep(0.1)
