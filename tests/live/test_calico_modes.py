"""One pool mode after the other: route tables, neighbours, FDB, MTU and frames of calico.md."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from testbed.topology.model import Node
from tests.live.calico import lines, routes, sessions, tunnel_address, uplink
from tests.live.conftest import Running
from tests.live.wire import ping, requests, same_as_tshark

Make = Callable[..., Running]


@dataclass(frozen=True)
class Mode:
    """How a shipped topology must route: lines by reader's view, not the planner's."""

    topology: str
    owner: str
    """Who made the routes, as ``ip route`` prints it after the destination."""
    plain: str
    """The end of a plain route; ``{peer}`` is the other node's address."""
    tunnel: str
    """The end of a route to another node by the overlay; empty: there is none."""
    mtu: int
    cross_subnet: bool = False

    def remote(self, live: Running, node: str) -> Callable[[Node, IPv4Network], str]:
        """The line of another node's block in the table of ``node``."""
        here = live.cluster.node(node)
        own = uplink(live, node)

        def line(peer: Node, cidr: IPv4Network) -> str:
            address = uplink(live, peer.name).ip
            vtep = tunnel_address(live, peer.name)
            encapsulated = self.tunnel and not (self.cross_subnet and peer.network == here.network)
            if encapsulated:
                return f"{cidr} via {self.tunnel.format(peer=address, vtep=vtep)}"
            hop = address if address in own.network else own.network.broadcast_address - 1
            return f"{cidr} via {self.plain.format(peer=hop)}"

        return line


IPIP = "{peer} dev tunl0 proto bird onlink"
VXLAN = "{vtep} dev vxlan.calico onlink"
MODES = [
    Mode("calico-felix", "proto 80", "", "{peer} dev tunl0 proto 80 onlink", 1480),
    Mode("calico-cross-subnet", "proto bird", "{peer} dev eth0 proto bird", IPIP, 1480, True),
    Mode("calico-no-encap", "proto bird", "{peer} dev eth0 proto bird", "", 1500),
    Mode("calico-vxlan", "proto 80", "", VXLAN, 1450),
    Mode(
        "calico-vxlan-cross-subnet",
        "proto 80",
        "{peer} dev eth0 proto 80 onlink",
        VXLAN,
        1450,
        True,
    ),
]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.topology)
def test_mode(make: Make, mode: Mode, tmp_path: Path) -> None:
    """Tables line for line, the check, the MTU, and frames between every kind of pair."""
    live = make(mode.topology, pods_per_node=1)
    assert live.outcome.report.ok, live.outcome.report.failures
    for node in live.cluster.nodes:
        expected = routes(live, node.name, block=mode.owner, remote=mode.remote(live, node.name))
        shown = lines(live.host(node.name).check_output("ip route"))
        assert sorted(shown) == expected, node.name
    source = live.cluster.nodes[0]
    for target in live.cluster.nodes[1:]:
        frames_between(live, mode, source, target, tmp_path)
    if mode.topology == "calico-felix":
        announced(live, source)
    if mode.topology.startswith("calico-vxlan"):
        for node in live.cluster.nodes:
            neighbours_and_fdb(live, mode, node)


def frames_between(live: Running, mode: Mode, source: Node, target: Node, tmp_path: Path) -> None:
    """The largest packet with DF passes and looks as it must; one byte more is refused."""
    pod, ip = f"netexec-{source.name}-1", live.ip(f"netexec-{target.name}-1")
    with live.capture(source.name) as wire:
        said = ping(live, pod, ip, "-M do", f"-s {mode.mtu - 28}")
    assert " 0% packet loss" in said
    refused = live.host(pod).run(f"ping -n -c 1 -W 1 -M do -s {mode.mtu - 27} {ip}")
    assert refused.rc != 0
    assert f"mtu={mode.mtu}" in refused.stdout + refused.stderr
    echoes = requests(wire)
    assert len(echoes) == 3
    encapsulated = mode.tunnel and not (mode.cross_subnet and source.network == target.network)
    ends = [str(uplink(live, node.name).ip) for node in (source, target)]
    for frame in echoes:
        assert str(frame.innermost.source) == live.ip(pod)
        assert str(frame.innermost.destination) == ip
        assert bool(frame.inner) == bool(encapsulated)
        if frame.inner:
            assert [str(frame.source), str(frame.destination)] == ends
        if frame.vni is not None:
            assert (frame.vni, frame.destination_port, frame.ttl) == (4096, 4789, 64)
            assert (frame.dont_fragment, frame.tos) == (False, 0)
        elif frame.inner:
            assert (frame.protocol, frame.dont_fragment, frame.ttl) == (4, True, 63)
    same_as_tshark(wire, tmp_path)


def announced(live: Running, node: Node) -> None:
    """BIRD announces the node's blocks alone, though it learns Felix's routes from the kernel."""
    birdc = "birdc -s /var/run/calico/bird.ctl"
    host = live.host(node.name)
    for session in sessions(live, node.name):
        shown = lines(host.check_output(f"{birdc} show route export {session}"))
        prefixes = [line.split()[0] for line in shown if "/" in line.split()[0]]
        assert prefixes == [str(cidr) for cidr in node.pod_cidrs]


def vtep_mac(node: str) -> str:
    """``66:`` and five bytes of the name's SHA-1."""
    octets = hashlib.sha1(node.encode(), usedforsecurity=False).digest()[:5]
    return ":".join(f"{octet:02x}" for octet in b"\x66" + octets)


def neighbours_and_fdb(live: Running, mode: Mode, node: Node) -> None:
    """Section 5: one permanent neighbour and FDB entry per remote VTEP, by its tunnel address."""
    host = live.host(node.name)
    shown = host.check_output("ip -d address show dev vxlan.calico")
    local = uplink(live, node.name).ip
    assert (
        f"vxlan id 4096 local {local} dev eth0 srcport 0 0 dstport 4789 nolearning ttl auto "
        "ageing 300 udpcsum" in shown
    )
    assert f"link/ether {vtep_mac(node.name)} " in shown
    assert f"inet {tunnel_address(live, node.name)}/32 scope global vxlan.calico" in shown
    assert " mtu 1450 " in shown
    others = [
        each
        for each in live.cluster.nodes
        if each is not node and not (mode.cross_subnet and each.network == node.network)
    ]
    neighbours = lines(host.check_output("ip neighbour show dev vxlan.calico nud permanent"))
    wanted = {
        f"{tunnel_address(live, each.name)} lladdr {vtep_mac(each.name)} PERMANENT"
        for each in others
    }
    assert wanted <= set(neighbours)
    entries = set(lines(host.check_output("bridge fdb show dev vxlan.calico")))
    assert {
        f"{vtep_mac(each.name)} dst {uplink(live, each.name).ip} self permanent" for each in others
    } <= entries


def test_a_router_learns_pod_routes_by_ebgp(make: Make) -> None:
    """Without encapsulation over two racks, the router must know the blocks; and it alone."""
    live = make("calico-no-encap", pods_per_node=1)
    (tor,) = live.cluster.routers
    shown = lines(live.host(tor.name).check_output("ip route show proto bird"))
    expected = sorted(
        f"{cidr} via {uplink(live, node.name).ip}"
        for node in live.cluster.nodes
        for cidr in node.pod_cidrs
    )
    assert sorted(line.partition(" dev ")[0] for line in shown) == expected
    first = live.cluster.nodes[0]
    far = next(node for node in live.cluster.nodes if node.network != first.network)
    live.host(tor.name).check_output("testbed-agent process stop bird")
    target = live.ip(f"netexec-{far.name}-1")
    lost = live.host(f"netexec-{first.name}-1").run(f"ping -n -c 1 -W 1 {target}")
    assert lost.rc == 1
    near = next(node for node in live.cluster.nodes[1:] if node.network == first.network)
    ping(live, f"netexec-{first.name}-1", live.ip(f"netexec-{near.name}-1"))
