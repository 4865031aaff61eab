"""Comparing what the oracle expects with what probes and captured frames show. Pure.

The shell around it (:mod:`testbed.verify.probe`) runs one request per node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from itertools import count
from typing import Any

from testbed.topology.model import Cluster, Container, Pod
from testbed.verify import oracle, wire
from testbed.verify.observed import Observed
from testbed.verify.report import Finding

__all__ = [
    "Expectation",
    "expect",
    "judge",
    "judge_bgp",
    "judge_nodes",
    "judge_pods",
    "marker_of",
    "request",
    "unproven",
]

_NETEXEC, _NETEXEC_PORT = "/usr/local/bin/netexec", 8080
_CONVERGE_SECONDS = 15.0
"""For BGP to converge: a connection that was refused is tried again after 5 s."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One probe to run on a node, and what its answer must be."""

    identity: int
    node: str
    protocol: str
    source: str
    target: str
    ip: str
    """Empty: the target has no address, so there is nothing to probe."""
    port: int = 0
    seen_as: str = ""
    """The address that the target must see; empty: any."""
    on_node: bool = False
    """Whether the probe starts in the node's own network namespace."""
    crossing: oracle.Crossing | None = None
    """Set where the probe's frames are captured on the uplink of the sender's node."""


def expect(cluster: Cluster, observed: Observed) -> tuple[Expectation, ...]:
    """Every probe of a full check; a pod that has done its work and ended need not answer."""
    identities = count(1)
    pods = {pod.key: pod for pod in cluster.pods}
    ended = {key for key in pods if observed.ended(key)}
    crossings = {(each.source, each.target): each for each in oracle.crossings(cluster, ended)}
    found: list[Expectation] = []
    for flow in oracle.flows(cluster):
        if flow.source in ended or flow.target in ended:
            continue
        source, target = observed.ip(flow.source), observed.ip(flow.target)
        echo = Expectation(
            next(identities),
            flow.node,
            "icmp",
            flow.source,
            flow.target,
            str(target or ""),
            on_node=flow.source == oracle.NODE or pods[flow.source].host_network,
            crossing=crossings.get((flow.source, flow.target)),
        )
        found.append(echo)
        port = _http_port(pods[flow.target])
        if port:
            found.append(
                replace(
                    echo,
                    identity=next(identities),
                    protocol="tcp",
                    port=port,
                    seen_as=str(source) if flow.preserved else "",
                    crossing=None,
                )
            )
    return tuple(found)


def _http_port(pod: Pod) -> int:
    """The port on which the pod's netexec answers ``/clientip``; 0: it has none."""
    for container in pod.containers:
        if container.argv[:1] == (_NETEXEC,):
            return _flag(container, "--http-port", _NETEXEC_PORT)
    return 0


def _flag(container: Container, flag: str, default: int) -> int:
    words = iter(container.argv)
    for word in words:
        name, _, value = word.partition("=")
        if name == flag:
            text = value or next(words, "")
            return int(text) if text.isdigit() else default
    return default


def request(
    cluster: Cluster,
    observed: Observed,
    expectations: tuple[Expectation, ...],
    node: str,
    marker: str,
    device: str,
    seconds: float,
) -> dict[str, Any]:
    """What ``testbed-agent probe`` on ``node`` reads."""
    own = [each for each in expectations if each.node == node and each.ip]
    captured = [each.identity for each in own if each.crossing]
    ways = {type(each.crossing.encapsulation) for each in own if each.crossing}
    sessions = _sessions(cluster, node, observed)
    return {
        "routes": sorted({each.ip for each in own if each.crossing}) if sessions else [],
        "sessions": sessions,
        "converge_seconds": _CONVERGE_SECONDS,
        "marker": marker,
        "timeout": seconds,
        "probes": [
            {
                "id": each.identity,
                "source": "" if each.on_node else each.source,
                "protocol": each.protocol,
                "ip": each.ip,
                "port": each.port,
            }
            for each in own
        ],
        "capture": {
            "interface": device,
            "filter": "ip",
            "ids": captured,
            "encrypted": oracle.Wireguard in ways,
        }
        if captured
        else None,
    }


def _sessions(cluster: Cluster, node: str, observed: Observed) -> list[str]:
    """The names of the BGP protocols to wait for: those whose peers run."""
    routers = set(cluster.machines) - {each.name for each in cluster.nodes}
    peers = [peer for source, peer in oracle.mesh(cluster) if source == node]
    mesh = [
        _session("Mesh_", observed.node_ips[peer]) for peer in peers if peer in observed.node_ips
    ]
    return mesh + (["Global_"] if routers.intersection(peers) else [])


def _session(kind: str, address: IPv4Address | None) -> str:
    """Calico names a protocol by its peer's address: ``Mesh_172_18_0_3``."""
    return kind + str(address or "").replace(".", "_")


def unproven(cluster: Cluster, expectations: tuple[Expectation, ...]) -> tuple[str, ...]:
    """The ordered pairs of nodes between which no probe is captured."""
    captured = {
        (each.crossing.source_node, each.crossing.target_node)
        for each in expectations
        if each.crossing
    }
    names = [node.name for node in cluster.nodes]
    return tuple(
        f"{one} -> {other}"
        for one in names
        for other in names
        if one != other and (one, other) not in captured
    )


def judge_nodes(cluster: Cluster, observed: Observed) -> Iterator[Finding]:
    """Every node of the topology runs, and its agent says that it is ready."""
    for node in cluster.nodes:
        phase = observed.phases.get(node.name, "not running")
        ok = phase == "ready"
        yield Finding("node", "", node.name, ok, "" if ok else f"the node is {phase}")


def judge_pods(cluster: Cluster, observed: Observed) -> Iterator[Finding]:
    """Every pod of the topology runs, with an address of its node's that no other pod has."""
    owners: dict[str, str] = {}
    for pod in cluster.pods:
        entry = observed.pods.get(pod.key, {})
        state = entry.get("state", f"unknown: node {pod.node} does not report it")
        detail = ""
        if state != "Running" and not observed.ended(pod.key):
            detail = f"state {state}" + _because(entry)
        elif state == "Running":
            detail = _address_problem(cluster, pod, observed, owners)
        yield Finding("pod", pod.node, pod.key, not detail, detail)


def _address_problem(cluster: Cluster, pod: Pod, observed: Observed, owners: dict[str, str]) -> str:
    """Why the pod's address is not what it must be; ``owners`` has those seen before."""
    ip = observed.ip(pod.key)
    if ip is None:
        return "it has no address"
    if pod.host_network:
        node = observed.node_ips.get(pod.node)
        return "" if ip == node else f"its address is {ip}, but its node's is {node}"
    home = cluster.node(pod.node)
    if ip not in home.borrowed and not any(ip in cidr for cidr in home.pod_cidrs):
        cidrs = ", ".join(str(cidr) for cidr in home.pod_cidrs)
        return f"its address {ip} is not one of {pod.node}'s pod CIDR {cidrs}"
    owner = owners.setdefault(str(ip), pod.key)
    return "" if owner == pod.key else f"its address {ip} is that of {owner}, too"


def _because(entry: Mapping[str, Any]) -> str:
    return f": {entry['error']}" if entry.get("error") else ""


def judge_bgp(
    cluster: Cluster, observed: Observed, sessions: Mapping[str, Iterable[Mapping[str, Any]]]
) -> Iterator[Finding]:
    """Every BGP session that must be established is; ``sessions`` are each node's, as BIRD lists.

    Calico names them by the peer's address: ``Mesh_172_18_0_3`` in the mesh, ``Global_…`` for a
    router or client that all nodes peer with.
    """
    routers = set(cluster.machines) - {each.name for each in cluster.nodes}
    for node, peer in oracle.mesh(cluster):
        absent = [each for each in (node, peer) if each not in (*observed.node_ips, *routers)]
        if absent:
            yield Finding("bgp", node, peer, False, f"node {absent[0]} does not run")
            continue
        known = sessions.get(node, ())
        if peer in routers:
            name = "Global_…"
            found = [each for each in known if each["name"].startswith("Global_")]
        else:
            name = _session("Mesh_", observed.node_ips.get(peer))
            found = [each for each in known if each["name"] == name]
        detail = "" if found else f"BIRD has no session {name}"
        for each in found:
            if each["info"] != "Established":
                detail = f"{each['name']} is {each['state']} ({each['info'] or 'no reason given'})"
        yield Finding("bgp", node, peer, not detail, detail)


def marker_of(marker: str, identity: int) -> bytes:
    """The payload by which a captured frame is recognised, as the agent writes it."""
    return f"testbed {marker} {identity};".encode()


def judge(
    expectation: Expectation,
    result: Mapping[str, Any] | None,
    capture: wire.Captured,
    marker: str,
    observed: Observed,
) -> Iterator[Finding]:
    """The findings of one probe: whether it was answered as it must be, and how it travelled."""
    source = expectation.source or f"node {expectation.node}"
    yield Finding(
        expectation.protocol,
        source,
        expectation.target,
        *_answer(expectation, result, observed),
    )
    if expectation.crossing:
        mark = marker_of(marker, expectation.identity)
        seen = tuple(frame for frame in capture.frames if mark in frame.innermost.payload)
        problem = wire.problem(expectation.crossing, seen, capture, observed)
        yield Finding("wire", source, expectation.target, not problem, problem)


def _answer(
    expectation: Expectation, result: Mapping[str, Any] | None, observed: Observed
) -> tuple[bool, str]:
    if not expectation.ip:
        return False, "the target has no address"
    if expectation.node not in observed.node_ips:
        return False, f"node {expectation.node} does not run"
    where = f"{expectation.protocol} to {expectation.ip}"
    if expectation.port:
        where += f":{expectation.port}"
    if result is None:
        return False, f"{where}: the agent gave no result"
    if not result["ok"]:
        return False, f"{where}: {result['error']}"
    if expectation.seen_as and result.get("seen_as") != expectation.seen_as:
        seen = result.get("seen_as") or "nothing"
        return False, f"{where}: the pod saw {seen} instead of {expectation.seen_as} (NAT)"
    return True, ""
