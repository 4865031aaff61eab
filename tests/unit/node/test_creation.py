"""Node containers: what only a new one can change, and attaching routers to several networks."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from testbed.dataplane.features import Features
from testbed.dataplane.spec import NodeSpec
from testbed.node import inventory
from testbed.node.creation import Setting, create

PRIVILEGED = Features.full()
NODES = replace(PRIVILEGED, privileged=False)
RACKS = (("net1", IPv4Address("172.18.255.254")), ("net2", IPv4Address("172.19.255.254")))
NODE = Setting("testbed-node:1", NODES, (("net1", IPv4Address("172.18.0.2")),), "cni1")
ROUTER = Setting("testbed-node:1", NODES, RACKS, "", "router")


class FakeApi:
    """An engine that writes down what it is asked to create and connect."""

    def __init__(self, api_version: str) -> None:
        self.api_version = api_version
        self.created: dict[str, Any] = {}
        self.connected: list[tuple[str, str]] = []

    def create_endpoint_config(self, *, ipv4_address: str, aliases: list[str]) -> dict[str, str]:
        """Only the address matters here."""
        del aliases
        return {"address": ipv4_address}

    def create_host_config(self, network_mode: str) -> dict[str, Any]:
        """Only the network matters here."""
        return {"NetworkMode": network_mode}

    def create_container(self, image: str, command: list[str], **arguments: Any) -> None:
        """Remember it."""
        self.created = {"image": image, "command": command, **arguments}

    def connect_container_to_network(
        self, container: str, network: str, ipv4_address: str, *, aliases: list[str]
    ) -> None:
        """Remember it."""
        del container, aliases
        self.connected.append((network, ipv4_address))


def created(setting: Setting, api_version: str) -> FakeApi:
    """What an engine is asked to do for a container of ``setting``."""
    api = FakeApi(api_version)
    client = cast(Any, SimpleNamespace(api=api))
    create(client, "t-tor", NodeSpec(testbed="t", node="tor"), setting, "{}")
    return api


def listing(setting: Setting, *networks: str) -> dict[str, Any]:
    """The engine's listing of a container that was created with ``setting``."""
    endpoints = {
        name: {"NetworkID": name, "IPAddress": str(address)}
        for name, address in setting.uplinks
        if name in networks
    }
    labels = {"testbed.config": setting.digest, "testbed.role": setting.role}
    return {"Labels": labels, "NetworkSettings": {"Networks": endpoints}}


def test_a_setting_is_recognised_by_what_only_a_new_container_changes() -> None:
    """Image, privileges, addresses, networks, role, and what pods are attached by."""
    others = {
        NODE.digest,
        replace(NODE, image="testbed-node:2").digest,
        replace(NODE, able=PRIVILEGED).digest,
        replace(NODE, uplinks=(("net1", IPv4Address("172.18.0.3")),)).digest,
        replace(NODE, uplinks=(("net2", IPv4Address("172.18.0.2")),)).digest,
        replace(NODE, uplinks=(*NODE.uplinks, ("net2", IPv4Address("172.19.0.2")))).digest,
        replace(NODE, attachment="cni2").digest,
        replace(NODE, role="router").digest,
    }
    assert len(others) == 8


def test_a_container_is_kept_only_with_all_its_networks() -> None:
    """An interrupt may fall between creating a router and connecting it, on older engines."""
    assert ROUTER.made(listing(ROUTER, "net1", "net2"))
    assert not ROUTER.made(listing(ROUTER, "net1"))
    assert not ROUTER.made(listing(replace(ROUTER, attachment="x"), "net1", "net2"))


@pytest.mark.parametrize(
    ("api_version", "at_once", "connected"),
    [
        ("1.41", ["net1"], [("net2", "172.19.255.254")]),
        ("1.43", ["net1"], [("net2", "172.19.255.254")]),
        ("1.44", ["net1", "net2"], []),
    ],
)
def test_a_router_is_attached_before_it_starts(
    api_version: str, at_once: list[str], connected: list[tuple[str, str]]
) -> None:
    """All networks in one request where the engine can, else one after the other."""
    api = created(ROUTER, api_version)
    assert list(api.created["networking_config"]["EndpointsConfig"]) == at_once
    assert api.created["host_config"]["NetworkMode"] == "net1"
    assert api.connected == connected
    assert api.created["labels"]["testbed.role"] == "router"


def test_a_node_has_one_network() -> None:
    """So that its uplink is eth0."""
    api = created(NODE, "1.41")
    assert api.created["networking_config"] == {
        "EndpointsConfig": {"net1": {"address": "172.18.0.2"}}
    }
    assert api.connected == []


def test_addresses_are_known_by_network() -> None:
    """A router has several, a node one, a container that does not run none."""
    router = listing(ROUTER, "net1", "net2")
    assert inventory.addresses(router) == {"net1": "172.18.255.254", "net2": "172.19.255.254"}
    assert inventory.address(listing(NODE, "net1")) == "172.18.0.2"
    assert inventory.address({}) == ""
    assert inventory.role(router) == "router"
    assert inventory.role({"Labels": {}}) == "node"
