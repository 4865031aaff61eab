"""Judging probes and frames: each way in which a network can be wrong must be found."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from testbed.packets.packet import Packet
from testbed.topology.model import Backend, Cluster, Container, Node, Pod, Router
from testbed.verify import check, wire
from testbed.verify.observed import Observed
from testbed.verify.report import Finding, Report

MARKER = "m"
PODS = tuple(
    Pod(
        "default",
        name,
        node,
        (Container("c", image, argv),),
        hostname=name,
    )
    for name, node, image, argv in (
        ("a", "node1", "netexec", ("/usr/local/bin/netexec",)),
        ("b", "node2", "netexec", ("/usr/local/bin/netexec", "--http-port=9090")),
        ("c", "node2", "nginx", ("nginx",)),
    )
)
CLUSTER = Cluster(
    name="t",
    cni="flannel",
    backend=Backend("vxlan"),
    cluster_cidr=IPv4Network("10.244.0.0/16"),
    node_cidr_mask=24,
    service_cidr=IPv4Network("10.96.0.0/16"),
    nodes=tuple(
        Node(f"node{index + 1}", index, (IPv4Network(f"10.244.{index}.0/24"),))
        for index in range(2)
    ),
    pods=PODS,
)


def entry(name: str, ip: str, state: str = "Running") -> dict[str, Any]:
    """A pod in a node's state file."""
    return {"namespace": "default", "name": name, "ip": ip, "state": state}


OBSERVED = Observed.of(
    {"node1": "172.18.0.2", "node2": "172.18.0.3"},
    {
        "node1": {"pods": [entry("a", "10.244.0.2")]},
        "node2": {"pods": [entry("b", "10.244.1.2"), entry("c", "10.244.1.3")]},
    },
)
EXPECTATIONS = check.expect(CLUSTER, OBSERVED)
ECHO = next(each for each in EXPECTATIONS if each.crossing and each.node == "node1")
TCP = next(each for each in EXPECTATIONS if each.protocol == "tcp" and each.source == "default/a")
GOOD = {"id": ECHO.identity, "ok": True, "milliseconds": 0.3}


def frames(**outer: Any) -> tuple[Packet, ...]:
    """The echo request and its reply, as they must be but for ``outer``."""
    a, b = IPv4Address("10.244.0.2"), IPv4Address("10.244.1.2")
    node1, node2 = IPv4Address("172.18.0.2"), IPv4Address("172.18.0.3")
    mark = check.marker_of(MARKER, ECHO.identity)
    found = []
    for source, target, from_node, to_node, kind in (
        (a, b, node1, node2, 8),
        (b, a, node2, node1, 0),
    ):
        inner = Packet("", "", 0x0800, source, target, icmp_type=kind, payload=mark)
        frame = Packet(
            "", "", 0x0800, from_node, to_node, destination_port=8472, vni=1, inner=inner
        )
        found.append(frame._replace(**outer))
    return tuple(found)


def judged(result: dict[str, Any] | None, seen: tuple[Packet, ...]) -> dict[str, Finding]:
    """The findings of the captured echo by their kind."""
    found = check.judge(ECHO, result, wire.Captured(seen), MARKER, OBSERVED)
    return {finding.kind: finding for finding in found}


def test_a_good_probe_passes() -> None:
    """Both the answer and the wire."""
    assert all(finding.ok for finding in judged(GOOD, frames()).values())


@pytest.mark.parametrize(
    ("outer", "words"),
    [
        ({"vni": 2}, "VNI 2, UDP 8472; must be VXLAN VNI 1, UDP 8472"),
        ({"destination_port": 4789}, "VNI 1, UDP 4789"),
        ({"source": IPv4Address("172.18.0.9")}, "outer addresses are 172.18.0.9"),
        ({"destination": IPv4Address("172.18.0.9")}, "outer addresses are 172.18.0.2"),
    ],
)
def test_wrong_outer_headers_are_found(outer: dict[str, Any], words: str) -> None:
    """VNI, port and node addresses."""
    finding = judged(GOOD, frames(**outer))["wire"]
    assert not finding.ok
    assert words in finding.detail


def test_a_plain_frame_is_found_where_it_must_be_encapsulated() -> None:
    """The packet arrived, but not through the overlay."""
    plain = tuple(frame.innermost for frame in frames())
    assert judged(GOOD, plain)["wire"].detail == (
        "echo request: not encapsulated; must be VXLAN VNI 1, UDP 8472"
    )


def test_natted_inner_addresses_are_found() -> None:
    """The inner source must be the pod's own."""
    request, reply = frames()
    assert request.inner is not None
    changed = request._replace(inner=request.inner._replace(source=IPv4Address("10.244.0.0")))
    assert "inner addresses are 10.244.0.0" in judged(GOOD, (changed, reply))["wire"].detail


@pytest.mark.parametrize(("index", "missing"), [(0, "echo reply"), (1, "echo request")])
def test_both_directions_must_be_captured(index: int, missing: str) -> None:
    """No frame is no proof."""
    assert missing in judged(GOOD, frames()[index : index + 1])["wire"].detail


def test_frames_of_other_probes_do_not_count() -> None:
    """A frame is recognised by its marker alone."""
    other = check.marker_of("another", ECHO.identity)
    changed = tuple(
        frame._replace(inner=frame.innermost._replace(payload=other)) for frame in frames()
    )
    assert not judged(GOOD, changed)["wire"].ok


def test_an_agent_without_a_result_fails() -> None:
    """Silence is not success."""
    assert judged(None, frames())["icmp"].detail == "icmp to 10.244.1.2: the agent gave no result"


def test_a_translated_source_is_nat() -> None:
    """The target must see the sender's own address."""
    result = {"ok": True, "seen_as": "10.244.0.0"}
    (finding,) = check.judge(TCP, result, wire.Captured(), MARKER, OBSERVED)
    assert finding.detail.endswith("the pod saw 10.244.0.0 instead of 10.244.0.2 (NAT)")


def test_netexec_is_asked_on_its_own_port() -> None:
    """``--http-port`` moves it; pods that run something else are pinged only."""
    tcp = {each.target: each.port for each in EXPECTATIONS if each.protocol == "tcp"}
    assert tcp == {"default/a": 8080, "default/b": 9090}


def test_every_probe_has_its_own_identity() -> None:
    """Results are matched by it."""
    assert len({each.identity for each in EXPECTATIONS}) == len(EXPECTATIONS)


def test_a_request_holds_only_the_nodes_own_probes() -> None:
    """And asks for a capture where a node pair is to be proven."""
    request = check.request(CLUSTER, OBSERVED, EXPECTATIONS, "node1", MARKER, "eth0", 3.0)
    assert {probe["source"] for probe in request["probes"]} == {"", "default/a"}
    assert request["capture"]["ids"] == [ECHO.identity]


def test_pods_that_do_not_run_are_found() -> None:
    """With the reason that the agent gives."""
    broken = Observed.of(
        {"node1": "172.18.0.2", "node2": ""},
        {"node1": {"pods": [{**entry("a", "", "Failed"), "error": "no address"}]}, "node2": {}},
    )
    details = [finding.detail for finding in check.judge_pods(CLUSTER, broken)]
    assert details[0] == "state Failed: no address"
    assert details[1] == "state unknown: node node2 does not report it"


@pytest.mark.parametrize(
    ("ip", "words"),
    [
        ("10.99.0.2", "is not one of node2's pod CIDR 10.244.1.0/24"),
        ("10.244.1.2", "its address 10.244.1.2 is that of default/b, too"),
        ("", "it has no address"),
    ],
)
def test_addresses_of_pods_are_judged(ip: str, words: str) -> None:
    """Each of its own node's range, and each only once."""
    states = {
        "node1": {"pods": [entry("a", "10.244.0.2")]},
        "node2": {"pods": [entry("b", "10.244.1.2"), entry("c", ip)]},
    }
    observed = Observed.of({"node1": "172.18.0.2", "node2": "172.18.0.3"}, states)
    failed = [finding for finding in check.judge_pods(CLUSTER, observed) if not finding.ok]
    assert [finding.target for finding in failed] == ["default/c"]
    assert words in failed[0].detail


def test_pairs_of_nodes_without_pods_are_named_as_unproven() -> None:
    """Nothing was captured there, and the report says so."""
    assert check.unproven(CLUSTER, EXPECTATIONS) == ()
    assert check.unproven(CLUSTER, ()) == ("node1 -> node2", "node2 -> node1")


def test_a_pod_that_has_done_its_work_need_not_answer() -> None:
    """Its state is right, nobody probes it, and another pod stands for its node on the wire."""
    states = {
        "node1": {"pods": [entry("a", "10.244.0.2")]},
        "node2": {"pods": [entry("b", "", "Succeeded"), entry("c", "10.244.1.3")]},
    }
    observed = Observed.of({"node1": "172.18.0.2", "node2": "172.18.0.3"}, states)
    assert all(finding.ok for finding in check.judge_pods(CLUSTER, observed))
    found = check.expect(CLUSTER, observed)
    assert not [each for each in found if "default/b" in (each.source, each.target)]
    assert {each.target for each in found if each.crossing} == {"default/a", "default/c"}


def test_a_pod_without_an_address_fails_every_flow_to_it() -> None:
    """What cannot be probed is counted, not left out."""
    states = {
        "node1": {"pods": [entry("a", "10.244.0.2")]},
        "node2": {"pods": [entry("b", "", "Pending"), entry("c", "10.244.1.3")]},
    }
    observed = Observed.of({"node1": "172.18.0.2", "node2": "172.18.0.3"}, states)
    found = check.expect(CLUSTER, observed)
    assert len(found) == len(EXPECTATIONS)
    to_b = [each for each in found if each.target == "default/b"]
    details = {
        f.detail
        for each in to_b
        for f in check.judge(each, None, wire.Captured(), MARKER, observed)
    }
    assert "the target has no address" in details
    request = check.request(CLUSTER, OBSERVED, found, "node1", MARKER, "eth0", 3.0)
    assert all(probe["ip"] for probe in request["probes"])


def test_probes_of_host_network_pods_start_at_the_node() -> None:
    """They have no network namespace of their own."""
    pods = (replace(PODS[0], host_network=True), *PODS[1:])
    found = check.expect(replace(CLUSTER, pods=pods), OBSERVED)
    request = check.request(CLUSTER, OBSERVED, found, "node1", MARKER, "eth0", 3.0)
    assert {probe["source"] for probe in request["probes"]} == {""}


def test_nodes_that_are_not_ready_are_found() -> None:
    """One that stopped, and one whose agent says so itself."""
    broken = Observed.of({"node1": "172.18.0.2", "node2": ""}, {"node1": {"phase": "degraded"}})
    details = [finding.detail for finding in check.judge_nodes(CLUSTER, broken)]
    assert details == ["the node is degraded", "the node is not running"]


def test_a_report_of_nothing_is_not_ok() -> None:
    """A check that checked nothing proves nothing."""
    assert not Report((), "none").ok
    assert Report((Finding("icmp", "a", "b", ok=True),), "none").ok
    assert not Report((Finding("icmp", "a", "b", ok=False),), "none").ok


MESH = replace(CLUSTER, cni="calico", backend=Backend("ipip"))
ADDRESSES = Observed(
    {"node1": IPv4Address("172.18.0.2"), "node2": IPv4Address("172.18.0.3")},
)


def session(name: str, info: str = "Established") -> dict[str, str]:
    """A line of BIRD's ``show protocols``."""
    return {"name": name, "state": "up" if info == "Established" else "start", "info": info}


def test_bgp_sessions_are_found_by_the_peer_s_address() -> None:
    """Both ends must say Established."""
    sessions = {
        "node1": [session("Mesh_172_18_0_3")],
        "node2": [session("Mesh_172_18_0_2", "Connect")],
    }
    good, bad = check.judge_bgp(MESH, ADDRESSES, sessions)
    assert (good.ok, good.source, good.target) == (True, "node1", "node2")
    assert (bad.ok, bad.detail) == (False, "Mesh_172_18_0_2 is start (Connect)")


def test_a_missing_bgp_session_fails() -> None:
    """BIRD that does not run has none."""
    findings = list(check.judge_bgp(MESH, ADDRESSES, {}))
    assert [finding.ok for finding in findings] == [False, False]
    assert findings[0].detail == "BIRD has no session Mesh_172_18_0_3"


def test_a_router_peers_with_every_node() -> None:
    """Sessions that Calico calls Global."""
    cluster = replace(MESH, routers=(Router("tor", 0, ("default",), 64513),))
    sessions = {
        "node1": [session("Mesh_172_18_0_3"), session("Global_172_18_255_254")],
        "node2": [session("Mesh_172_18_0_2"), session("Global_172_18_255_254", "Idle")],
    }
    found = {
        (each.source, each.target): each.ok
        for each in check.judge_bgp(cluster, ADDRESSES, sessions)
    }
    assert found["node1", "tor"]
    assert not found["node2", "tor"]


def test_routes_are_waited_for_where_bgp_brings_them() -> None:
    """Those of the captured probes: one address a remote node."""
    found = check.expect(MESH, OBSERVED)
    assert check.request(MESH, OBSERVED, found, "node1", MARKER, "eth0", 3.0)["routes"]
    found = check.expect(CLUSTER, OBSERVED)
    assert check.request(CLUSTER, OBSERVED, found, "node1", MARKER, "eth0", 3.0)["routes"] == []


WIREGUARD = replace(CLUSTER, backend=Backend("wireguard"))


def test_encrypted_packets_are_seen_but_not_read() -> None:
    """UDP 51820 both ways, and nothing in the clear."""
    expectation = next(each for each in check.expect(WIREGUARD, OBSERVED) if each.crossing)
    ends = OBSERVED.node_ips["node1"], OBSERVED.node_ips["node2"]
    there, back = (
        Packet(None, None, 0x0800, *way, protocol=17, destination_port=51820)
        for way in (ends, ends[::-1])
    )
    mark = check.marker_of(MARKER, expectation.identity)
    clear = Packet(None, None, 0x0800, *ends, protocol=1, icmp_type=8, payload=mark)
    result = {"id": expectation.identity, "ok": True, "error": ""}

    def seen(*frames: Packet) -> Finding:
        """The finding about these frames."""
        capture = wire.Captured(frames, "2 packets captured")
        return list(check.judge(expectation, result, capture, MARKER, OBSERVED))[1]

    assert seen(there, back).ok
    assert "not encrypted" in seen(there, back, clear).detail
    assert "no UDP 51820 both ways" in seen(there).detail
