"""kube-proxy's iptables mode, held against upstream's own expectations and ``iptables-save``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from testbed.agent.rules import Fragment
from testbed.dataplane import kubelet
from testbed.dataplane.vantage import Vantage
from testbed.proxy import iptables
from testbed.proxy.iptables import dispatch, service
from testbed.topology.portals import Portal, Target

GOLDEN = Path(__file__).parents[2] / "golden" / "proxy"

UPSTREAM = "9ae6791d8d947926d829b8a84dfb69d6e98ec2eaf45163fd313dbd0423e841d4"
"""SHA-256 of the 61 rules that upstream's TestOverallIPTablesRules expects (proxier_test.go).

They were fed to ``iptables-restore`` with ``--random-fully`` added, and are as ``iptables-save``
printed them, ``table rule`` a line, sorted.
"""

HERE = Vantage(
    "a", IPv4Address("172.18.0.2"), IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/16")
)
THERE = replace(HERE, node="c", address=IPv4Address("172.18.0.4"))
LARGE = replace(HERE, large=True)
ON_A, ALSO_ON_A, ON_B = (
    Target(IPv4Address(address), 80, node)
    for address, node in (("10.244.0.5", "a"), ("10.244.0.6", "a"), ("10.244.1.7", "b"))
)
PLAIN = Portal("ns1/svc1", "p80", "tcp", IPv4Address("10.96.0.41"), 80, (ON_A, ALSO_ON_A, ON_B))
NODE_PORT = replace(PLAIN, node_port=30080)
BALANCED = replace(
    NODE_PORT,
    external_ips=(IPv4Address("192.0.2.9"),),
    load_balancer_ip=IPv4Address("198.51.100.7"),
    health_check_node_port=31000,
)
LOCAL = replace(BALANCED, external_local=True)
RANGES = replace(
    BALANCED, source_ranges=(IPv4Network("203.0.113.0/24"), IPv4Network("172.18.0.0/16"))
)
SVC, SVL, EXT, FW = (f"KUBE-{kind}-XPGD46QRK7WJZT7O" for kind in ("SVC", "SVL", "EXT", "FW"))
"""Of ``ns1/svc1:p80`` and ``tcp``, as upstream's tests have them."""


def tables(vantage: Vantage, *portals: Portal) -> dict[str, dict[str, list[str]]]:
    """Table → chain → its rules in the order in which packets meet them, of all units."""
    by_service: dict[str, list[Portal]] = {}
    for portal in portals:
        by_service.setdefault(portal.service, []).append(portal)
    units = [dispatch(portals, vantage), *(service(each, vantage) for each in by_service.values())]
    found: dict[str, dict[str, list[str]]] = {}
    for unit in units:
        fragment = Fragment(unit["iptables"])
        for chains in (fragment.owned, fragment.first, fragment.last):
            for table, each in chains.items():
                for name, rules in each.items():
                    found.setdefault(table, {}).setdefault(name, []).extend(rules)
    return found


def nat(vantage: Vantage, *portals: Portal) -> dict[str, list[str]]:
    """The same of table nat, without ``-A CHAIN``."""
    return bare(tables(vantage, *portals)["nat"])


def filtered(vantage: Vantage, *portals: Portal) -> dict[str, list[str]]:
    """The same of table filter."""
    return bare(tables(vantage, *portals)["filter"])


def bare(chains: dict[str, list[str]]) -> dict[str, list[str]]:
    """Rules without ``-A CHAIN``."""
    return {name: [rule.split(" ", 2)[2] for rule in rules] for name, rules in chains.items()}


def own(chains: dict[str, list[str]]) -> set[str]:
    """The kinds of a Service's chains: ``KUBE-SVC`` and the like."""
    kinds = {"KUBE-SVC", "KUBE-SVL", "KUBE-EXT", "KUBE-FW", "KUBE-SEP"}
    return {name[: name.rindex("-")] for name in chains if "-" in name} & kinds


GOLDENS = {
    "cluster-ip": (HERE, PLAIN),
    "large": (LARGE, replace(NODE_PORT, affinity_seconds=10800)),
    "affinity": (HERE, replace(PLAIN, affinity_seconds=10800)),
    "node-port": (HERE, NODE_PORT),
    "external-local": (HERE, LOCAL),
    "external-local-none": (THERE, LOCAL),
    "internal-local": (HERE, replace(PLAIN, internal_local=True)),
    "source-ranges": (HERE, RANGES),
    "no-endpoints": (HERE, replace(BALANCED, targets=())),
    "terminating": (
        HERE,
        replace(
            LOCAL, targets=(replace(ON_A, ready=False, terminating=True), replace(ON_B, node="b"))
        ),
    ),
    "udp": (HERE, replace(NODE_PORT, service="kube-system/dns", port_name="", protocol="udp")),
    "sctp": (HERE, replace(PLAIN, protocol="sctp")),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens(name: str, golden: Callable[[Path, str], None]) -> None:
    """Both units' whole text."""
    vantage, portal = GOLDENS[name]
    shared, own = dispatch((portal,), vantage), service((portal,), vantage)
    golden(GOLDEN / f"iptables-{name}.txt", shared["iptables"] + own["iptables"])


def test_upstreams_own_expectations() -> None:
    """Every rule and hash of upstream's overall test, six Services of all types."""
    vantage = Vantage(
        "a", IPv4Address("192.168.0.2"), IPv4Network("10.0.0.0/8"), IPv4Network("172.30.0.0/16")
    )

    def portal(number: int, *targets: Target) -> Portal:
        address = IPv4Address(f"172.30.0.4{number}")
        return Portal(f"ns{number}/svc{number}", "p80", "tcp", address, 80, targets)

    def at(last: int) -> Target:
        return Target(IPv4Address(f"10.180.0.{last}"), 80)

    found = tables(
        vantage,
        portal(1, at(1)),
        replace(
            portal(2, at(2)),
            node_port=3001,
            external_ips=(IPv4Address("192.168.99.22"),),
            load_balancer_ip=IPv4Address("1.2.3.4"),
            external_local=True,
            health_check_node_port=30000,
        ),
        replace(portal(3, at(3)), node_port=3003),
        replace(portal(4, at(4), at(5)), external_ips=(IPv4Address("192.168.99.33"),)),
        replace(
            portal(5, at(3)),
            node_port=3002,
            load_balancer_ip=IPv4Address("5.6.7.8"),
            source_ranges=(IPv4Network("203.0.113.0/25"),),
        ),
        portal(6),
    )
    rules = sorted(
        f"{table} {rule}"
        for table in ("filter", "nat")
        for name, chain in found[table].items()
        if name.startswith("KUBE-")
        for rule in chain
    )
    (localnet,) = kubelet.TABLES["filter"].chains["KUBE-FIREWALL"]  # kube-proxy has a copy of it
    rules = sorted([*rules, f"filter -A KUBE-FIREWALL {localnet}"])
    assert len(rules) == 61
    assert sha256("\n".join(rules).encode()).hexdigest() == UPSTREAM


def test_shapes_that_a_node_prints() -> None:
    """What was read off a node whose kube-proxy had these Services (reference, 3.1)."""
    found = {
        rule
        for vantage, portal in (
            (HERE, PLAIN),
            (LARGE, replace(PLAIN, affinity_seconds=10800)),
            (HERE, replace(PLAIN, affinity_seconds=10800)),
            (HERE, replace(PLAIN, targets=())),
        )
        for chains in tables(vantage, portal).values()
        for rules in chains.values()
        for rule in rules
    }
    first = f"KUBE-SEP-{iptables._identity('ns1/svc1:p80tcp10.244.0.5:80')}"
    named, words = f"--name {first} --mask 255.255.255.255 --rsource", "-m comment --comment"
    assert found >= {
        "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
        f"-A {SVC} ! -s 10.244.0.0/16 -d 10.96.0.41/32 -p tcp {words} "
        '"ns1/svc1:p80 cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ',
        f'-A {SVC} {words} "ns1/svc1:p80 -> 10.244.0.5:80" '
        f"-m statistic --mode random --probability 0.33333333349 -j {first}",
        f"-A {SVC} -m recent --rcheck --seconds 10800 --reap {named} -j {first}",
        f'-A {first} -s 10.244.0.5/32 {words} "ns1/svc1:p80" -j KUBE-MARK-MASQ',
        f'-A {first} -p tcp {words} "ns1/svc1:p80" -m recent --set {named} '
        "-m tcp -j DNAT --to-destination 10.244.0.5:80",
        f'-A KUBE-SERVICES -d 10.96.0.41/32 -p tcp {words} "ns1/svc1:p80 has no endpoints" '
        "-m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable",
    }


def test_jumps_are_the_reverse_of_how_they_are_prepended() -> None:
    """kube-proxy puts each on top, so the last one comes first."""
    found = tables(HERE)

    def targets(table: str, chain: str) -> list[str]:
        return [rule.split(" -j ")[1] for rule in found[table][chain]]

    firewall, external = "KUBE-PROXY-FIREWALL", "KUBE-EXTERNAL-SERVICES"
    assert targets("filter", "INPUT") == [firewall, "KUBE-NODEPORTS", external]
    assert targets("filter", "FORWARD") == [firewall, "KUBE-FORWARD", "KUBE-SERVICES", external]
    assert targets("filter", "OUTPUT") == [firewall, "KUBE-SERVICES"]
    for chain in ("PREROUTING", "OUTPUT"):
        assert targets("nat", chain) == ["KUBE-SERVICES"]
    assert targets("nat", "POSTROUTING") == ["KUBE-POSTROUTING"]


def test_jumps_are_all_prepended() -> None:
    """So that the mark is masqueraded before a CNI's own rules see the packet."""
    for line in dispatch((), HERE)["iptables"].splitlines():
        if line.startswith(("-I", "-A")):
            assert line.startswith("-I") != line.split()[1].startswith("KUBE-")


def test_canaries_are_in_every_table() -> None:
    """Empty chains by which kube-proxy sees that somebody flushed a table."""
    found = tables(HERE)
    for table in ("mangle", "nat", "filter"):
        assert found[table]["KUBE-PROXY-CANARY"] == []


def test_mark_is_taken_off_before_masquerading() -> None:
    """Return without it, clear it, masquerade: in this order."""
    left = [rule.split("-j ")[1] for rule in nat(HERE)["KUBE-POSTROUTING"]]
    assert left == ["RETURN", "MARK --set-xmark 0x4000/0x0", "MASQUERADE --random-fully"]


def test_node_ports_are_the_last_choice() -> None:
    """The jump to KUBE-NODEPORTS stays last, behind every Service."""
    rules = nat(HERE, NODE_PORT, replace(NODE_PORT, service="ns2/svc2"))["KUBE-SERVICES"]
    assert len(rules) == 3
    assert rules[-1].endswith("-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")


def test_all_but_the_last_endpoint_are_a_matter_of_chance() -> None:
    """n-1 statistic rules: 1/3, 1/2, and the rest."""
    rules = nat(HERE, PLAIN)[SVC][1:]
    chances = [rule.partition("--probability ")[2][:13] for rule in rules]
    assert chances == ["0.33333333349", "0.50000000000", ""]


@pytest.mark.parametrize(
    ("count", "text"),
    [(2, "0.50000000000"), (3, "0.33333333349"), (7, "0.14285714272"), (1000, "0.00100000016")],
)
def test_probabilities_are_rounded_as_the_kernel_keeps_them(count: int, text: str) -> None:
    """Ten decimals in, 31 bits kept, eleven decimals out."""
    assert iptables._probability(count) == text


def test_single_endpoint_needs_no_chance() -> None:
    """One rule, without statistic."""
    (rule,) = nat(HERE, replace(PLAIN, targets=(ON_B,)))[SVC][1:]
    assert "statistic" not in rule


def test_affinity_rules_come_before_balancing() -> None:
    """The mark, every endpoint that the client may have had, then chance; stored at the DNAT."""
    found = nat(HERE, replace(PLAIN, affinity_seconds=600))
    kinds = [
        next((word for word in ("MASQ", "rcheck --seconds 600", "statistic") if word in rule), "")
        for rule in found[SVC]
    ]
    assert kinds == ["MASQ", *["rcheck --seconds 600"] * 3, *["statistic"] * 2, ""]
    assert all("--set" in found[name][1] for name in found if name.startswith("KUBE-SEP"))


def test_pod_that_talks_to_itself_is_masqueraded() -> None:
    """Its own source at its own endpoint is marked, before the address is translated."""
    found = nat(HERE, PLAIN)
    endpoints = [rules for name, rules in found.items() if name.startswith("KUBE-SEP")]
    assert len(endpoints) == 3
    for hairpin, dnat in endpoints:
        address = dnat.rsplit(" ", 1)[1].removesuffix(":80")
        assert hairpin.startswith(f"-s {address}/32 ")
        assert hairpin.endswith("-j KUBE-MARK-MASQ")


def test_large_clusters_leave_out_the_comments_of_endpoints_only() -> None:
    """In SEP chains and at choices of an endpoint; all others keep theirs."""
    portal = replace(RANGES, affinity_seconds=60)
    small, large = nat(HERE, portal), nat(LARGE, portal)
    for name, rules in large.items():
        if name.startswith("KUBE-SEP"):
            assert not any("comment" in rule for rule in rules)
        elif name == SVC:
            assert [("comment" in rule) for rule in rules] == [True] + [False] * 6
        else:
            assert rules == small[name]


def test_no_endpoints_is_refused_everywhere() -> None:
    """REJECT for every address, nothing in nat, no chain of the Service."""
    portal = replace(BALANCED, targets=(replace(ON_A, ready=False, serving=False),))
    found = filtered(HERE, portal)
    refused = found["KUBE-SERVICES"] + found["KUBE-EXTERNAL-SERVICES"]
    assert [rule.split()[0:2] for rule in refused] == [
        ["-d", "10.96.0.41/32"],
        ["-d", "192.0.2.9/32"],
        ["-d", "198.51.100.7/32"],
        ["-p", "tcp"],
    ]
    assert all("has no endpoints" in rule and " -j REJECT " in rule for rule in refused)
    assert "-m addrtype --dst-type LOCAL -m tcp --dport 30080" in refused[3]
    assert service((portal,), HERE) == {"iptables": ""}
    assert len(nat(HERE, portal)["KUBE-SERVICES"]) == 1


def test_external_local_without_local_endpoints_is_dropped() -> None:
    """From outside; pods and the node still get the cluster's endpoints by KUBE-EXT."""
    dropped = filtered(THERE, LOCAL)["KUBE-EXTERNAL-SERVICES"]
    assert len(dropped) == 3
    assert all("has no local endpoints" in rule and rule.endswith("DROP") for rule in dropped)
    assert filtered(THERE, LOCAL)["KUBE-SERVICES"] == []
    found = nat(THERE, LOCAL)
    assert own(found) == {"KUBE-EXT", "KUBE-SVC", "KUBE-SEP"}
    assert len(found[EXT]) == 3


def test_internal_local_without_local_endpoints_is_dropped() -> None:
    """The cluster IP only; no chain is left that nothing uses."""
    portal = replace(PLAIN, internal_local=True)
    (rule,) = filtered(THERE, portal)["KUBE-SERVICES"]
    assert "ns1/svc1:p80 has no local endpoints" in rule
    assert rule.endswith("-j DROP")
    assert service((portal,), THERE) == {"iptables": ""}


def test_internal_local_has_no_chain_of_the_clusters_endpoints() -> None:
    """KUBE-SVL with the mark for what is not from pods, and local endpoints only."""
    found = nat(HERE, replace(PLAIN, internal_local=True))
    assert own(found) == {"KUBE-SVL", "KUBE-SEP"}
    assert found[SVL][0].startswith("! -s 10.244.0.0/16 ")
    assert sum(name.startswith("KUBE-SEP") for name in found) == 2


def test_external_policy_local_keeps_the_clients_address() -> None:
    """KUBE-EXT marks what the node itself sends and nothing else; the rest goes to KUBE-SVL."""
    found = nat(HERE, LOCAL)
    targets = [rule.rsplit("-j ", 1)[1] for rule in found[EXT]]
    assert targets == [SVC, "KUBE-MARK-MASQ", SVC, SVL]
    assert "--src-type LOCAL" in found[EXT][1]
    assert not any("MASQ" in rule for rule in found[SVL])


def test_health_check_port_is_accepted_on_every_node() -> None:
    """Also where no endpoint is, for the answer is that there is none."""
    for vantage in (HERE, THERE):
        (rule,) = filtered(vantage, LOCAL)["KUBE-NODEPORTS"]
        assert rule.endswith("-m tcp --dport 31000 -j ACCEPT")


def test_source_ranges_hold_for_the_load_balancer_only() -> None:
    """Its address leads to KUBE-FW; external IPs and node ports still to KUBE-EXT."""
    found = nat(HERE, RANGES)
    assert [rule.rsplit(" ", 1)[1] for rule in found["KUBE-SERVICES"][:3]] == [SVC, EXT, FW]
    assert found["KUBE-NODEPORTS"][0].endswith(EXT)
    (dropped,) = filtered(HERE, RANGES)["KUBE-PROXY-FIREWALL"]
    assert f"traffic not accepted by {FW}" in dropped
    assert dropped.endswith("-j DROP")


def test_a_node_inside_the_ranges_may_use_the_address_as_its_own() -> None:
    """One more source, the load balancer's address, only where the node's own is in a range."""
    outside = replace(HERE, address=IPv4Address("172.19.0.2"))
    sources = [
        [rule.split()[1] for rule in nat(vantage, RANGES)[FW] if rule.startswith("-s")]
        for vantage in (HERE, outside)
    ]
    assert sources[0] == ["203.0.113.0/24", "172.18.0.0/16", "198.51.100.7/32"]
    assert sources[1] == ["203.0.113.0/24", "172.18.0.0/16"]
    assert "-j" not in nat(HERE, RANGES)[FW][-1]


def test_everybody_as_a_source_range_is_no_match() -> None:
    """``iptables-save`` does not print ``-s 0.0.0.0/0``."""
    portal = replace(BALANCED, source_ranges=(IPv4Network("0.0.0.0/0"),))
    assert nat(HERE, portal)[FW][0].startswith("-m comment")


def test_terminating_endpoints_serve_where_none_is_ready() -> None:
    """A node's only endpoint that terminates gets outside traffic; the cluster's is the ready."""
    leaving = replace(ON_A, ready=False, terminating=True)
    found = nat(HERE, replace(LOCAL, targets=(leaving, ON_B)))
    assert "10.244.1.7" in found[SVC][-1]
    assert len(found[SVC]) == 2
    assert "10.244.0.5" in found[SVL][-1]
    assert len(found[SVL]) == 1
    assert sum(name.startswith("KUBE-SEP") for name in found) == 2


def test_endpoints_that_are_not_ready_get_nothing() -> None:
    """Neither a rule nor a chain."""
    waiting = replace(ON_A, ready=False, serving=False)
    assert "10.244.0.5" not in service((replace(PLAIN, targets=(waiting, ON_B)),), HERE)["iptables"]


def test_ports_of_a_service_share_no_chain() -> None:
    """Names are hashes of the port's name and protocol, too."""
    other = replace(PLAIN, protocol="udp")
    third = replace(PLAIN, port_name="p81", port=81)
    counts = [
        sum(name.startswith("KUBE-S") for name in Fragment(unit["iptables"]).owned["nat"])
        for unit in (service((PLAIN,), HERE), service((PLAIN, other, third), HERE))
    ]
    assert counts == [4, 12]


@pytest.mark.parametrize("name", GOLDENS)
def test_every_chain_is_used(name: str) -> None:
    """Nothing is left that no rule leads to, whatever the portal."""
    vantage, portal = GOLDENS[name]
    found = nat(vantage, portal)
    used = {rule.rpartition("-j ")[2] for rules in found.values() for rule in rules}
    used.add("KUBE-MARK-MASQ")  # there without any Service, too
    assert {name for name in found if name.startswith("KUBE-")} - used == {"KUBE-PROXY-CANARY"}
