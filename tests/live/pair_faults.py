"""What can go wrong between each kind of pair but two pods of two nodes, for every CNI.

What is to be named was decided from how Linux forwards, before it was tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.live.breaking import (
    HERE,
    NEAR,
    TCP,
    THERE,
    Fault,
    Steps,
    World,
    both,
    nft,
    rule,
    within,
)
from tests.live.pair_steps import (
    NOBODY,
    asymmetric,
    downed,
    echoes,
    ends,
    entering,
    forwarding,
    leaving,
    mtu,
    mute,
    neighbour,
    no_routes,
    nobody,
    policy,
    refused,
    unheard,
    without,
    without_address,
)

LARGE = {"size": 1400, "dont_fragment": True}
DROP_ICMP = "4,48 0 0 23,21 0 1 1,6 0 0 2,6 0 0 4294967295"
"""Classic BPF, which every kernel has: drop (2) what has 1 in the tenth byte behind 14."""


def same_node(world: World) -> Iterator[Fault]:
    """Two pods of node1: one bridge, or node1's routes."""
    here, near, port = world.here, world.near, world.port(NEAR)
    pod = f"default/{NEAR}"
    node1, own = "node1", f"default/{HERE}"
    for fault in (
        Fault("veth down", downed(world, NEAR), "interface-down", node1, port),
        Fault("FORWARD", rule(node1, f"FORWARD -s {here} -d {near} -j DROP"), "rule", node1),
        Fault(
            "FORWARD back",
            rule(node1, f"FORWARD -s {near} -d {here} -j DROP"),
            "rule",
            node1,
            leg="reply",
        ),
        *ends(world, HERE, NEAR, near, here),
        no_routes(world, HERE, near),
        Fault("MTU", mtu(world, HERE, "eth0"), "mtu", own, probe=LARGE),
        echoes(world, NEAR),
        *(bridged(world) if world.bridged else routed(world)),
        nobody("tcp", pod),
        nobody("udp", pod),
        without_address(world, NEAR),
    ):
        yield replace(fault, target=NEAR)


def bridged(world: World) -> Iterator[Fault]:
    """Pods that ask for each other by ARP."""
    near, port, pod = world.near, world.port(NEAR), f"default/{HERE}"
    back = f"ip link set {port} master cni0; bridge link set dev {port} hairpin on"
    yield Fault(
        "off its bridge",
        both("node1", f"ip link set {port} nomaster", back),
        "interface-down",
        "node1",
        "no port of cni0",
    )
    yield Fault(
        "wrong neighbour", within(world, HERE, neighbour(near, "eth0")), "no-neighbour", pod, NOBODY
    )
    forget = f"ip -n {world.inside(HERE)} neigh flush to {near}"
    yield Fault("ARP off", mute(world, NEAR, forget), "arp-unanswered", pod, near)


def routed(world: World) -> Iterator[Fault]:
    """Pods that have a route each."""
    here, near, port = world.here, world.near, world.port(NEAR)
    gateway = {"calico": "169.254.1.1"}.get(world.cni, "10.244.0.1")
    yield Fault("wrong neighbour", neighbour(near, port, "node1"), "no-neighbour", "node1", NOBODY)
    yield Fault(
        "wrong gateway's MAC",
        within(world, HERE, neighbour(gateway, "eth0")),
        "no-neighbour",
        f"default/{HERE}",
        NOBODY,
    )
    yield Fault(
        "ARP off", mute(world, NEAR, f"ip neigh flush to {near}"), "arp-unanswered", "node1", near
    )
    yield Fault("pod's route", without(world, "node1", near), "no-route", "node1", near)
    yield Fault("forwarding off", forwarding("node1"), "forwarding-off", "node1")
    yield Fault("rp_filter", asymmetric(world, "node1", here, port), "rp-filter", "node1")


def to_pod(world: World) -> Iterator[Fault]:
    """node1 to a pod of node2."""
    there, veth, pod = world.there, world.veth, f"default/{THERE}"
    sender = {"flannel.1": f"{world.live.cluster.node('node1').pod_cidr.network_address}"}.get(
        world.overlay, world.node1
    )
    if world.overlay == "tunl0":
        sender = str(world.live.host("node1").interface("tunl0").addresses[0])
    deliverer = "cni0" if world.bridged else veth
    node1, node2 = "node1", "node2"
    outer = "PREROUTING -t raw -i eth0"
    what = {"flannel.1": "-p udp --dport 8472", "tunl0": "-p 4"}.get(world.overlay, f"-d {there}")
    for fault in (
        Fault("OUTPUT", rule(node1, f"OUTPUT -d {there} -j DROP"), "rule", node1, "OUTPUT"),
        Fault("INPUT back", rule(node1, f"INPUT -s {there} -j DROP"), "rule", node1, leg="reply"),
        Fault("route missing", without(world, node1, world.remote), "no-route", node1, there),
        Fault("FORWARD", rule(node2, f"FORWARD -d {there} -j DROP"), "rule", node2),
        Fault("wrong neighbour", neighbour(there, deliverer, node2), "no-neighbour", node2, NOBODY),
        Fault(
            "wrong node's MAC",
            neighbour(world.node2, "eth0", node1),
            "no-neighbour",
            node1,
            NOBODY,
        ),
        Fault("veth down", downed(world, THERE), "interface-down", node2, veth),
        Fault("MTU", mtu(world, node1, world.overlay), "mtu", node1, "1300", probe=LARGE),
        Fault("rp_filter", asymmetric(world, node2, sender, veth), "rp-filter", node2),
        Fault(
            "ARP off",
            mute(world, THERE, f"ip neigh flush to {there}"),
            "arp-unanswered",
            node2,
            there,
        ),
        Fault("forwarding off", forwarding(node2), "forwarding-off", node2),
        *ends(world, "", THERE, there, sender),
        Fault(
            "no way back",
            within(world, THERE, refused(sender)),
            "blackhole",
            pod,
            sender,
            leg="reply",
        ),
        echoes(world, THERE),
        nobody("tcp", pod),
        without_address(world, THERE),
    ):
        yield replace(fault, source=node1)
    if world.overlay != "tunl0" or world.live.outcome.status["ipip"] == "kernel":
        blocked = rule(node2, f"{outer} {what} -j DROP")
        yield Fault("not let in", blocked, "rule", node2, "raw", source=node1)


def to_node(world: World) -> Iterator[Fault]:
    """A pod of node1 to node2, masqueraded."""
    here, near, node1, node2 = world.here, world.port(NEAR), "node1", "node2"
    first, second, own = world.node1, world.node2, f"default/{HERE}"
    nat = "iptables-save -t nat > /run/nat; iptables -t nat -F POSTROUTING"
    forget = f"ip route flush cache; ip netns exec {world.inside(HERE)} ip route flush cache"
    for fault in (
        Fault("INPUT", rule(node2, f"INPUT -s {first} -p icmp -j DROP"), "rule", node2, "INPUT"),
        Fault(
            "OUTPUT back",
            rule(node2, f"OUTPUT -d {first} -p icmp -j DROP"),
            "rule",
            node2,
            "OUTPUT",
            leg="reply",
        ),
        Fault("FORWARD", rule(node1, f"FORWARD -s {here} -d {second} -j DROP"), "rule", node1),
        Fault(
            "FORWARD back",
            rule(node1, f"FORWARD -s {second} -d {here} -j DROP"),
            "rule",
            node1,
            leg="reply",
        ),
        Fault(
            "not masqueraded",
            both(node1, nat, "iptables-restore < /run/nat"),
            "no-snat",
            node1,
            here,
            answered=True,
        ),
        Fault(
            "uplink's MTU",
            mtu(world, node1, "eth0", after=forget),
            "mtu",
            node1,
            "1300",
            probe=LARGE,
        ),
        Fault("blackhole", refused(second, node1), "blackhole", node1, second),
        Fault("policy", policy(node1, here), "blackhole", node1, "ip rule"),
        Fault("own rule", within(world, HERE, leaving(second)), "rule", own),
        Fault("own INPUT", within(world, HERE, entering(second)), "rule", own, leg="reply"),
        Fault("own veth down", downed(world, HERE), "interface-down", node1, world.port(HERE)),
        no_routes(world, HERE, second),
        Fault("rp_filter of node1", asymmetric(world, node1, here, near), "rp-filter", node1),
        Fault(
            "rp_filter of node2", asymmetric(world, node2, first, world.veth), "rp-filter", node2
        ),
        Fault("wrong neighbour", neighbour(second, "eth0", node1), "no-neighbour", node1, NOBODY),
        Fault("ARP unanswered", unheard(world, node2, node1), "arp-unanswered", node1, second),
        Fault("forwarding off", forwarding(node1), "forwarding-off", node1),
        Fault(
            "DNAT elsewhere",
            rule(node1, f"PREROUTING -t nat -d {second} -p icmp -j DNAT --to {world.node3}"),
            "nat",
            node1,
            answered=True,
        ),
        echoes(world, node2),
        nobody("tcp", node2),
        nobody("udp", node2),
    ):
        yield replace(fault, target=node2)


def to_own_node(world: World) -> Iterator[Fault]:
    """A pod to the node that it is on."""
    here, first, node1 = world.here, world.node1, "node1"
    own, port = f"default/{HERE}", world.port(HERE)
    device, elsewhere = "cni0" if world.bridged else port, world.port(NEAR)
    gateway = {"calico": "169.254.1.1"}.get(world.cni, "10.244.0.1")
    for fault in (
        Fault("INPUT", rule(node1, f"INPUT -s {here} -p icmp -j DROP"), "rule", node1, "INPUT"),
        Fault(
            "OUTPUT back",
            rule(node1, f"OUTPUT -d {here} -p icmp -j DROP"),
            "rule",
            node1,
            "OUTPUT",
            leg="reply",
        ),
        Fault("own rule", within(world, HERE, leaving(first)), "rule", own),
        Fault("own INPUT", within(world, HERE, entering(first)), "rule", own, leg="reply"),
        Fault("own blackhole", within(world, HERE, refused(first)), "blackhole", own, first),
        Fault("own veth down", downed(world, HERE), "interface-down", node1, port),
        Fault("own MTU", mtu(world, HERE, "eth0"), "mtu", own, probe=LARGE),
        Fault(
            "wrong gateway's MAC",
            within(world, HERE, neighbour(gateway, "eth0")),
            "no-neighbour",
            own,
            NOBODY,
        ),
        Fault(
            "wrong neighbour back",
            neighbour(here, device, node1),
            "no-neighbour",
            node1,
            NOBODY,
            leg="reply",
        ),
        Fault("rp_filter", asymmetric(world, node1, here, elsewhere), "rp-filter", node1),
        Fault("blackhole back", refused(here, node1), "blackhole", node1, here, leg="reply")
        if world.bridged
        else Fault("route back", without(world, node1, here), "no-route", node1, "no route back"),
        no_routes(world, HERE, first),
        echoes(world, node1),
        nobody("tcp", node1),
    ):
        yield replace(fault, target=node1)


def itself(world: World) -> Iterator[Fault]:
    """A pod to its own address: over its lo, and nothing of its node."""
    here, pod = world.here, f"default/{HERE}"
    local = f"local {here} dev eth0 table local proto kernel scope host src {here}"
    hook = "chain c { type filter hook %s priority -5; ip daddr %s drop; }"
    policed = "ip rule add pref 10 lookup local; ip rule add pref 5 to %s unreachable"
    filtered = f"protocol ip bpf bytecode '{DROP_ICMP}' direct-action"
    found: list[tuple[str, tuple[Steps, Steps], str, str, str]] = [
        ("lo down", both("", "ip link set lo down", "ip link set lo up"), "interface-down", "", ""),
        ("OUTPUT", leaving(here), "rule", "OUTPUT", ""),
        ("INPUT", entering(here), "rule", "INPUT", ""),
        ("OUTPUT back", rule("", "OUTPUT -p icmp --icmp-type 0 -j DROP"), "rule", "", "reply"),
        ("INPUT back", rule("", "INPUT -p icmp --icmp-type 0 -j DROP"), "rule", "", "reply"),
        ("nft output", nft("", hook % ("output", here)), "rule", "counts nothing", ""),
        ("nft input", nft("", hook % ("input", here)), "rule", "counts nothing", ""),
        (
            "no local route",
            both("", f"ip route del {local}", f"ip route add {local}"),
            "no-route" if world.cni == "calico" else "wrong-route",
            "eth0",
            "",
        ),
        (
            "policy",
            both(
                "",
                f"{policed % here}; ip rule del pref 0",
                "ip rule add pref 0 lookup local; ip rule del pref 5; ip rule del pref 10",
            ),
            "blackhole",
            "ip rule",
            "",
        ),
        *(
            (
                f"tc {way}",
                both(
                    "",
                    f"tc qdisc add dev lo clsact; tc filter add dev lo {way} {filtered}",
                    "tc qdisc del dev lo clsact",
                ),
                "rule",
                "tc filter",
                "",
            )
            for way in ("egress", "ingress")
        ),
    ]
    for name, steps, cause, words, leg in found:
        own = within(world, HERE, steps)
        yield Fault(name, own, cause, pod, words, target=HERE, leg=leg or "request")
    refusal = "tcp dport 8080 counter reject with tcp reset"
    reset = nft("", f"chain c {{ type filter hook input priority -5; {refusal}; }}")
    for fault in (
        Fault("a rule's reset", within(world, HERE, reset), "rule", pod, "rejected", probe=TCP),
        Fault("MTU", mtu(world, HERE, "lo"), "mtu", pod, "1300", probe=LARGE),
        echoes(world, HERE),
        nobody("tcp", pod),
        nobody("udp", pod),
        without_address(world, HERE),
    ):
        yield replace(fault, target=HERE)
