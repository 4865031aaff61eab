"""More faults than every CNI is broken by: bridges, tunnels, pods, replies, and a router between.

Each is made, named and undone, as in :mod:`tests.live.test_trace`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.breaking import (
    HERE,
    NEAR,
    TCP,
    THERE,
    Fault,
    World,
    both,
    judged,
    nft,
    rule,
    trace,
    within,
)
from tests.live.conftest import Lasting, Running


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


def in_filters(world: World) -> Iterator[Fault]:
    """What iptables does not show, rules within pods, and refusals that look like nobody's."""
    here, there, near = world.here, world.there, world.near
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
    )
    masquerade = rule("node1", f"POSTROUTING -t nat -s {here} -d {there} -j MASQUERADE")
    yield Fault("pods masqueraded", masquerade, "nat", "node1", "MASQUERADE", answered=True)
    yield Fault(
        "SNAT to nowhere",
        rule("node1", f"POSTROUTING -t nat -s {here} -d {there} -j SNAT --to 192.0.2.9"),
        "nat",
        "node1",
        "192.0.2.9",
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
    other = world.port("netexec-node2-2")
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
    ports = [world.port(pod) for pod in (HERE, NEAR)]
    isolate = "; ".join(f"bridge link set dev {port} isolated %s" for port in ports)
    yield Fault(
        "ports isolated",
        both("node1", isolate.replace("%s", "on"), isolate.replace("%s", "off")),
        "interface-down",
        "node1",
        "isolated",
        NEAR,
    )


def in_pods(world: World) -> Iterator[Fault]:
    """Addresses and gateways of pods, and rules for packets with a mark."""
    here, there, near = world.here, world.there, world.near
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
    flush = f"ip -n {world.inside(HERE)} neigh flush dev eth0"
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
    veth = world.port(HERE)
    proxy = f"sysctl -qw net.ipv4.conf.{veth}.proxy_arp"
    flush = f"ip -n {world.inside(HERE)} neigh flush dev eth0"
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
    judged(flannel, faults(World(flannel)))


def test_racks(calico: Running) -> None:
    """The same with a router in between."""
    judged(calico, in_racks(World(calico)))


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
