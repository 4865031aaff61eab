"""The way that a packet must take, for every CNI, backend and pair of ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import TypeAlias

import pytest

from testbed.errors import UsageError
from testbed.topology.model import Backend, Cluster, Container, Node, Pod, Router
from testbed.verify.observed import Observed
from testbed.verify.oracle import Encapsulation, Ipip, Vxlan, Wireguard
from testbed.verify.trace.model import IN, OUT, Endpoint, ExpectedHop, Facts
from testbed.verify.trace.path import endpoint, expect
from tests.unit.verify.trace import ways

Legs: TypeAlias = tuple[tuple[ExpectedHop, ...], tuple[ExpectedHop, ...]]

NETEXEC = Container("netexec", "netexec", ("/usr/local/bin/netexec",))
ON = {"a": "node1", "b": "node1", "c": "node2", "d": "node3"}
"""a and b are neighbours, c is in their rack, d behind the router."""
ADDRESSES = {
    "node1": IPv4Address("172.18.0.2"),
    "node2": IPv4Address("172.18.0.3"),
    "node3": IPv4Address("172.19.0.4"),
    "tor": IPv4Address("172.18.255.254"),
    "spare": IPv4Address("172.18.255.253"),
}
RACKS = ("rack1", "rack2")
TOR = Router("tor", 0, RACKS, as_number=64513)


def pod(name: str, node: str, *, host: bool = False) -> Pod:
    """A netexec pod."""
    return Pod("default", name, node, (NETEXEC,), hostname=name, host_network=host)


def cluster(
    cni: str,
    backend: str,
    options: Mapping[str, int | bool | str] | None = None,
    *,
    routers: tuple[Router, ...] = (TOR,),
) -> Cluster:
    """Three nodes; node3 is in another rack."""
    return Cluster(
        name="t",
        cni=cni,
        backend=Backend(backend, options or {}),
        cluster_cidr=IPv4Network("10.244.0.0/16"),
        node_cidr_mask=24,
        service_cidr=IPv4Network("10.96.0.0/16"),
        nodes=tuple(
            Node(f"node{index + 1}", index, (IPv4Network(f"10.244.{index}.0/24"),), network=rack)
            for index, rack in enumerate(("rack1", "rack1", "rack2"))
        ),
        pods=(*(pod(name, node) for name, node in ON.items()), pod("host", "node2", host=True)),
        routers=routers,
    )


OBSERVED = Observed(
    ADDRESSES,
    {
        f"default/{name}": {"ip": f"10.244.{node[-1]}.9", "host_interface": f"veth{name}"}
        for name, node in ON.items()
    },
)


def hops(
    found: Cluster, source: str, target: str, facts: Mapping[str, Facts] | None = None
) -> Legs:
    """The hops of the request and of the reply."""
    ends = [endpoint(found, OBSERVED, text) for text in (source, target)]
    return expect(found, OBSERVED, ends[0], ends[1], facts or {})


def short(legs: Legs) -> tuple[str, str]:
    """Legs as the tables have them."""
    there, back = (
        " ".join(
            f"{hop.place.removeprefix('default/')}:{hop.interface}"
            f"{'>' if hop.direction == OUT else '<'}{'*' if hop.encapsulation else ''}"
            for hop in leg
        )
        for leg in legs
    )
    return there, back


CASES = {
    "flannel vxlan": (
        cluster("flannel", "vxlan"),
        "flannel.1",
        Vxlan(1, 8472),
        ways.BRIDGED + ways.BRIDGE_TUNNEL + ways.BRIDGE_TUNNEL_FAR,
    ),
    "flannel vxlan, VNI": (
        cluster("flannel", "vxlan", {"vni": 7, "port": 4789}),
        "flannel.7",
        Vxlan(7, 4789),
        ways.BRIDGED + ways.BRIDGE_TUNNEL + ways.BRIDGE_TUNNEL_FAR,
    ),
    "flannel DirectRouting": (
        cluster("flannel", "vxlan", {"direct_routing": True}),
        "flannel.1",
        Vxlan(1, 8472),
        ways.BRIDGED + ways.BRIDGE_PLAIN + ways.BRIDGE_TUNNEL_FAR,
    ),
    "flannel host-gw": (cluster("flannel", "host-gw"), "", None, ways.BRIDGED + ways.BRIDGE_PLAIN),
    "flannel ipip": (
        cluster("flannel", "ipip"),
        "flannel.ipip",
        Ipip(),
        ways.BRIDGED + ways.BRIDGE_TUNNEL + ways.BRIDGE_TUNNEL_FAR,
    ),
    "flannel ipip DirectRouting": (
        cluster("flannel", "ipip", {"direct_routing": True}),
        "flannel.ipip",
        Ipip(),
        ways.BRIDGED + ways.BRIDGE_PLAIN + ways.BRIDGE_TUNNEL_FAR,
    ),
    "flannel wireguard": (
        cluster("flannel", "wireguard"),
        "flannel-wg",
        Wireguard(51820),
        ways.BRIDGED + ways.BRIDGE_TUNNEL + ways.BRIDGE_TUNNEL_FAR,
    ),
    "calico ipip": (
        cluster("calico", "ipip"),
        "tunl0",
        Ipip(),
        ways.MASKED + ways.ROUTED_TUNNEL + ways.ROUTED_TUNNEL_FAR + ways.LEARNED,
    ),
    "calico ipip CrossSubnet": (
        cluster("calico", "ipip", {"mode": "CrossSubnet"}),
        "tunl0",
        Ipip(),
        ways.MASKED + ways.ROUTED_PLAIN + ways.ROUTED_TUNNEL_FAR + ways.LEARNED,
    ),
    "calico vxlan": (
        cluster("calico", "vxlan"),
        "vxlan.calico",
        Vxlan(4096, 4789),
        ways.MASKED + ways.ROUTED_TUNNEL + ways.ROUTED_TUNNEL_FAR + ways.UNLEARNED,
    ),
    "calico vxlan CrossSubnet": (
        cluster("calico", "vxlan", {"mode": "CrossSubnet"}),
        "vxlan.calico",
        Vxlan(4096, 4789),
        ways.MASKED + ways.ROUTED_PLAIN + ways.ROUTED_TUNNEL_FAR + ways.UNLEARNED,
    ),
    "calico none": (
        cluster("calico", "none"),
        "",
        None,
        ways.MASKED + ways.ROUTED_PLAIN + ways.ROUTED_PLAIN_FAR + ways.LEARNED,
    ),
    "kindnet": (
        cluster("kindnet", "ptp"),
        "",
        None,
        ways.MASKED + ways.ROUTED_PLAIN + ways.UNLEARNED,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_hops(name: str) -> None:
    """Every row of the tables that the CNI and its backend have."""
    found, tunnel, how, text = CASES[name]
    rows = ways.table(text, tunnel)
    assert {ends: short(hops(found, *ends)) for ends in rows} == rows
    used: set[Encapsulation] = {
        hop.encapsulation for ends in rows for leg in hops(found, *ends) for hop in leg
    }
    assert used <= {None, how}


def test_without_nat_the_reply_of_a_node_is_encapsulated() -> None:
    """Natoutgoing off: the node answers the pod's own address, and sends as to any pod."""
    found = cluster("calico", "ipip", {"nat_outgoing": False})
    assert short(hops(found, "a", "node2")) == (
        "a:eth0> node1:vetha< node1:eth0> node2:eth0<",
        "node2:tunl0> node2:eth0>* node1:eth0<* node1:tunl0< node1:vetha> a:eth0<",
    )
    assert short(hops(found, "a", "tor"))[1] == "tor:eth0> node1:eth0< node1:vetha> a:eth0<"
    silent = replace(found, routers=(replace(TOR, as_number=None),))
    assert short(hops(silent, "a", "tor"))[1] == ""


def test_what_is_done_at_every_hop() -> None:
    """From pod to pod through a bridge, a tunnel and a router; and the short ways."""
    found = cluster("flannel", "vxlan")
    assert [(hop.interface, hop.what) for hop in hops(found, "a", "d")[0]] == [
        ("eth0", "sent"),
        ("vetha", "veth crossing"),
        ("cni0", "bridged"),
        ("flannel.1", "routed"),
        ("eth0", "encapsulated"),
        ("eth0", "underlay crossing"),
        ("eth1", "routed"),
        ("eth0", "underlay crossing"),
        ("flannel.1", "decapsulated"),
        ("cni0", "routed"),
        ("vethd", "bridged"),
        ("eth0", "veth crossing, delivered"),
    ]
    bridged = ["sent", "veth crossing", "bridged", "veth crossing, delivered"]
    assert [hop.what for hop in hops(found, "a", "b")[0]] == bridged
    routed = ["sent", "veth crossing", "routed", "veth crossing, delivered"]
    assert [hop.what for hop in hops(cluster("calico", "ipip"), "a", "b")[0]] == routed
    assert [hop.what for hop in hops(found, "node1", "c")[0]][:2] == ["sent", "encapsulated"]
    assert [hop.what for hop in hops(found, "a", "a")[0]] == ["sent", "delivered"]
    assert [hop.what for hop in hops(found, "node2", "a")[1]][-1] == "decapsulated, delivered"


def test_every_hop_has_its_node() -> None:
    """Pods are in namespaces of their own, on a node."""
    assert hops(cluster("kindnet", "ptp"), "a", "b")[0] == (
        ExpectedHop("default/a", "node1", "eth0", OUT, None, "sent"),
        ExpectedHop("node1", "node1", "vetha", IN, None, "veth crossing"),
        ExpectedHop("node1", "node1", "vethb", OUT, None, "routed"),
        ExpectedHop("default/b", "node1", "eth0", IN, None, "veth crossing, delivered"),
    )


def addresses(**interfaces: str) -> dict[str, list[dict[str, object]]]:
    """What ``ip -j addr`` says of a router, as its facts have it."""
    return {
        "addresses": [
            {
                "ifname": name,
                "addr_info": [
                    {"family": "inet", "local": local.split("/")[0], "prefixlen": int(bits)},
                    {"family": "inet6", "local": "fe80::1", "prefixlen": 64},
                ],
            }
            for name, local in interfaces.items()
            for bits in [local.split("/")[1]]
        ]
    }


SWAPPED = {
    "tor": Facts(
        {"": addresses(lo="127.0.0.1/8", eth1="172.18.255.254/16", eth0="172.19.255.254/16")}
    )
}
"""Which network is eth0 is the engine's choice."""


def test_a_router_s_interfaces_are_told_by_their_addresses() -> None:
    """Both ways."""
    assert short(hops(cluster("kindnet", "ptp"), "node1", "node3", SWAPPED)) == (
        "node1:eth0> tor:eth1< tor:eth0> node3:eth0<",
        "node3:eth0> tor:eth0< tor:eth1> node1:eth0<",
    )


def test_the_far_address_of_the_next_hop() -> None:
    """A router is left and entered on the sender's side, whichever of its addresses is meant."""
    assert short(hops(cluster("flannel", "vxlan"), "node3", "tor", SWAPPED)) == (
        "node3:eth0> tor:eth0<",
        "tor:eth0> node3:eth0<",
    )


def test_two_routers() -> None:
    """The first one forwards; to the other's far address by it, and straight back."""
    found = cluster("flannel", "vxlan", routers=(TOR, Router("spare", 1, RACKS)))
    facts = {
        "tor": Facts({"": addresses(eth0="172.18.255.254/16", eth1="172.19.255.254/16")}),
        "spare": Facts({"": addresses(eth0="172.18.255.253/16", eth1="172.19.255.253/16")}),
    }
    assert short(hops(found, "node3", "spare", facts)) == (
        "node3:eth0> tor:eth1< tor:eth0> spare:eth0<",
        "spare:eth1> node3:eth0<",
    )
    assert short(hops(found, "spare", "node3", facts)) == (
        "spare:eth1> node3:eth0<",
        "node3:eth0> spare:eth1<",
    )
    assert short(hops(found, "spare", "tor", facts)) == (
        "spare:eth0> tor:eth0<",
        "tor:eth0> spare:eth0<",
    )


def test_routers_of_other_networks() -> None:
    """A router has no route to a network that it does not join, nor such a network one to it."""
    found = cluster("flannel", "vxlan", routers=(TOR, Router("edge", 1, ("rack1", "rack9"))))
    assert hops(found, "edge", "node3") == ((), ())
    request, reply = short(hops(found, "node3", "edge"))
    assert request == "node3:eth0> tor:eth1< tor:eth0> edge:eth0<"
    assert reply == ""


def test_a_pod_without_an_interface() -> None:
    """A pod that is gone: Calico's name is known all the same."""
    gone = replace(OBSERVED, pods={"default/a": {"ip": "", "host_interface": ""}})
    for cni, veth in (("calico", "caliacd53aa4120"), ("flannel", "veth")):
        found = cluster(cni, "vxlan")
        end = endpoint(found, gone, "a")
        assert end == Endpoint("default/a", "node1", "", True)
        leg, _ = expect(found, gone, endpoint(found, gone, "node1"), end)
        assert leg[-2].interface == veth


@pytest.mark.parametrize(
    ("cni", "device"), [("flannel", "bwp8ef6a3502a33"), ("calico", "bwpa6d7a246d227")]
)
def test_what_a_limited_pod_sends_is_shaped_behind_its_veth(cni: str, device: str) -> None:
    """By the device that the bandwidth plugin makes, called after network and sandbox."""
    limit = {"kubernetes.io/egress-bandwidth": "5M", "kubernetes.io/ingress-bandwidth": "5M"}
    pods = [replace(pod(name, node), annotations=limit) for name, node in ON.items()]
    limited = replace(cluster(cni, "vxlan"), pods=tuple(pods))
    shaped = {key: {**each, "sandbox_id": "5f94"} for key, each in OBSERVED.pods.items()}
    observed = Observed(ADDRESSES, shaped)
    unlimited = cluster(cni, "vxlan")
    for target in ("b", "c", "node1", "node2"):
        source, to = (endpoint(limited, observed, text) for text in ("a", target))
        legs = expect(limited, observed, source, to)
        plain = expect(unlimited, observed, source, to)
        for leg, unshaped, end in zip(legs, plain, (source, to), strict=True):
            hops = [hop for hop in leg if hop.what.startswith("shaped")]
            assert [hop for hop in leg if hop not in hops] == list(unshaped) or leg[-1] in hops
            assert [leg.index(hop) for hop in hops] == ([2] if end.pod else [])
            assert all((hop.place, hop.interface) == (end.node, device) for hop in hops)


def test_endpoints() -> None:
    """Nodes and routers win over pods; a hostNetwork pod is its node; a stopped one has nothing."""
    found = cluster("flannel", "vxlan")
    assert endpoint(found, OBSERVED, "node1") == Endpoint("node1", "node1", "172.18.0.2", False)
    assert endpoint(found, OBSERVED, "tor") == Endpoint("tor", "tor", "172.18.255.254", False)
    assert endpoint(found, OBSERVED, "host") == Endpoint("node2", "node2", "172.18.0.3", False)
    c = Endpoint("default/c", "node2", "10.244.2.9", True)
    assert endpoint(found, OBSERVED, "c") == endpoint(found, OBSERVED, "default/c") == c
    stopped = replace(OBSERVED, node_ips={})
    assert endpoint(found, stopped, "node3") == Endpoint("node3", "node3", "", False)


def test_an_endpoint_that_is_not_there() -> None:
    """The message lists what is."""
    with pytest.raises(UsageError) as caught:
        endpoint(cluster("flannel", "vxlan"), OBSERVED, "kube-system/a")
    assert str(caught.value) == (
        "testbed 't' has no node, router, client or pod 'kube-system/a'.\n"
        "nodes: node1, node2, node3\n"
        "routers: tor\n"
        "pods: a, b, c, d, host"
    )
