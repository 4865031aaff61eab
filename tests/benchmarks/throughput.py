"""How fast pods talk across nodes, against the same path typed by hand.

Every comparison runs both paths in turn within each round, and what is compared is the median of
the rounds' ratios: iperf3 with one TCP stream, with four, and UDP packets of 64 bytes.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from tests.benchmarks.measure import ROUNDS, Bare, Promise, run, testbed

__all__ = ["promises"]

SECONDS = 1
NAME = f"bench-{os.getpid()}-net"
_TRAFFIC: Mapping[str, tuple[str, ...]] = {
    "TCP, 1 stream": (),
    "TCP, 4 streams": ("-P", "4"),
    "UDP, 64 bytes": ("-u", "-b", "0", "-l", "64"),
}


@dataclass(frozen=True)
class Path:
    """Two pods on two nodes, as ``docker exec`` reaches them."""

    client: str
    client_netns: str
    server: str
    server_netns: str
    server_ip: str

    def listen(self) -> None:
        """Start iperf3's server; it ends with its container."""
        inside(self.server, self.server_netns, "iperf3", "-s", "-D")

    def measure(self, *options: str) -> float:
        """Bits a second (TCP) or packets a second (UDP) that arrived."""
        words = ("iperf3", "-c", self.server_ip, "-t", str(SECONDS), "-J", *options)
        end = json.loads(inside(self.client, self.client_netns, *words))["end"]
        if "-u" in options:
            total = end["sum"]
            return float((total["packets"] - total["lost_packets"]) / total["seconds"])
        return float(end["sum_received"]["bits_per_second"])


def inside(container: str, netns: str, *words: str) -> str:
    """Run a command in a network namespace of a container."""
    return run(["docker", "exec", container, "nsenter", f"--net={netns}", *words])


@contextmanager
def nodes(topology: str, *options: str) -> Iterator[Path]:
    """The first pods of two nodes of a testbed."""
    name = f"{NAME}-{topology}"
    words = ["up", topology, "--name", name, "--nodes", "2", "--pods-per-node", "1", *options]
    try:
        status = json.loads(run(testbed(*words, "-o", "json")))
        ends = {pod["node"]: pod for pod in status["pods"]}
        yield Path(
            f"{name}-node1",
            netns_of(f"{name}-node1"),
            f"{name}-node2",
            netns_of(f"{name}-node2"),
            ends["node2"]["ip"],
        )
    finally:
        run(testbed("down", name))


def netns_of(container: str) -> str:
    """The network namespace of a node's only pod."""
    state = json.loads(run(["docker", "exec", container, "testbed-agent", "status"]))
    return str(state["pods"][0]["netns"])


_POD = """
set -e
sysctl -qw net.ipv4.ip_forward=1
ip netns add pod
ip link add veth0 mtu {mtu} type veth peer name eth0 mtu {mtu} netns pod
ip -n pod link set lo up
ip -n pod link set eth0 up
ip link set veth0 up
iptables -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE
"""
_FLANNEL = """
iptables -N FLANNEL-FWD
iptables -A FORWARD -j FLANNEL-FWD
iptables -A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT
iptables -A FLANNEL-FWD -d 10.244.0.0/16 -j ACCEPT
"""
"""What flanneld adds besides masquerading: every forwarded packet passes it."""
_BRIDGED = """
ip link add cni0 mtu {mtu} type bridge
ip link set cni0 up
ip link set veth0 master cni0
ip addr add 10.244.{own}.1/24 dev cni0
ip -n pod addr add 10.244.{own}.2/24 dev eth0
ip -n pod route add default via 10.244.{own}.1
"""
_POINT_TO_POINT = """
ip addr add 10.244.{own}.1/32 dev veth0
ip route add 10.244.{own}.2/32 dev veth0 scope host
ip -n pod addr add 10.244.{own}.2/32 dev eth0
ip -n pod route add 10.244.{own}.1 dev eth0 scope link
ip -n pod route add default via 10.244.{own}.1
"""
_ROUTED = "ip route add 10.244.{other}.0/24 via {peer} dev eth0\n"
_VXLAN = """
ip link add flannel.1 address 02:00:00:00:00:0{own} mtu {mtu} type vxlan id 1 local {address} \
    dev eth0 dstport 8472 nolearning
ip link set flannel.1 up
ip addr add 10.244.{own}.0/32 dev flannel.1
ip neigh add 10.244.{other}.0 lladdr 02:00:00:00:00:0{other} dev flannel.1 nud permanent
bridge fdb add 02:00:00:00:00:0{other} dev flannel.1 dst {peer} self permanent
ip route add 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink
"""


@contextmanager
def by_hand(name: str, mtu: int, *scripts: str) -> Iterator[Path]:
    """Two containers of the same image and network, and the path typed in a shell."""
    bare = Bare(f"testbed-{NAME}-{name}", 2)
    try:
        bare.network()
        bare.start()
        addresses = [run(["docker", "exec", each, "hostname", "-i"]).strip() for each in bare.names]
        for own, container in enumerate(bare.names):
            script = "".join((_POD, *scripts)).format(
                mtu=mtu, own=own, other=1 - own, address=addresses[own], peer=addresses[1 - own]
            )
            run(["docker", "exec", container, "sh", "-c", script])
        pod = "/var/run/netns/pod"
        yield Path(bare.names[0], pod, bare.names[1], pod, "10.244.1.2")
    finally:
        bare.clean_up()


@dataclass(frozen=True)
class Comparison:
    """A path of testbed's, and the one it must keep up with."""

    what: str
    ours: Callable[[], AbstractContextManager[Path]]
    theirs: Callable[[], AbstractContextManager[Path]]
    least: float


COMPARISONS = (
    Comparison(
        "eBPF IP-in-IP / kernel VXLAN (calico)",
        lambda: nodes("calico", "--ipip", "ebpf"),
        lambda: nodes("calico-vxlan"),
        0.95,
    ),
    Comparison(
        "flannel VXLAN / the same by hand",
        lambda: nodes("flannel"),
        lambda: by_hand("vxlan", 1450, _FLANNEL, _BRIDGED, _VXLAN),
        0.98,
    ),
    Comparison(
        "flannel host-gw / the same by hand",
        lambda: nodes("flannel-host-gw"),
        lambda: by_hand("bridged", 1500, _FLANNEL, _BRIDGED, _ROUTED),
        0.98,
    ),
    Comparison(
        "kindnet / the same by hand",
        lambda: nodes("kindnet"),
        lambda: by_hand("ptp", 1500, _POINT_TO_POINT, _ROUTED),
        0.98,
    ),
)


def promises() -> list[Promise]:
    """Run every comparison; one promise per kind of traffic."""
    return [promise for each in COMPARISONS for promise in compared(each)]


def compared(comparison: Comparison) -> Iterator[Promise]:
    """Alternate within each round, which path is first changing from round to round."""
    with ExitStack() as stack:
        ours = stack.enter_context(comparison.ours())
        theirs = stack.enter_context(comparison.theirs())
        for path in (ours, theirs):
            path.listen()
        for traffic, options in _TRAFFIC.items():
            pairs = []
            for number in range(ROUNDS + 1):
                first, second = (ours, theirs) if number % 2 else (theirs, ours)
                measured = {id(path): path.measure(*options) for path in (first, second)}
                if number:
                    pairs.append((measured[id(ours)], measured[id(theirs)]))
            medians = [statistics.median(values) for values in zip(*pairs, strict=True)]
            unit, scale = ("k packets/s", 1e3) if "-u" in options else ("Gbit/s", 1e9)
            yield Promise(
                f"{comparison.what}, {traffic}",
                statistics.median(one / other for one, other in pairs),
                comparison.least,
                "x",
                f"{medians[0] / scale:.2f} / {medians[1] / scale:.2f} {unit}",
                at_least=True,
            )


if __name__ == "__main__":
    for chosen in COMPARISONS:
        if any(word in chosen.what for word in sys.argv[1:] or [""]):
            for each in compared(chosen):
                print(each, flush=True)
