"""IP-in-IP on the wire: what the kernel's driver does, and the eBPF one must do like it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from testbed.dataplane.features import Features
from testbed.pytest_recorder import Recorder
from tests.live.calico import eventually, uplink
from tests.live.conftest import Lasting, Running
from tests.live.wire import MARK, marked, ping, requests, same_as_tshark

LOCAL, OTHER, REMOTE = "netexec-node1-1", "netexec-node1-2", "netexec-node2-1"
NEAR, FAR = "node1", "node2"
ICMP, IPIP = 1, 4
MORE_FRAGMENTS = 0x2000
SEND = (
    "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW); "
    # IP_NODEFRAG: conntrack would put the sender's fragments together
    "s.setsockopt(0, 22, 1); "
    "[s.sendto(bytes.fromhex(each), (sys.argv[1], 0)) for each in sys.argv[2:]]"
)


@pytest.fixture(scope="module")
def tunnels(lasting: Lasting, able: Features) -> Iterator[Running]:
    """Two Calico nodes with two pods each; by eBPF, where that works."""
    if not (able.ipip or able.ipip_ebpf):
        pytest.skip("this kernel has neither ipip nor ipip_ebpf")
    driver = "ebpf" if able.ipip_ebpf else "kernel"
    with lasting("calico", name="driver", nodes=2, pods_per_node=2, ipip=driver) as found:
        yield found


@pytest.fixture
def program(tunnels: Running) -> Running:
    """The same, for what only the eBPF driver has."""
    driver = tunnels.outcome.status["ipip"]
    if driver != "ebpf":
        pytest.skip(f"only the eBPF driver's; this one is {driver}")
    return tunnels


@contextmanager
def counted(live: Running, node: str) -> Iterator[dict[str, int]]:
    """By how much each of the driver's counters has grown when the block ends."""

    def now() -> dict[str, int]:
        shown = live.host(node).check_output("testbed-agent ipip -o json")
        return dict(json.loads(shown)["counters"])

    before, growth = now(), dict[str, int]()
    yield growth
    growth.update({name: value - before[name] for name, value in now().items()})


def checksum(data: bytes) -> bytes:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF
    return struct.pack("!H", ~total & 0xFFFF)


def packet(
    source: IPv4Address | str,
    destination: IPv4Address | str,
    protocol: int,
    body: bytes,
    *,
    tos: int = 0,
    fragment: int = 0,
    identification: int = 1,
) -> bytes:
    """An IPv4 packet; ``fragment`` is flags and offset as in the header."""
    parts = (0x45, tos, 20 + len(body), identification, fragment, 64, protocol)
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    header = struct.pack("!BBHHHBB", *parts)
    return header + checksum(header + addresses) + addresses + body


def icmp(kind: int, code: int, rest: int, data: bytes) -> bytes:
    """An ICMP message."""
    start, end = struct.pack("!BB", kind, code), struct.pack("!I", rest) + data
    return start + checksum(start + end) + end


def echo(live: Running, identification: int, tos: int = 0) -> bytes:
    """A marked echo request between pods of the two nodes."""
    body = icmp(8, 0, identification, bytes.fromhex(MARK) * 16)
    addresses = live.ip(LOCAL), live.ip(REMOTE)
    return packet(*addresses, ICMP, body, tos=tos, identification=identification)


def send(live: Running, source: str, target: str, *packets: bytes) -> None:
    """Put packets on a node's uplink as they are, past its tunnel."""
    words = " ".join(each.hex() for each in packets)
    live.host(source).check_output(
        f"python3 -IS -c '{SEND}' {uplink(live, target).ip} {words}",
    )


def ends(live: Running) -> tuple[IPv4Address, IPv4Address]:
    """The outer addresses of what the first node sends to the second."""
    return uplink(live, NEAR).ip, uplink(live, FAR).ip


@pytest.mark.parametrize("source", [LOCAL, NEAR])
def test_the_largest_packet_passes_and_one_byte_more_does_not(
    tunnels: Running, source: str
) -> None:
    """MTU 1480, of pods and of the device: the kernel says what would fit."""
    target = tunnels.ip(REMOTE)
    assert " 0% packet loss" in ping(tunnels, source, target, "-M do", "-s 1452")
    refused = tunnels.host(source).run(f"ping -n -c 1 -W 1 -M do -s 1453 {target}")
    assert refused.rc != 0
    assert "mtu=1480" in refused.stdout + refused.stderr


@contextmanager
def smaller_path(live: Running, how: str) -> Iterator[None]:
    """Packets of the first node for the second may have 1400 bytes; nobody knows it afterwards."""
    near, far = ends(live)
    host = live.host(NEAR)
    status = json.loads(host.check_output("testbed-agent status"))
    netns = next(each["netns"] for each in status["pods"] if each["name"] == OTHER)
    if how == "route":
        host.check_output(f"ip route add {far} dev eth0 mtu lock 1400")
    else:
        refused = packet(near, far, IPIP, bytes(28))
        send(live, FAR, NEAR, packet(far, near, ICMP, icmp(3, 4, 1400, refused)))
    try:
        eventually(lambda: " mtu " in host.check_output(f"ip route get {far}"))
        yield
    finally:
        if how == "route":
            host.check_output(f"ip route delete {far} dev eth0 mtu lock 1400")
        host.check_output("ip route flush cache")
        host.check_output(f"nsenter --net={netns} ip route flush cache")


@pytest.mark.parametrize("how", ["route", "icmp"])
def test_a_smaller_path_mtu_is_told_to_the_sender(tunnels: Running, how: str) -> None:
    """Of a route, or learned from a router's ICMP error about an outer packet."""
    target = tunnels.ip(REMOTE)
    with smaller_path(tunnels, how), counted(tunnels, NEAR) as growth:
        refused = tunnels.host(OTHER).run(f"ping -n -c 1 -W 1 -M do -s 1353 {target}")
        assert refused.rc != 0
        assert "Frag needed and DF set (mtu = 1380)" in refused.stdout
        assert " 0% packet loss" in ping(tunnels, OTHER, target, "-M do", "-s 1352")
    if tunnels.outcome.status["ipip"] == "ebpf":
        assert growth["tx_frag_needed"] == 1


@pytest.mark.parametrize(("option", "dont_fragment"), [("-M do", True), ("-M dont", False)])
def test_ttl_and_df_are_the_inner_packet_s(
    tunnels: Running, tmp_path: Path, option: str, dont_fragment: bool
) -> None:
    """``ttl inherit``, and DF outside only if it is inside."""
    with tunnels.capture(NEAR) as wire:
        ping(tunnels, LOCAL, tunnels.ip(REMOTE), option, "-t 9")
    sent = requests(wire)
    assert len(sent) == 3
    for frame in sent:
        assert frame.inner is not None
        assert (frame.source, frame.destination, frame.protocol) == (*ends(tunnels), IPIP)
        assert (frame.ttl, frame.inner.ttl) == (8, 8)
        assert (frame.dont_fragment, frame.inner.dont_fragment) == (dont_fragment, dont_fragment)
    same_as_tshark(wire, tmp_path)


@pytest.mark.parametrize(("tos", "outer"), [(0xB8, 0), (0xB9, 1), (0xBA, 2), (0xBB, 2)])
def test_ecn_goes_outside_and_dscp_does_not(tunnels: Running, tos: int, outer: int) -> None:
    """CE becomes ECT(0): the inner mark is not a congestion of this path."""
    with tunnels.capture(NEAR) as wire:
        ping(tunnels, LOCAL, tunnels.ip(REMOTE), f"-Q {tos}")
    seen = {(frame.tos, frame.innermost.tos) for frame in requests(wire)}
    assert seen == {(outer, tos)}


@pytest.mark.parametrize("fragments", [False, True])
@pytest.mark.parametrize(("inner", "arrives"), [(0xB8, None), (0xB9, 0xBB), (0xBA, 0xBB)])
def test_an_outer_congestion_mark_moves_inside(
    tunnels: Running, inner: int, arrives: int | None, fragments: bool
) -> None:
    """RFC 6040: a packet whose inner header cannot carry it is lost; the second is the control."""
    near, far = ends(tunnels)
    marked, control = echo(tunnels, 7, inner), packet(near, far, IPIP, echo(tunnels, 8))
    if fragments:
        outer = [
            packet(near, far, IPIP, marked[:48], tos=3, fragment=MORE_FRAGMENTS, identification=9),
            packet(near, far, IPIP, marked[48:], tos=3, fragment=48 // 8, identification=9),
        ]
    else:
        outer = [packet(near, far, IPIP, marked, tos=3)]
    with tunnels.capture(tunnels.pods[REMOTE].veth) as arrived:
        send(tunnels, NEAR, FAR, *outer, control)
    seen = {frame.identification: frame.tos for frame in requests(arrived)}
    assert seen == {8: 0} | ({} if arrives is None else {7: arrives})


def test_inner_fragments(tunnels: Running) -> None:
    """A long packet without DF is fragmented before the tunnel, whole outer packets carry it."""
    with tunnels.capture(NEAR, filter="ip proto 4") as wire:
        assert " 0% packet loss" in ping(tunnels, LOCAL, tunnels.ip(REMOTE), "-M dont", "-s 4000")
    here = uplink(tunnels, NEAR).ip
    sent = [frame for frame in wire if frame.source == here and frame.inner]
    assert {frame.innermost.fragment_offset for frame in sent} == {0, 1456, 2912}
    assert {(frame.more_fragments, frame.fragment_offset) for frame in sent} == {(False, 0)}


def test_outer_fragments_are_reassembled(tunnels: Running) -> None:
    """As a router on the way makes them: the pod gets the packet and answers."""
    near, far = ends(tunnels)
    whole = echo(tunnels, 21)
    first = packet(near, far, IPIP, whole[:56], fragment=MORE_FRAGMENTS, identification=77)
    second = packet(near, far, IPIP, whole[56:], fragment=56 // 8, identification=77)
    with (
        counted(tunnels, FAR) as growth,
        tunnels.capture(FAR, tunnels.pods[REMOTE].veth) as packets,
    ):
        send(tunnels, NEAR, FAR, first, second)
    outside = [frame for frame in packets.on(f"{FAR}/eth0") if frame.identification == 77]
    assert [(each.more_fragments, each.fragment_offset) for each in outside] == [
        (True, 0),
        (False, 56),
    ]
    arrived = requests(packets.on(tunnels.pods[REMOTE].veth))
    assert [frame.identification for frame in arrived] == [21]
    if tunnels.outcome.status["ipip"] == "ebpf":
        assert growth["rx_fragments"] == 2


@contextmanager
def route_to_nowhere(live: Running, gateway: str) -> Iterator[None]:
    """198.51.100.0/24 by the tunnel, with a remote end that cannot be reached."""
    host = live.host(NEAR)
    lines = ["route add unreachable 192.0.2.7"]
    lines.append(f"route add 198.51.100.0/24 via {gateway} dev tunl0 onlink")
    for line in lines:
        host.check_output(f"ip {line}")
    try:
        yield
    finally:
        for line in reversed(lines):
            host.check_output(f"ip {line.replace(' add ', ' delete ')}")


@pytest.mark.parametrize("neighbour", [False, True])
def test_nothing_is_sent_to_a_remote_that_cannot_be_reached(
    tunnels: Running, neighbour: bool
) -> None:
    """No route, or nobody there to answer ARP; a ping to another node is the control."""
    network = uplink(tunnels, NEAR).network
    gateway = network.broadcast_address - 5 if neighbour else IPv4Address("192.0.2.7")
    with (
        route_to_nowhere(tunnels, str(gateway)),
        counted(tunnels, NEAR) as growth,
        tunnels.capture(NEAR) as wire,
    ):
        command = f"ping -n -c 2 -i 0.05 -W 1 -p {MARK} 198.51.100.1"
        assert "100% packet loss" in tunnels.host(LOCAL).run(command).stdout
        ping(tunnels, LOCAL, tunnels.ip(REMOTE))
    assert {str(frame.innermost.destination) for frame in requests(wire)} == {tunnels.ip(REMOTE)}
    if tunnels.outcome.status["ipip"] == "ebpf" and not neighbour:
        assert (growth["tx_no_remote"], growth["tx_packets"]) == (2, 3)


def test_a_capture_on_the_device_sees_both_directions(tunnels: Running) -> None:
    """Inner packets without a link-layer header; each once."""
    with tunnels.capture(tunnels.nodes[NEAR]["tunl0"]) as inside:
        ping(tunnels, LOCAL, tunnels.ip(REMOTE))
    pods = tunnels.ip(LOCAL), tunnels.ip(REMOTE)
    seen = [(str(each.source), str(each.destination), each.icmp_type) for each in marked(inside)]
    assert seen == [(*pods, 8), (*pods[::-1], 0)] * 3


@pytest.fixture
def unrecorded(program: Running, flight_recorder: Recorder) -> Iterator[Running]:
    """The same without the flight recorder, which looks at everything."""
    flight_recorder.unwatch(program.name)
    try:
        yield program
    finally:
        flight_recorder.watch(program)


def test_packets_are_copied_only_for_a_capture(unrecorded: Running) -> None:
    """Whoever does not look does not pay."""
    program = unrecorded
    with counted(program, NEAR) as growth, program.capture(program.nodes[NEAR]["tunl0"]):
        ping(program, LOCAL, program.ip(REMOTE))
    assert growth["tx_mirrored"] == growth["tx_packets"] >= 3
    with counted(program, NEAR) as growth:
        ping(program, LOCAL, program.ip(REMOTE))
    assert growth["tx_mirrored"] == 0
    assert growth["tx_packets"] >= 3


def test_counters_move(tunnels: Running) -> None:
    """Packets and inner bytes, in both directions."""
    with counted(tunnels, NEAR) as growth:
        ping(tunnels, LOCAL, tunnels.ip(REMOTE))
    for way in ("tx", "rx"):
        assert growth[f"{way}_packets"] >= 3
        assert growth[f"{way}_bytes"] >= 3 * 84
    assert not growth["tx_errors"] + growth["rx_errors"]
