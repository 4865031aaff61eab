"""The eBPF driver's device and programs come back: after damage by hand, after a node's restart."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from testbed import lifecycle
from testbed.dataplane.features import Features
from tests.live.calico import eventually, lines
from tests.live.conftest import Lasting, Running
from tests.live.wire import ping

LOCAL, REMOTE = "netexec-node1-1", "netexec-node2-1"
ANOTHER = "bpf direct-action object-file /usr/lib/testbed/bpf/ipip.bpf.o section tc/decapsulate"


@pytest.fixture(scope="module")
def tunnels(lasting: Lasting, able: Features) -> Iterator[Running]:
    """Two Calico nodes with a pod each, which these tests damage."""
    if not able.ipip_ebpf:
        pytest.skip(f"no eBPF driver: {able.reasons['ipip_ebpf']}")
    with lasting("calico", name="repair", nodes=2, pods_per_node=1, ipip="ebpf") as found:
        yield found


def up(live: Running) -> list[str]:
    """Another ``testbed up``: the nodes' last words, how much it changed."""
    said: list[str] = []
    again = lifecycle.up(live.cluster, live.client, lambda *words: said.append(" ".join(words)))
    assert again.report.ok, again.report.failures
    return sorted(line for line in said if " ready " in line)


def holds(live: Running) -> None:
    """The device has its type, carrier and settings, and its pods reach the other node's."""
    host = live.host("node1")
    assert " 0% packet loss" in ping(live, LOCAL, live.ip(REMOTE))
    device = "/sys/class/net/tunl0"
    shown = host.check_output(f"cat {device}/type {device}/carrier {device}/mtu {device}/ifindex")
    assert lines(shown) == ["768", "1", "1480", str(0x6970)]
    assert "linkdown" not in host.check_output("ip route")
    for end, name in (("tunl0 egress", "encapsulat"), ("eth0 ingress", "decapsulat")):
        assert f" name ipip_{name} " in host.check_output(f"tc filter show dev {end}")
    names = "net.ipv6.conf.tunl0.disable_ipv6 net.ipv4.conf.tunl0.forwarding"
    assert lines(host.check_output(f"sysctl -n {names}")) == ["1", "1"]


@pytest.mark.parametrize(
    "damage",
    [
        "tc filter delete dev tunl0 egress",
        "tc filter delete dev eth0 ingress",
        "tc qdisc delete dev eth0 clsact",
        f"tc filter replace dev tunl0 egress prio 1 handle 1 {ANOTHER}",
        "ip link delete tunl0",
        "ip link set tunl0 down && ip link set tunl0 name renamed0",
        "sysctl -w net.ipv4.conf.lo.forwarding=0",
    ],
)
def test_up_repairs(tunnels: Running, damage: str) -> None:
    """What is missing or another's; only on that node, and only once."""
    holds(tunnels)
    tunnels.host("node1").check_output(damage)
    damaged, whole = up(tunnels)
    assert re.fullmatch(r"node1 ready [1-9]\d* changes", damaged)
    assert whole == "node2 ready nothing to change"
    holds(tunnels)
    assert all(line.endswith(" nothing to change") for line in up(tunnels))


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_a_node_s_restart_brings_it_back(tunnels: Running, node: str) -> None:
    """``docker restart``, without another ``up``; the other node's neighbour entry is renewed."""
    tunnels.client.api.restart(tunnels.container(node), timeout=2)
    eventually(lambda: lifecycle.check(tunnels.client, tunnels.name).report.ok, 40)
    holds(tunnels)
