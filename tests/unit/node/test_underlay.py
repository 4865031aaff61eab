"""The nodes' networks: their names, subnets and options, and which of two of a name is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from types import SimpleNamespace
from typing import Any, cast

import pytest
from docker.errors import APIError

from testbed.dataplane.underlay import Segment
from testbed.errors import NodeError
from testbed.node import underlay
from testbed.topology.model import Network

RACK1, RACK2 = Network("rack1"), Network("rack2", IPv4Network("172.20.0.0/24"))


class FakeEngine:
    """The engine's networks, in memory."""

    api_version = "1.41"

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.refused: tuple[str, ...] = ()
        self.refusal = "Pool overlaps with other one on this address space"

    def networks(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, Any]]:
        """All networks, or those of one testbed."""
        wanted = filters["label"][0].partition("=")[2] if filters else ""
        return [each for each in self.made if wanted in ("", each["Labels"].get("testbed.name"))]

    def create_network(
        self, name: str, *, ipam: Mapping[str, Any], **arguments: Any
    ) -> dict[str, Any]:
        """Remember it, unless its subnet is one of those to be refused."""
        subnet = ipam["Config"][0]["Subnet"]
        if subnet in self.refused:
            raise APIError(self.refusal, explanation=self.refusal)
        network = {
            "Id": f"id-{len(self.made)}",
            "Name": name,
            "Created": f"2025-01-01T00:00:0{len(self.made)}Z",
            "IPAM": ipam,
            "Options": arguments["options"],
            "Labels": arguments["labels"],
        }
        self.made.append(network)
        return network

    def remove_network(self, identity: str) -> None:
        """Forget it."""
        self.made = [each for each in self.made if each["Id"] != identity]

    @property
    def client(self) -> Any:
        """What the shell is handed."""
        return cast(Any, SimpleNamespace(api=self))


@pytest.fixture
def engine() -> FakeEngine:
    """An engine without networks."""
    return FakeEngine()


def test_a_topology_without_networks_has_the_testbeds_name() -> None:
    """Otherwise every network is called by its own, also a single one."""
    assert underlay.network_names("t", [Network("default")]) == {"default": "testbed-t"}
    assert underlay.network_names("t", [RACK1]) == {"rack1": "testbed-t-rack1"}
    assert underlay.network_names("t", [Network("default"), RACK2]) == {
        "default": "testbed-t-default",
        "rack2": "testbed-t-rack2",
    }


def test_free_subnets_avoid_everything_that_overlaps() -> None:
    """A larger network in use hides every pool inside it."""
    free = underlay.free_subnets([IPv4Network("172.16.0.0/13"), IPv4Network("172.24.3.0/24")])
    assert next(free) == IPv4Network("172.25.0.0/16")


def test_networks_are_found_by_their_labels(engine: FakeEngine) -> None:
    """With the subnet that was asked, else the first pool that nobody holds or wants."""
    avoid = [IPv4Network("172.18.0.0/16"), IPv4Network("172.20.0.0/24")]
    for network in (RACK1, RACK2):
        underlay.create(engine.client, "t", network, f"testbed-t-{network.name}", avoid)
    assert underlay.find(engine.client, "t") == {
        "rack1": Segment(IPv4Network("172.19.0.0/16"), identity="id-0"),
        "rack2": Segment(IPv4Network("172.20.0.0/24"), identity="id-1"),
    }
    assert underlay.find(engine.client, "other") == {}


def test_a_network_without_the_label_is_the_default_one(engine: FakeEngine) -> None:
    """Those of older versions of testbed; their MTU is the engine's option."""
    underlay.create(engine.client, "t", Network("default"), "testbed-t", [])
    del engine.made[0]["Labels"]["testbed.network"]
    engine.made[0]["Options"] = {"com.docker.network.driver.mtu": "1400"}
    found = underlay.find(engine.client, "t")
    assert found == {"default": Segment(IPv4Network("172.18.0.0/16"), 1400, "id-0")}


def test_of_two_networks_of_a_name_the_older_is_kept(engine: FakeEngine) -> None:
    """The other is removed, but only by who may change the testbed."""
    for subnet in ("172.30.0.0/24", "172.29.0.0/24"):
        network = Network("rack1", IPv4Network(subnet))
        underlay.create(engine.client, "t", network, "testbed-t-rack1", [])
    engine.made.reverse()
    older = {"rack1": Segment(IPv4Network("172.30.0.0/24"), identity="id-0")}
    assert underlay.find(engine.client, "t") == older
    assert len(engine.made) == 2
    assert underlay.find(engine.client, "t", tidy=True) == older
    assert [each["Id"] for each in engine.made] == ["id-0"]


def test_a_pool_that_is_taken_meanwhile_is_passed_over(engine: FakeEngine) -> None:
    """By a network of the host's, which the engine does not list."""
    engine.refused = ("172.18.0.0/16",)
    made = underlay.create(engine.client, "t", RACK1, "testbed-t-rack1", [])
    assert made.subnet == IPv4Network("172.19.0.0/16")


def test_a_wanted_subnet_that_is_taken_is_an_error(engine: FakeEngine) -> None:
    """No other is taken in its place."""
    engine.refused = ("172.20.0.0/24",)
    with pytest.raises(NodeError) as caught:
        underlay.create(engine.client, "t", RACK2, "testbed-t-rack2", [])
    assert str(caught.value) == (
        "the node network 'testbed-t-rack2' could not be made: Pool overlaps with other one on "
        "this address space.\n`docker network ls` shows what holds the addresses; "
        "networks.rack2.ipam in the topology chooses others."
    )


def test_a_foreign_network_of_the_name_is_not_touched(engine: FakeEngine) -> None:
    """What to do about it is said."""
    engine.refused = ("172.18.0.0/16",)
    engine.refusal = "network with name testbed-t already exists"
    with pytest.raises(NodeError, match="exists and does not belong to testbed 't'"):
        underlay.create(engine.client, "t", Network("default"), "testbed-t", [])


@pytest.mark.parametrize(("api", "filters"), [("1.41", False), ("1.47", False), ("1.48", True)])
def test_engines_that_filter_between_bridges_are_told_not_to(api: str, filters: bool) -> None:
    """Docker 28 would drop what a router forwards to another network."""
    mode = underlay.options(api).get("com.docker.network.bridge.gateway_mode_ipv4")
    assert mode == ("nat-unprotected" if filters else None)
    assert underlay.options(api).items() >= underlay.OPTIONS.items()
