"""What nodes are told when Services change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from testbed.dataplane.vantage import LARGE
from testbed.node.services import Kept
from testbed.services import documents, state
from testbed.topology.model import Cluster
from testbed.topology.portals import Seen
from tests.unit.services.cluster import DNS, UNDERLAY, WEB, cluster, running, written


def told(
    now: Cluster, pods: dict[str, Seen], before: Kept | None = None, node: int = 0
) -> dict[str, Any]:
    """The document of a node."""
    kept, portals = state.kept(now, pods)
    change = documents.update(kept, portals, before)
    return documents.document(now, now.nodes[node], UNDERLAY, change)


def test_everything_is_verified() -> None:
    """A node may hold whatever."""
    document = told(cluster(services=(DNS, WEB)), running("a", "b"))
    assert (document["base"], document["verify"]) == (None, True)
    assert set(document["units"]) == {"", "default/web", "kube-system/dns"}
    assert "-j KUBE-SVC-" in document["units"][""]["iptables"]
    assert "10.244.1.2:8080" in document["units"]["default/web"]["iptables"]


def test_a_change_is_one_unit() -> None:
    """An endpoint more: what all Services share is the same, so it is not sent."""
    full = cluster(services=(DNS, WEB))
    before, _ = state.kept(full, running("a"))
    document = told(full, running("a", "b"), before)
    assert (document["base"], document["verify"]) == (before.generation, False)
    assert set(document["units"]) == {"default/web"}
    assert set(document["inputs"]) == {"default/web"}


def test_what_is_shared_is_sent_when_it_differs() -> None:
    """A Service that loses its last endpoint is refused by a rule of the shared chains."""
    before, _ = state.kept(cluster(), running("a"))
    document = told(cluster(), {}, before)
    assert "has no endpoints" in document["units"][""]["iptables"]
    assert document["units"]["default/web"] == {"iptables": ""}


def test_a_service_that_is_gone() -> None:
    """Its unit and its inputs are nothing; UDP to it is forgotten."""
    full = cluster(services=(DNS, WEB), slices=(written("dns", "10.244.0.9"),))
    before, _ = state.kept(full, running("a"))
    document = told(cluster(), running("a"), before)
    assert document["units"]["kube-system/dns"] is None
    assert document["inputs"] == {"kube-system/dns": None}
    assert document["conntrack"] == (
        ("-D", "-p", "udp", "--orig-dst", "10.96.0.10", "--dst-nat", "10.244.0.9"),
    )


def test_nothing_differs() -> None:
    """A delta of nothing."""
    before, _ = state.kept(cluster(), running("a"))
    document = told(cluster(), running("a"), before)
    assert document["units"] == {}
    assert document["base"] == document["generation"]


def test_crossing_the_large_cluster_changes_everything() -> None:
    """Comments come and go in all chains."""
    many = written("dns", *(f"10.1.{n // 250}.{n % 250}" for n in range(LARGE + 1)))
    small = cluster(services=(DNS, WEB))
    before, _ = state.kept(small, running("a"))
    document = told(replace(small, slices=(many,)), running("a"), before)
    assert document["base"] is None
    assert '--comment "default/web:http -> ' not in document["units"]["default/web"]["iptables"]


def test_nodes_have_rules_of_their_own() -> None:
    """With policy Local, chains differ from node to node."""
    local = cluster(services=(replace(WEB, external_traffic_policy="Local"),))
    texts = [
        told(local, running("a"), node=node)["units"]["default/web"]["iptables"] for node in (0, 1)
    ]
    assert texts[0] != texts[1]


@pytest.mark.parametrize("proxy", ["iptables", "nftables", "ipvs", "none"])
def test_every_mode(proxy: str) -> None:
    """Each in its own terms; without kube-proxy there are none."""
    document = told(cluster(proxy=proxy), running("a"))
    keys = {key for unit in document["units"].values() if unit for key in unit}
    assert document["mode"] == proxy
    assert {"iptables": "iptables", "nftables": "nft", "ipvs": "ipvs"}.get(proxy, "-") in {
        *keys,
        "-",
    }
    assert bool(keys) == (proxy != "none")
