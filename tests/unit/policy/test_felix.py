"""Felix's chains, held against a real node's iptables-save: every hash must come out the same."""

from __future__ import annotations

import re
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.policy import workloads
from testbed.policy.felix import Encapsulation, Endpoint, chains, ipsets
from testbed.policy.rule import hashes, limited

JUMPS = {
    ("filter", "INPUT"): "Cz_u1IQiXIMmKD4c",
    ("filter", "FORWARD"): "wUHhoiAYhphO9Mso",
    ("filter", "OUTPUT"): "tVnHkvAo15HuiPy0",
    ("nat", "PREROUTING"): "6gwbT8clXdHdC1b1",
    ("nat", "OUTPUT"): "tVnHkvAo15HuiPy0",
    ("nat", "POSTROUTING"): "0i8pjzKKPyA34aQD",
    ("raw", "PREROUTING"): "6gwbT8clXdHdC1b1",
    ("raw", "OUTPUT"): "tVnHkvAo15HuiPy0",
    ("mangle", "POSTROUTING"): "O3lYWMrLQYEMJtB5",
}
"""Hashes that every Calico node shows."""

REAL = "e670cd469d429c7087f53cd05de537f00cf003f04d2b4d840c43419e43d71e23"
"""SHA-256 of the rules in projectcalico/calico's felix/fv/cali-iptables-dump.txt.

It is the ``iptables-save`` of a VXLAN node without pods: 57 rules with a hash, as :func:`digest`
puts them together. Rules that match a set are not in that file; the hashes of those behind them
show what they were, because each is over all rules before it.
"""

VXLAN = Encapsulation("vxlan", "vxlan.calico")
IPIP = Encapsulation("ipip", "tunl0")
POOLS = "cali40all-ipam-pools"
PODS = tuple(
    Endpoint(name, "default") for name in ("cali111aaaaaaaa", "cali112aaaaaaaa", "cali2aaaaaaaaaa")
)


def rules(text: str) -> dict[tuple[str, str], list[str]]:
    """(table, chain) → its rules, in the order in which the kernel has them."""
    found: dict[tuple[str, str], list[str]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-I"):
            found.setdefault((table, line.split()[1]), []).insert(0, "-A" + line[2:])
        elif line.startswith("-A"):
            found.setdefault((table, line.split()[1]), []).append(line)
    return found


def identities(lines: list[str]) -> list[str]:
    """The hashes of some rules."""
    return [re.findall(r'--comment "cali:(.{16})"', line)[0] for line in lines]


def digest(found: dict[tuple[str, str], list[str]]) -> str:
    """One number for all rules with a hash, but for those that match a set."""
    text = "\n".join(
        f"{table} {rule}"
        for (table, _), chain in sorted(found.items())
        for rule in chain
        if "cali:" in rule and "--match-set" not in rule
    )
    return sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(("table", "chain"), JUMPS)
def test_jumps_have_their_known_hashes(table: str, chain: str) -> None:
    """Each is the first of its chain."""
    found = rules(chains(VXLAN, (), POOLS))
    assert identities(found[table, chain])[0] == JUMPS[table, chain]


def test_rules_are_those_of_a_real_node() -> None:
    """Word for word, in order, hashes included."""
    assert digest(rules(chains(VXLAN, (), POOLS))) == REAL


def test_profiles_have_their_known_hashes() -> None:
    """Those of every cluster's kube-system: its namespace, and a name that is too long."""
    from_namespace = workloads.chains([Endpoint("cali1", "kube-system")])
    assert hashes("cali-pri-kns.kube-system", from_namespace["cali-pri-kns.kube-system"]) == [
        "J1TyxtHWd0qaBGK-",
        "QIB6k7eEKdIg73Jp",
    ]
    assert limited("cali-pri-", "ksa.kube-system.coredns") == "cali-pri-_u2Tn2rSoAPffvE7JO6"


def test_rules_read_as_iptables_save_prints_them() -> None:
    """Options before the comments, modules behind them."""
    found = rules(chains(VXLAN, (), POOLS))
    assert found["raw", "cali-PREROUTING"][1] == (
        '-A cali-PREROUTING -p udp -m comment --comment "cali:sIsu2aAqNN6K3YYn" '
        "-m udp --dport 4789 -j NOTRACK"
    )
    assert found["filter", "cali-INPUT"][1] == (
        '-A cali-INPUT -p udp -m comment --comment "cali:EDCNTTxYfggApx8C" '
        '-m comment --comment "Drop IPv4 VXLAN packets from non-allowed hosts" '
        "-m multiport --dports 4789 -m addrtype --dst-type LOCAL -j DROP"
    )
    assert found["filter", "FORWARD"][1] == (
        '-A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" '
        '-m comment --comment "Policy explicitly accepted packet." '
        "-m mark --mark 0x10000/0x10000 -j ACCEPT"
    )


def test_ip_in_ip_from_other_nodes_only() -> None:
    """Protocol 4 from the set of nodes, and no other."""
    allowed, dropped, *_ = rules(chains(IPIP, (), POOLS))["filter", "cali-INPUT"]
    assert "-p ipencap " in allowed
    assert "--match-set cali40all-hosts-net src -m addrtype --dst-type LOCAL -j ACCEPT" in allowed
    assert dropped.endswith('"Drop IPIP packets from non-Calico hosts" -j DROP')
    assert not [
        rule for rule in rules(chains(IPIP, (), POOLS))["raw", "cali-OUTPUT"] if "NOTRACK" in rule
    ]


def test_without_encapsulation_no_tunnel_is_named() -> None:
    """Nothing of protocol 4 or 4789 but what pods must not send."""
    text = chains(None, (), POOLS)
    assert "4789" not in text
    assert "tunl0" not in text


def test_dispatch_is_a_prefix_tree() -> None:
    """Two names that share their next character share a chain; unknown interfaces are dropped."""
    found = rules(chains(IPIP, PODS, POOLS))
    root = found["filter", "cali-from-wl-dispatch"]
    assert ["-i cali1+ " in root[0], root[0].endswith("-g cali-from-wl-dispatch-1")] == [True, True]
    assert root[1].endswith("-g cali-fw-cali2aaaaaaaaaa")
    assert root[2].endswith('"Unknown interface" -j DROP')
    child = found["filter", "cali-to-wl-dispatch-1"]
    assert [rule.split()[-1] for rule in child] == [
        "cali-tw-cali111aaaaaaaa",
        "cali-tw-cali112aaaaaaaa",
        "DROP",
    ]


def test_a_pod_without_policy_is_accepted_by_its_namespace() -> None:
    """Profiles in turn, then a drop; pods may not send encapsulated packets."""
    found = rules(chains(IPIP, PODS[:1], POOLS))
    incoming = found["filter", "cali-tw-cali111aaaaaaaa"]
    assert [rule.rpartition(" -j ")[2] for rule in incoming] == [
        "ACCEPT",
        "DROP",
        "MARK --set-xmark 0x0/0x30000",
        "cali-pri-kns.default",
        "RETURN",
        limited("cali-pri-", "ksa.default.default"),
        "RETURN",
        "DROP",
    ]
    outgoing = found["filter", "cali-fw-cali111aaaaaaaa"]
    assert "originating in workloads" in outgoing[3]
    assert "originating in workloads" in outgoing[4]
    assert identities(found["filter", "cali-pri-kns.default"])[0] == "WMSw8BmYOknRHfsz"


def test_every_chain_that_is_jumped_to_is_declared() -> None:
    """iptables-restore would refuse the fragment otherwise."""
    for encapsulation in (IPIP, VXLAN, None):
        text = chains(encapsulation, PODS, POOLS)
        for table in text.split("COMMIT\n")[:-1]:
            declared = set(re.findall(r"^:(\S+)", table, re.MULTILINE))
            wanted = set(re.findall(r"-[jg] (cali-\S+)", table))
            assert wanted <= declared


def test_names_of_chains_are_limited() -> None:
    """28 characters: a hash where the name would be longer."""
    assert limited("cali-pri-", "kns.default") == "cali-pri-kns.default"
    name = limited("cali-pri-", "kns.a-namespace-with-a-long-name")
    assert (len(name), name[:10]) == (28, "cali-pri-_")


def test_sets_in_ipset_save_s_spelling() -> None:
    """Sorted by name; the nodes only where there is a tunnel."""
    nodes = [IPv4Address("172.18.0.10"), IPv4Address("172.18.0.9")]
    text = ipsets(IPIP, nodes, IPv4Network("10.244.0.0/16"), POOLS, nat_outgoing=True)
    options = "hash:net family inet hashsize 1024 maxelem 1048576"
    assert text.splitlines() == [
        f"create cali40all-hosts-net {options}",
        "add cali40all-hosts-net 172.18.0.9",
        "add cali40all-hosts-net 172.18.0.10",
        f"create cali40all-ipam-pools {options}",
        "add cali40all-ipam-pools 10.244.0.0/16",
        f"create cali40masq-ipam-pools {options}",
        "add cali40masq-ipam-pools 10.244.0.0/16",
    ]
    bare = ipsets(None, nodes, IPv4Network("10.244.0.0/16"), POOLS, nat_outgoing=False)
    assert "all-hosts-net" not in bare
    assert "add cali40masq-ipam-pools" not in bare
