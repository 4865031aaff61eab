"""A Service as the target: what it leads to, and the way that packets must take to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from testbed.errors import UsageError
from testbed.packets.packet import Packet
from testbed.topology import service as topology
from testbed.topology.model import Cluster
from testbed.topology.portals import Portal, Target, portals
from testbed.verify.trace.correlation import Sight
from testbed.verify.trace.model import Event, ExpectedHop, Service
from testbed.verify.trace.path import endpoint
from testbed.verify.trace.service import named, resolve
from testbed.verify.trace.service_path import expect
from tests.unit.verify.trace.test_path import OBSERVED, cluster

IP = "10.96.0.10"
ADDRESSES = {"a": "10.244.1.9", "b": "10.244.1.10", "c": "10.244.2.9", "host": "172.18.0.3"}
OBSERVED = replace(
    OBSERVED,
    pods={
        key: {**entry, "ip": ADDRESSES.get(key.partition("/")[2], entry["ip"])}
        for key, entry in OBSERVED.pods.items()
    },
)
WEB = topology.Service(
    "default",
    "web",
    (
        topology.ServicePort(80, "TCP", "http", 8080),
        topology.ServicePort(90, "UDP", "udp", 8081),
    ),
    cluster_ip=IPv4Address(IP),
)
ON = {"a": "node1", "b": "node1", "c": "node2", "host": "node2"}


def slices(names: Sequence[str], ready: bool = True) -> list[topology.EndpointSlice]:
    """With these pods behind both ports."""
    ports = (topology.EndpointPort(8080, "TCP", "http"), topology.EndpointPort(8081, "UDP", "udp"))
    found = tuple(
        topology.Endpoint(IPv4Address(ADDRESSES[name]), ON[name], ready) for name in names
    )
    return [topology.EndpointSlice("default", "web-1", "web", ports, found)]


def with_services(cni: str = "flannel", mode: str = "iptables", **how: Any) -> Cluster:
    """Three nodes, and the Service."""
    backend = {"flannel": "vxlan", "calico": "ipip"}[cni]
    service = replace(WEB, **how)
    return replace(cluster(cni, backend), services=(service,), proxy=mode)


def resolved(
    found: Cluster, source: str, names: Sequence[str], *, ready: bool = True, **asked: Any
) -> Service:
    """As it is from a source."""
    known = portals(found.services, slices(names, ready))
    start = endpoint(found, OBSERVED, source)
    return resolve(found, OBSERVED, known, "default/web", start, **asked)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("svc/web", "default/web"),
        ("service/web", "default/web"),
        ("services/shop/web", "shop/web"),
        ("a", ""),
        ("default/a", ""),
        ("svc", ""),
        ("svc/a/b/c", ""),
    ],
)
def test_services_are_named_as_kubectl_names_them(text: str, key: str) -> None:
    """``svc/``, ``service/`` or ``services/``, with or without a namespace."""
    assert named(with_services(), text) == key


def test_a_pod_of_a_namespace_svc_is_still_a_pod() -> None:
    """Its full name wins."""
    found = with_services()
    assert named(replace(found, pods=(replace(found.pods[0], namespace="svc"),)), "svc/a") == ""


@pytest.mark.parametrize(
    ("asked", "protocol", "port", "known"),
    [
        ({}, "tcp", 80, True),
        ({"port": 90}, "udp", 90, True),
        ({"protocol": "udp"}, "udp", 90, True),
        ({"port": 81}, "tcp", 81, False),
        ({"protocol": "udp", "port": 80}, "udp", 80, False),
        ({"protocol": "icmp"}, "icmp", 0, False),
    ],
)
def test_protocol_and_port_follow_from_each_other(
    asked: dict[str, Any], protocol: str, port: int, known: bool
) -> None:
    """A port that it does not have may be traced, too."""
    found = resolved(with_services(), "a", ["c"], **asked)
    assert (found.protocol, found.port, found.known) == (protocol, port, known)
    assert found.address == (f"{IP}:{port}" if port else IP)
    assert found.ports == ("80/tcp", "90/udp")


def test_endpoints_are_pods_nodes_or_foreign() -> None:
    """By the address that somebody has now."""
    found = resolved(with_services(), "a", ["c", "host"])
    assert {each.end.place: (str(each), each.end.node) for each in found.endpoints} == {
        "default/c": ("10.244.2.9:8080", "node2"),
        "node2": ("172.18.0.3:8080", "node2"),
    }
    far = Target(IPv4Address("192.0.2.9"), 80)
    portal = Portal("default/web", "http", "tcp", IPv4Address(IP), 80, (far,))
    start = endpoint(with_services(), OBSERVED, "a")
    foreign = resolve(
        with_services(), OBSERVED, {"default/web": [portal]}, "default/web", start
    ).endpoints[0]
    assert (foreign.end.place, foreign.end.node, foreign.usable) == ("192.0.2.9", "192.0.2.9", True)


@pytest.mark.parametrize(
    ("how", "source", "ready", "usable"),
    [
        ({}, "a", True, {"default/b", "default/c"}),
        ({"internal_traffic_policy": "Local"}, "a", True, {"default/b"}),
        ({"internal_traffic_policy": "Local"}, "node2", True, {"default/c"}),
        ({"internal_traffic_policy": "Local"}, "node3", True, set()),
        ({}, "a", False, set()),
    ],
)
def test_which_endpoints_are_usable(
    how: dict[str, str], source: str, ready: bool, usable: set[str]
) -> None:
    """Those that are ready; of policy Local, those of the source's node."""
    found = resolved(with_services(**how), source, ["b", "c"], ready=ready)
    assert {each.end.place for each in found.usable} == usable
    assert all(each.ready is ready for each in found.endpoints)


@pytest.mark.parametrize(
    ("how", "source", "said"),
    [
        ({"cluster_ip": None}, "a", "headless"),
        ({"name": "shop"}, "a", "services: shop"),
        ({}, "tor", "tor runs no kube-proxy"),
    ],
)
def test_what_has_no_cluster_ip_is_refused(how: dict[str, Any], source: str, said: str) -> None:
    """With what to do instead."""
    with pytest.raises(UsageError, match=said):
        resolved(with_services(**how), source, ["c"])


def spelled(legs: Sequence[Sequence[ExpectedHop]]) -> list[str]:
    """``a:eth0>`` for each hop."""
    arrow = {"out": ">", "in": "<"}
    return [
        " ".join(
            f"{hop.place.removeprefix('default/')}:{hop.interface}{arrow[hop.direction]}"
            for hop in leg
        )
        for leg in legs
    ]


def way(
    source: str, name: str, *, cni: str = "flannel", mode: str = "iptables"
) -> tuple[Sequence[ExpectedHop], Sequence[ExpectedHop]]:
    """To one of the Service's endpoints, a and c."""
    found = with_services(cni, mode)
    asked = resolved(found, source, ["a", "b", "c", "host"])
    asked = replace(asked, translated=f"{ADDRESSES[name]}:8080")
    end, legs = expect(found, OBSERVED, endpoint(found, OBSERVED, source), asked, {})
    assert asked.chosen is not None
    assert end == asked.chosen.end
    return legs


@pytest.mark.parametrize(
    ("source", "name", "cni", "mode", "there", "back"),
    [
        pytest.param(
            *("a", "c", "flannel", "iptables"),
            "a:eth0> node1:vetha< node1:cni0< node1:flannel.1> node1:eth0> node2:eth0<"
            " node2:flannel.1< node2:cni0> node2:vethc> c:eth0<",
            "c:eth0> node2:vethc< node2:cni0< node2:flannel.1> node2:eth0> node1:eth0<"
            " node1:flannel.1< node1:cni0> node1:vetha> a:eth0<",
            id="another node",
        ),
        pytest.param(
            *("a", "b", "flannel", "iptables"),
            "a:eth0> node1:vetha< node1:vethb> b:eth0<",
            "b:eth0> node1:vethb< node1:vetha> a:eth0<",
            id="the same bridge",
        ),
        pytest.param(
            *("a", "b", "flannel", "ipvs"),
            "a:eth0> node1:vetha< node1:cni0< node1:cni0> node1:vethb> b:eth0<",
            "b:eth0> node1:vethb< node1:vetha> a:eth0<",
            id="the same bridge, but the node itself translates",
        ),
        pytest.param(
            *("a", "a", "calico", "iptables"),
            "a:eth0> node1:vetha< node1:vetha> a:eth0<",
            "a:eth0> node1:vetha< node1:vetha> a:eth0<",
            id="itself",
        ),
        pytest.param(
            *("node1", "host", "flannel", "nftables"),
            "node1:eth0> node2:eth0<",
            "node2:eth0> node1:eth0<",
            id="a node's own network",
        ),
    ],
)
def test_the_way_to_an_endpoint(
    source: str, name: str, cni: str, mode: str, there: str, back: str
) -> None:
    """As to the pod itself; through its node where IPVS is, and back into itself."""
    assert spelled(way(source, name, cni=cni, mode=mode)) == [there, back]


def test_a_bridge_may_ask_its_neighbour_table_by_its_own_device() -> None:
    """Whether it does depends on the entry's age; both are right, and only what was seen tells."""
    found = with_services()
    start = endpoint(found, OBSERVED, "a")
    service = replace(resolved(found, "a", ["b"]), translated=f"{ADDRESSES['b']}:8080")
    sight = Sight(Event("node1", "node1", "cni0", "out", Packet()))
    _, legs = expect(found, OBSERVED, start, service, {}, ([sight], []))
    assert spelled(legs) == [
        "a:eth0> node1:vetha< node1:cni0> node1:vethb> b:eth0<",
        "b:eth0> node1:vethb< node1:vetha> a:eth0<",
    ]


def addresses(hops: Sequence[ExpectedHop]) -> list[tuple[str, str]]:
    """What the packet's addresses must be, hop for hop."""
    return [(hop.source, hop.destination) for hop in hops]


def test_a_pods_packets_are_translated_on_its_node_and_keep_their_source() -> None:
    """From the first interface behind the node's rules on, and back up to them."""
    there, back = way("a", "c")
    a, c = ADDRESSES["a"], ADDRESSES["c"]
    assert addresses(there) == [(a, "")] * 3 + [(a, c)] * 7
    assert addresses(back) == [(c, a)] * 7 + [(IP, a)] * 3


def test_a_hairpin_and_a_node_are_masqueraded() -> None:
    """To what is the kernel's choice; a node's packets are never seen untranslated."""
    a, c = ADDRESSES["a"], ADDRESSES["c"]
    there, back = way("a", "a")
    assert addresses(there) == [("", ""), ("", ""), ("", a), ("", a)]
    assert addresses(back) == [(a, ""), (a, ""), (IP, ""), (IP, "")]
    there, back = way("node1", "c")
    assert set(addresses(there)) == {("", c)}
    assert set(addresses(back)) == {(c, "")}


def test_a_nodes_reply_to_itself_is_seen_translated_back() -> None:
    """Behind OUTPUT and POSTROUTING, on the loopback interface."""
    there, back = way("node2", "host")
    assert spelled((there, back)) == ["node2:lo> node2:lo<"] * 2
    assert addresses(there) == [("", ADDRESSES["host"]), ("", "")]
    assert addresses(back) == [(IP, ""), (IP, "")]


@pytest.mark.parametrize(
    ("source", "names", "asked", "mode", "place", "there"),
    [
        ("a", [], {}, "iptables", "svc/default/web", "a:eth0> node1:vetha< node1:cni0<"),
        (
            "a",
            ["c"],
            {"port": 81},
            "nftables",
            "svc/default/web",
            "a:eth0> node1:vetha< node1:cni0<",
        ),
        (
            "a",
            ["c"],
            {"protocol": "icmp"},
            "iptables",
            "svc/default/web",
            "a:eth0> node1:vetha< node1:cni0<",
        ),
        (
            "a",
            ["c"],
            {"protocol": "icmp"},
            "ipvs",
            "svc/default/web",
            "a:eth0> node1:vetha< node1:cni0<",
        ),
        ("a", ["b"], {}, "none", "svc/default/web", "a:eth0> node1:vetha< node1:cni0<"),
        ("node1", [], {}, "iptables", "svc/default/web", ""),
        ("a", ["b"], {}, "iptables", "default/b", "a:eth0> node1:vetha< node1:vethb> b:eth0<"),
    ],
)
def test_without_a_translation(
    source: str, names: list[str], asked: dict[str, Any], mode: str, place: str, there: str
) -> None:
    """The node is the end where nobody is to answer; else an endpoint had to be chosen."""
    found = with_services(mode=mode)
    service = resolved(found, source, names, **asked)
    end, legs = expect(found, OBSERVED, endpoint(found, OBSERVED, source), service, {})
    assert end.place == place
    assert spelled(legs)[0] == there
    assert not service.served
    assert bool(legs[1]) is (place in ("node1", "default/b"))
    assert ("delivered" in legs[0][-1].what) is bool(legs[1]) if legs[0] else True


def test_no_way_is_known_to_a_foreign_endpoint() -> None:
    """An EndpointSlice written by hand can name any address."""
    far = Target(IPv4Address("192.0.2.9"), 80)
    portal = Portal("default/web", "http", "tcp", IPv4Address(IP), 80, (far,))
    found = with_services()
    start = endpoint(found, OBSERVED, "a")
    service = resolve(found, OBSERVED, {"default/web": [portal]}, "default/web", start)
    _, legs = expect(found, OBSERVED, start, replace(service, translated="192.0.2.9:80"), {})
    assert legs == ((), ())
