"""Kernel objects in native spelling."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from testbed.dataplane import objects
from testbed.dataplane.native import native_files
from testbed.dataplane.spec import KernelObject, Ruleset

LINK = objects.vxlan(
    "flannel.1",
    vni=1,
    local=IPv4Address("172.18.0.2"),
    device="eth0",
    port=8472,
    mac="02:00:00:00:00:01",
    mtu=1450,
)
ROUTE = objects.route(
    IPv4Network("10.244.1.0/24"), via=IPv4Address("10.244.1.0"), device="flannel.1", onlink=True
)
FDB = objects.fdb("flannel.1", "02:00:00:00:00:02", IPv4Address("172.18.0.3"))


def test_vxlan_is_created_as_flannel_creates_it() -> None:
    """Local address, uplink, port and no learning, then up."""
    assert LINK.create == (
        "link add flannel.1 address 02:00:00:00:00:01 mtu 1450 type vxlan id 1 local 172.18.0.2 "
        "dev eth0 dstport 8472 nolearning",
        "link set flannel.1 up",
    )


def test_mtu_is_changed_in_place_but_the_vni_is_not() -> None:
    """What the kernel can change is wanted, what it cannot is fixed."""
    assert LINK.want["mtu"] == 1450
    assert LINK.fixed["linkinfo"]["info_data"]["id"] == 1


def test_route_names_no_protocol() -> None:
    """``ip route`` then prints none, as for flannel's."""
    assert ROUTE.create == ("route replace 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink",)


def test_plain_route_is_not_onlink() -> None:
    """host-gw's gateways are on the uplink's own segment."""
    plain = objects.route(
        IPv4Network("10.244.1.0/24"), via=IPv4Address("172.18.0.3"), device="eth0"
    )
    assert plain.create == ("route replace 10.244.1.0/24 via 172.18.0.3 dev eth0",)
    assert plain.want["flags"] == []


def test_a_protocol_is_written_and_compared() -> None:
    """Felix's 80 has no name, so ``ip -json`` prints the number, as text."""
    felix = objects.route(
        IPv4Network("10.244.1.0/26"),
        via=IPv4Address("172.18.0.3"),
        device="tunl0",
        onlink=True,
        protocol=80,
    )
    assert felix.create == ("route replace 10.244.1.0/26 via 172.18.0.3 dev tunl0 proto 80 onlink",)
    assert felix.want == {
        "gateway": "172.18.0.3",
        "dev": "tunl0",
        "protocol": "80",
        "flags": ["onlink"],
    }


def test_a_route_without_a_gateway_is_on_the_link() -> None:
    """A single address is listed without its prefix length."""
    direct = objects.route(IPv4Network("10.244.1.0/32"), device="vxlan.calico")
    assert direct.create == ("route replace 10.244.1.0/32 dev vxlan.calico scope link",)
    assert direct.key == {"dst": "10.244.1.0"}
    assert direct.want == {"scope": "link", "dev": "vxlan.calico", "flags": []}


def test_a_blackhole_is_told_from_a_route() -> None:
    """By its type, which is also needed to delete it."""
    item = objects.blackhole(IPv4Network("10.244.1.0/26"), protocol=80)
    assert item.create == ("route replace blackhole 10.244.1.0/26 proto 80",)
    assert item.key == {"dst": "10.244.1.0/26", "type": "blackhole"}
    assert item.delete == ("route delete blackhole 10.244.1.0/26 proto 80",)


def test_a_link_that_is_there_already_is_set_up_only() -> None:
    """It is not made by name, and cannot be deleted."""
    item = objects.existing_link("tunl0", mtu=1480)
    assert item.create == ("link set tunl0 mtu 1480 multicast off up",)
    assert item.fixed == {}
    assert item.want == {"mtu": 1480, "flags": ["UP"]}


def test_address_is_found_by_what_ip_prints() -> None:
    """The key is spelled as a row of ``ip -json address``."""
    item = objects.address("flannel.1", IPv4Interface("10.244.0.0/32"))
    assert item.key == {"ifname": "flannel.1", "local": "10.244.0.0", "prefixlen": 32}


def test_native_files_group_runs_of_a_kind_in_order() -> None:
    """One numbered file per run, the FDB's for ``bridge -batch``, rulesets last."""
    rules = Ruleset("flannel", "*nat\nCOMMIT\n")
    files = native_files((LINK, FDB, ROUTE), (rules,))
    assert [file.path.rpartition("/")[2] for file in files] == [
        "01-link.ip",
        "02-fdb.bridge",
        "03-route.ip",
        "04-flannel.iptables",
    ]
    assert (
        files[1].content
        == "fdb replace 02:00:00:00:00:02 dev flannel.1 dst 172.18.0.3 self permanent\n"
    )


def test_native_files_of_sets_come_where_their_rulesets_stand() -> None:
    """Sets before the rules that match them."""
    rulesets = (Ruleset("sets", "create a hash:net\n", "ipset"), Ruleset("rules", "*raw\nCOMMIT\n"))
    files = native_files((), rulesets)
    assert [file.path.rpartition("/")[2] for file in files] == [
        "01-sets.ipset",
        "02-rules.iptables",
    ]


def test_native_files_of_nothing() -> None:
    """A node that holds nothing has no files."""
    assert native_files((), ()) == ()


def test_every_object_can_be_deleted() -> None:
    """What testbed installs it can remove."""
    every: tuple[KernelObject, ...] = (LINK, ROUTE, FDB)
    assert all(item.delete for item in every)
