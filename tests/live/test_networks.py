"""Two networks with a router between them: what crosses it, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from testbed import existing, lifecycle
from testbed.topology.model import Cluster, Network
from tests.live.calico import eventually
from tests.live.conftest import Cli, Lasting, Running, owned, quiet
from tests.live.wire import ping, replies, requests, same_as_tshark

FAR, NEAR = "netexec-node3-1", "netexec-node2-1"
NAMES = ("node1", "node2", "node3", "tor")


@pytest.fixture(scope="module")
def racks(lasting: Lasting) -> Iterator[Running]:
    """node1 and node2 on rack1, node3 on rack2, and the router ``tor`` on both."""
    with lasting("racks", name="racks") as found:
        yield found


def link(live: Running, container: str, ip: str) -> dict[str, Any]:
    """The link that has ``ip``, as ``ip -json address`` shows it."""
    links = json.loads(live.host(container).check_output("ip -json address"))
    return next(each for each in links if any(found["local"] == ip for found in each["addr_info"]))


def identities(live: Running) -> dict[str, str]:
    """Node or router → its container's ID."""
    inspect = live.client.api.inspect_container
    return {name: inspect(live.container(name))["Id"] for name in NAMES}


def addresses(status: dict[str, Any]) -> dict[str, str]:
    """Everything's addresses, of a status."""
    return {
        **{each["name"]: each["ip"] for each in (*status["nodes"], *status["pods"])},
        **{each["name"]: ",".join(each["ips"]) for each in status["routers"]},
    }


def healed(live: Running) -> dict[str, Any] | None:
    """The status, once everything is ready again."""
    status = existing.status(live.client, live.name)
    return status if status["state"] == "ready" else None


def test_the_check_passes(racks: Running) -> None:
    """Every pair; the router counts as a node that must be ready."""
    report = racks.outcome.report
    assert report.ok, report.failures
    assert report.counts()["node"] == (4, 4)
    assert report.counts()["wire"] == (6, 6)


def test_every_node_has_an_address_of_its_own_network(racks: Running) -> None:
    """Nodes are counted through the topology, routers from the end of each subnet."""
    status = existing.status(racks.client, racks.name)
    rack1, rack2 = (IPv4Network(each["subnet"]) for each in status["networks"])
    assert [each["name"] for each in status["networks"]] == ["rack1", "rack2"]
    assert not rack1.overlaps(rack2)
    assert [IPv4Address(node["ip"]) for node in status["nodes"]] == [
        rack1.network_address + 2,
        rack1.network_address + 3,
        rack2.network_address + 4,
    ]
    assert [IPv4Address(ip) for ip in status["routers"][0]["ips"]] == [
        rack1.broadcast_address - 1,
        rack2.broadcast_address - 1,
    ]
    for node in status["nodes"]:
        assert racks.host(node["name"]).interface("eth0").addresses == [node["ip"]]


def test_the_router_forwards(racks: Running, tmp_path: Path) -> None:
    """At the receiver: outer addresses of both subnets, TTL 63, from the router's MAC."""
    with racks.capture("node3") as wire:
        ping(racks, "netexec-node1-1", racks.ip(FAR))
    status = existing.status(racks.client, racks.name)
    node1, _, node3 = (node["ip"] for node in status["nodes"])
    echoes = requests(wire)
    answers = replies(wire)
    assert (len(echoes), len(answers)) == (3, 3)
    router = link(racks, "tor", status["routers"][0]["ips"][1])["address"]
    for frame in echoes:
        assert (str(frame.source), str(frame.destination)) == (node1, node3)
        assert (frame.ttl, frame.innermost.ttl, frame.source_mac) == (63, 63, router)
    assert {(frame.ttl, frame.destination_mac) for frame in answers} == {(64, router)}
    same_as_tshark(wire, tmp_path)


def test_within_a_rack_nothing_is_routed(racks: Running) -> None:
    """The outer TTL is the sender's; the router sees nothing of it, but a ping to the far rack."""
    ips = existing.status(racks.client, racks.name)["routers"][0]["ips"]
    device = link(racks, "tor", ips[0])["ifname"]
    here, near, far = (racks.pods[name] for name in ("netexec-node1-1", NEAR, FAR))
    with racks.capture("node2", racks.routers["tor"][device]) as packets:
        here.ping(near)
        here.ping(far)
    assert {frame.ttl for frame in packets.on("node2/eth0").sent(here, near)} == {64}
    assert packets.between(here, far).on(f"tor/{device}")
    assert not packets.between(here, near).on(f"tor/{device}")


def test_a_router_is_shown_and_entered_like_a_node(racks: Running, cli: Cli) -> None:
    """``status``, ``exec`` and ``logs``; ``ls`` counts nodes only."""
    shown = cli("status", "-v", "--name", racks.name)
    assert shown.returncode == 0, shown.stderr
    assert f"tor      {racks.container('tor')}" in shown.stdout
    assert "\nrack2     " in shown.stdout
    verbose = json.loads(cli("status", "-v", "--name", racks.name, "-o", "json").stdout)
    assert {"ipip_counters", "processes", "bgp", "errors"} <= set(verbose)
    assert set(verbose["routers"][0]) == {"name", "container", "ips", "state"}
    assert (verbose["ipip"], verbose["errors"]) == ("", [])
    inside = cli("exec", "--name", racks.name, "tor", "--", "hostname")
    assert (inside.returncode, inside.stdout) == (0, "tor\n")
    assert "ready: " in cli("logs", "--name", racks.name, "tor").stdout
    unknown = cli("exec", "--name", racks.name, "nope", "--", "true")
    assert "routers: tor" in unknown.stderr
    rows = {row["name"]: row for row in json.loads(cli("ls", "-o", "json").stdout)}
    assert (rows[racks.name]["nodes"], rows[racks.name]["running"]) == (3, 3)


def test_a_second_up_changes_nothing(racks: Running) -> None:
    """The same containers, the same networks."""
    before = identities(racks)
    told: list[tuple[str, ...]] = []
    outcome = lifecycle.up(racks.cluster, racks.client, lambda *words: told.append(words))
    assert outcome.report.ok, outcome.report.failures
    assert {words for words in told if words[1] == "ready"} == {
        (name, "ready", "nothing to change") for name in NAMES
    }
    assert identities(racks) == before


def test_without_the_router_the_racks_are_apart(racks: Running) -> None:
    """Within a rack all goes on; starting the container by itself mends it."""
    before = addresses(existing.status(racks.client, racks.name))
    racks.client.api.stop(racks.container("tor"), timeout=5)
    broken = lifecycle.check(racks.client, racks.name)
    assert broken.status["state"] == "degraded"
    assert broken.status["routers"][0]["state"] == "stopped"
    findings = broken.report.findings
    router = next(each for each in findings if each.target == "tor")
    assert (router.ok, router.detail) == (False, "the router is stopped")
    assert all(each.ok for each in findings if each.kind in ("node", "pod") and each != router)
    pings = {(each.source, each.target): each.ok for each in findings if each.kind == "icmp"}
    own = f"default/{NEAR}", "default/netexec-node1-1"
    assert pings[own]
    assert not any(
        ok for ends, ok in pings.items() if (f"default/{FAR}" in ends) and "node node3" not in ends
    )
    racks.client.api.start(racks.container("tor"))
    assert addresses(eventually(lambda: healed(racks))) == before
    mended = lifecycle.check(racks.client, racks.name)
    assert mended.report.ok, mended.report.failures


@pytest.mark.parametrize("container", ["node3", "tor"])
def test_a_restart_keeps_the_addresses(racks: Running, container: str) -> None:
    """``docker restart``: networks, routes and forwarding come back without testbed."""
    before = addresses(existing.status(racks.client, racks.name))
    racks.client.api.restart(racks.container(container), timeout=5)
    assert addresses(eventually(lambda: healed(racks))) == before
    report = lifecycle.check(racks.client, racks.name).report
    assert report.ok, report.failures


def test_a_router_that_lacks_a_network_is_made_anew(racks: Running) -> None:
    """As after an interrupt between creating and connecting it; the nodes stay."""
    before = identities(racks)
    network = f"testbed-{racks.name}-rack2"
    racks.client.api.disconnect_container_from_network(racks.container("tor"), network)
    outcome = lifecycle.up(racks.cluster, racks.client, quiet)
    assert outcome.report.ok, outcome.report.failures
    after = identities(racks)
    assert {name for name in NAMES if after[name] != before[name]} == {"tor"}


def test_networks_come_and_go(make: Callable[..., Running]) -> None:
    """A new network leaves the others' nodes alone; one that is gone makes all anew."""
    live = make("racks")
    kept = identities(live)
    rack1 = first_rack(live.cluster)
    outcome = lifecycle.up(rack1, live.client, quiet)
    assert outcome.report.ok, outcome.report.failures
    assert networks(live) == [f"testbed-{live.name}-rack1"]
    assert outcome.status["routers"] == []
    assert len(outcome.status["nodes"]) == 2
    node1 = live.client.api.inspect_container(live.container("node1"))["Id"]
    assert node1 != kept["node1"]
    outcome = lifecycle.up(live.cluster, live.client, quiet)
    assert outcome.report.ok, outcome.report.failures
    assert identities(live)["node1"] == node1
    subnets = {each["name"]: each["subnet"] for each in outcome.status["networks"]}
    moved = replace(
        live.cluster, networks=(Network("rack1"), Network("rack2", other(subnets.values())))
    )
    outcome = lifecycle.up(moved, live.client, quiet)
    assert outcome.report.ok, outcome.report.failures
    assert outcome.status["networks"][1]["subnet"] == str(moved.networks[1].subnet)
    existing.down(live.client, live.name, quiet)
    assert networks(live) == []
    assert not [each for each in owned(live.client) if belongs(each, live.name)]


def first_rack(cluster: Cluster) -> Cluster:
    """The same without the second rack and the router."""
    nodes = tuple(node for node in cluster.nodes if node.network == "rack1")
    names = {node.name for node in nodes}
    pods = tuple(pod for pod in cluster.pods if pod.node in names)
    return replace(cluster, nodes=nodes, pods=pods, networks=(Network("rack1"),), routers=())


def other(taken: Any) -> IPv4Network:
    """A small subnet that overlaps none of these."""
    found = (IPv4Network(f"192.168.{third}.0/24") for third in range(200, 216))
    return next(net for net in found if not any(net.overlaps(IPv4Network(t)) for t in taken))


def belongs(item: dict[str, Any], name: str) -> bool:
    """Whether a container or network is the testbed's."""
    return bool(item["Labels"].get("testbed.name") == name)


def networks(live: Running) -> list[str]:
    """The Docker networks of the testbed."""
    found = live.client.api.networks(filters={"label": [f"testbed.name={live.name}"]})
    return sorted(each["Name"] for each in found)
