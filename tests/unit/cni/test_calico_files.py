"""Calico's planner: files, ipsets and pods' chains."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from testbed.cni import calico
from testbed.dataplane.spec import NodeSpec
from testbed.topology.model import Pod
from tests.unit.cni.calico_clusters import MODES, Options, cluster, file, lines, on


@pytest.mark.parametrize(
    ("type_", "options", "mtu"),
    [
        ("ipip", {}, 1480),
        ("ipip", {"mode": "CrossSubnet"}, 1480),
        ("vxlan", {}, 1450),
        ("none", {}, 1500),
        ("ipip", {"mtu": 1400}, 1400),
    ],
)
def test_mtu_of_pods_and_tunnel(type_: str, options: Options, mtu: int) -> None:
    """The uplink's less the encapsulation's, or the option's as it is."""
    value = on(cluster(type_, options))
    assert file(value, "/var/lib/calico/mtu") == str(mtu)
    conflist = json.loads(file(value, "/etc/cni/net.d/10-calico.conflist"))
    assert conflist["plugins"][0]["mtu"] == mtu
    if type_ != "none":
        assert f" mtu {mtu} " in lines(value)[0]


def test_conflist_is_the_manifest_s() -> None:
    """Name, version and the chain; the kubeconfig that it names is there."""
    value = on(cluster(), 1)
    conflist = json.loads(file(value, "/etc/cni/net.d/10-calico.conflist"))
    assert (conflist["name"], conflist["cniVersion"]) == ("k8s-pod-network", "0.3.1")
    first, portmap, bandwidth = conflist["plugins"]
    assert (first["nodename"], first["ipam"]) == ("node2", {"type": "calico-ipam"})
    assert file(value, first["kubernetes"]["kubeconfig"])
    assert (portmap["snat"], bandwidth["type"]) == (True, "bandwidth")
    assert file(value, "/var/lib/calico/nodename") == "node2"


def test_ipam_knows_who_borrowed_what() -> None:
    """From both sides; the tunnel's address is taken already."""
    base = cluster()
    borrowed = (IPv4Address("10.244.1.63"), IPv4Address("10.244.1.62"))
    borrower = replace(base.nodes[0], borrowed=borrowed)
    both = replace(base, nodes=(borrower, *base.nodes[1:]))
    assert json.loads(file(on(both, 0), "/etc/calico/ipam.json")) == {
        "node": "node1",
        "strict_affinity": False,
        "blocks": ["10.244.0.0/26"],
        "lent": [],
        "borrowed": ["10.244.1.63", "10.244.1.62"],
        "reserved": {"ipip-tunnel-addr-node1": "10.244.0.0"},
    }
    lent = json.loads(file(on(both, 1), "/etc/calico/ipam.json"))
    assert lent["lent"] == ["10.244.1.62", "10.244.1.63"]
    vxlan = json.loads(
        file(on(cluster("vxlan", {"strict_affinity": True})), "/etc/calico/ipam.json")
    )
    assert vxlan["reserved"] == {"vxlan-tunnel-addr-node1": "10.244.0.0"}
    assert vxlan["strict_affinity"] is True


@pytest.mark.parametrize(
    ("type_", "options", "modes"),
    [
        ("ipip", {}, ("Always", "Never")),
        ("ipip", {"mode": "CrossSubnet"}, ("CrossSubnet", "Never")),
        ("vxlan", {}, ("Never", "Always")),
        ("none", {}, ("Never", "Never")),
    ],
)
def test_pool_resource(type_: str, options: Options, modes: tuple[str, str]) -> None:
    """As `calicoctl get ippool` would show it."""
    pool = json.loads(file(on(cluster(type_, options)), "/etc/calico/default-ipv4-ippool.json"))
    assert (pool["spec"]["ipipMode"], pool["spec"]["vxlanMode"]) == modes
    assert (pool["spec"]["cidr"], pool["spec"]["blockSize"]) == ("10.244.0.0/16", 26)


def sets(value: NodeSpec) -> dict[str, list[str]]:
    """ipset → its members."""
    (text,) = [each.content for each in value.rulesets if each.tool == "ipset"]
    found: dict[str, list[str]] = {name: [] for name in re.findall(r"create (\S+)", text)}
    for name, member in re.findall(r"add (\S+) (\S+)", text):
        found[name].append(member)
    return found


def test_sets_follow_encapsulation_and_release() -> None:
    """The pools' set was renamed with 3.33; all nodes are hosts, this one too."""
    pool, nodes = ["10.244.0.0/16"], ["172.18.0.2", "172.18.0.3", "172.19.0.4"]
    masq = "cali40masq-ipam-pools"
    assert sets(on(cluster())) == {
        "cali40all-hosts-net": nodes,
        "cali40all-ipam-pools": pool,
        masq: pool,
    }
    assert sets(on(cluster("vxlan"))) == {
        "cali40all-vxlan-net": nodes,
        "cali40all-ipam-pools": pool,
        masq: pool,
    }
    bare = sets(on(cluster("none", {"nat_outgoing": False})))
    assert bare == {"cali40all-ipam-pools": pool, masq: []}


def test_every_set_that_a_rule_names_exists() -> None:
    """iptables-restore refuses a rule whose set is missing."""
    for type_, options in MODES:
        value = on(cluster(type_, options))
        (rules,) = [each.content for each in value.rulesets if each.tool == "iptables-restore"]
        assert set(re.findall(r"--match-set (\S+)", rules)) == set(sets(value))
        assert [each.tool for each in value.rulesets] == ["ipset", "iptables-restore"]


def test_pods_have_chains_unless_they_are_the_node() -> None:
    """Named by the node's end of the veth, which follows from namespace and name."""
    pods = tuple(
        Pod("shop", name, "node1", (), host_network=host)
        for name, host in (("web", False), ("agent", True))
    )
    elsewhere = Pod("shop", "db", "node2", ())
    (rules,) = [
        each.content
        for each in on(cluster(pods=(*pods, elsewhere))).rulesets
        if each.tool == "iptables-restore"
    ]
    digest = hashlib.sha1(b"shop.web", usedforsecurity=False).hexdigest()
    web = f"cali{digest[:11]}"
    assert set(re.findall(r"^:cali-[ft]w-(\S+)", rules, re.MULTILINE)) == {web}
    assert f"-A cali-from-wl-dispatch -i {web} " in rules
    assert calico.interface("shop", "web") == web
