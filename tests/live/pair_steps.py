"""Steps, and faults of one end, of which :mod:`tests.live.pair_faults` is made."""

from __future__ import annotations

from collections.abc import Iterator

from tests.live.breaking import Fault, Steps, World, both, rule, within

NOBODY = "02:00:00:00:00:99"
SYSCTL = "sysctl -qw net.ipv4"
SAVED = "ip route save table main > /run/routes"


def downed(world: World, pod: str) -> tuple[Steps, Steps]:
    """The node's end of a pod's veth pair, with whose routes it comes up again."""
    node, port = world.node_of(pod), world.port(pod)
    route = world.run(node, f"ip -4 route show dev {port}").strip()
    again = f"; ip route replace {route} dev {port}" if route else ""
    return both(node, f"ip link set {port} down", f"ip link set {port} up{again}")


def mtu(world: World, where: str, device: str, after: str = "true") -> tuple[Steps, Steps]:
    """Less room on an interface of a node or pod."""
    was = world.run(where, f"cat /sys/class/net/{device}/mtu").strip()
    change = f"ip link set {device} mtu"
    steps = both(where, f"{change} 1300", f"{change} {was}; {after}")
    return steps if where in world.live.nodes else within(world, where, steps)


def neighbour(address: str, device: str, where: str = "") -> tuple[Steps, Steps]:
    """A MAC that nobody has."""
    entry = f"{address} lladdr {NOBODY} dev {device} nud permanent"
    return both(where, f"ip neigh replace {entry}", f"ip neigh del {address} dev {device}")


def mute(world: World, pod: str, forget: str) -> tuple[Steps, Steps]:
    """A pod that answers no ARP, once others have forgotten its MAC."""
    arp = f"ip -n {world.inside(pod)} link set eth0 arp"
    return both(world.node_of(pod), f"{arp} off; {forget}", f"{arp} on; {forget}")


def unheard(world: World, node: str, asker: str) -> tuple[Steps, Steps]:
    """A node that answers no ARP on its uplink, once another has forgotten its MAC.

    Nor does it ask, from which the other would learn it.
    """
    mac = world.run(asker, "cat /sys/class/net/eth0/address").strip()
    entry = f"{world.live.host(asker).interface('eth0').addresses[0]} dev eth0"
    setting, forget = f"{SYSCTL}.conf.eth0.arp_ignore", (asker, "ip neigh flush dev eth0")
    known = f"ip neigh replace {entry} lladdr {mac} nud permanent"
    make, undo = both(node, f"{setting}=8; {known}", f"{setting}=0; ip neigh del {entry}")
    return (*make, forget), (*undo, forget)


def without(world: World, node: str, to: str) -> tuple[Steps, Steps]:
    """A route less, and the default route, by which the packet would leave the testbed.

    BIRD puts its routes to other nodes back within two seconds, so it is stopped before.
    """
    default, route = (world.run(node, f"ip route show {each}").strip() for each in ("default", to))
    make, undo = both(
        node,
        f"ip route del {default}; ip route del {to}",
        f"ip route replace {route}; ip route replace {default}",
    )
    if "proto bird" in route:
        make = ((node, "testbed-agent process stop bird"), *make)
        undo = (*undo, (node, "testbed-agent process start bird"))
    return make, undo


def refused(to: str, where: str = "") -> tuple[Steps, Steps]:
    """A blackhole, which a route of the same prefix gives way to."""
    return both(where, f"ip route prepend blackhole {to}", f"ip route del blackhole {to}")


def asymmetric(world: World, node: str, sender: str, device: str) -> tuple[Steps, Steps]:
    """A way back by another interface than the packet comes in, and a strict reverse path."""
    route = world.run(node, f"ip route show {sender}").strip()
    was = world.run(node, "cat /proc/sys/net/ipv4/conf/all/rp_filter").strip()
    back = f"ip route replace {route}" if route else f"ip route del {sender} dev {device}"
    return both(
        node,
        f"ip route replace {sender} dev {device}; {SYSCTL}.conf.all.rp_filter=1",
        f"{SYSCTL}.conf.all.rp_filter={was}; {back}",
    )


def forwarding(node: str) -> tuple[Steps, Steps]:
    """A node that is no router."""
    return both(node, f"{SYSCTL}.ip_forward=0", f"{SYSCTL}.ip_forward=1")


def policy(node: str, sender: str) -> tuple[Steps, Steps]:
    """A rule of the routing policy database that leads to a table which refuses."""
    return both(
        node,
        f"ip rule add from {sender} prio 100 lookup 77; ip route add unreachable default table 77",
        "ip rule del prio 100; ip route flush table 77",
    )


def leaving(to: str) -> tuple[Steps, Steps]:
    """Out of a namespace."""
    return rule("", f"OUTPUT -d {to} -j DROP")


def entering(sender: str) -> tuple[Steps, Steps]:
    """Into a namespace."""
    return rule("", f"INPUT -s {sender} -j DROP")


def no_routes(world: World, pod: str, to: str) -> Fault:
    """A pod without any route."""
    steps = both("", f"{SAVED}; ip route flush table main", "ip route restore < /run/routes")
    return Fault("no routes", within(world, pod, steps), "no-route", f"default/{pod}", to)


def without_address(world: World, pod: str) -> Fault:
    """A pod that lost its address, and with it some routes."""
    address = world.run(pod, "ip -o -4 addr show dev eth0").split()[3]
    restored = "ip route flush table main; ip route restore < /run/routes"
    steps = both(
        "",
        f"{SAVED}; ip addr del {address} dev eth0",
        f"ip addr add {address} dev eth0; {restored}",
    )
    words = address.partition("/")[0]
    return Fault("address gone", within(world, pod, steps), "pod-gone", f"default/{pod}", words)


def echoes(world: World, where: str) -> Fault:
    """A node or pod that does not answer ping."""
    name = "icmp_echo_ignore_all"
    steps = both(where, f"{SYSCTL}.{name}=1", f"{SYSCTL}.{name}=0")
    if where in world.live.nodes:
        return Fault("mute", steps, "no-answer", where, name, leg="reply")
    own = within(world, where, steps)
    return Fault("mute", own, "no-answer", f"default/{where}", name, leg="reply")


def nobody(protocol: str, place: str) -> Fault:
    """A port on which nobody listens: nothing is broken, and ping passes."""
    probe = {"protocol": protocol, "port": 9}
    name = f"no listener, {protocol}"
    return Fault(name, ((), ()), "no-listener", place, leg="reply", probe=probe, whole={})


def ends(world: World, source: str, target: str, to: str, sender: str) -> Iterator[Fault]:
    """Rules in the network namespaces of the pods themselves."""
    pod = f"default/{target}"
    if source:
        own = within(world, source, leaving(to))
        yield Fault("source's OUTPUT", own, "rule", f"default/{source}", "OUTPUT")
    within_target = within(world, target, entering(sender))
    yield Fault("target's INPUT", within_target, "rule", pod, "INPUT")
    back = within(world, target, leaving(sender))
    yield Fault("target's OUTPUT", back, "rule", pod, "OUTPUT", leg="reply")
