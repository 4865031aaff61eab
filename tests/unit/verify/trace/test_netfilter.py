"""Rules of iptables, nftables and tc, by their counters."""

from __future__ import annotations

from tests.unit.verify.trace.world import (
    FILTER,
    UDP_PROBE,
    B,
    World,
    at,
    datagram,
    error,
    hop,
    request,
    rule,
    verdict,
)


def test_blocked_vxlan_at_the_receiver() -> None:
    """eth0 saw it come in; INPUT dropped it before flannel.1."""
    world = World()
    text = "-A INPUT -p udp -m udp --dport 8472 -j DROP"
    world.count("node2", rule(text, 4), rule(text, 5))
    found = verdict(world, request(6))
    assert (found.cause, found.place) == ("rule", "node2")
    assert found.summary == (
        "node2 dropped it: rule 1 of INPUT in table filter"
        " `-p udp -m udp --dport 8472 -j DROP` counted 1 packet"
    )
    assert found.evidence[0].endswith("-j DROP: 4 → 5 packets")
    assert found.advice == (
        "remove the rule (`iptables -D INPUT -p udp -m udp --dport 8472 -j DROP`) on node2"
    )
    assert (found.last, found.expected) == ("node2/eth0", "node2/flannel.1")


def test_blocked_vxlan_at_the_sender() -> None:
    """flannel.1 saw it go out; OUTPUT dropped what carries it."""
    world = World()
    text = "-A OUTPUT -d 172.18.0.3/32 -p udp -m udp --dport 8472 -j DROP"
    world.count("node1", FILTER, rule(text, 1))
    found = verdict(world, request(4))
    assert (found.cause, found.place) == ("rule", "node1")


def test_a_rule_that_did_not_move_or_is_about_others_is_not_it() -> None:
    """Nor is one that accepts; the forwarding entry is missing."""
    world = World()
    still = "-A OUTPUT -p udp -m udp --dport 8472 -j DROP"
    world.count("node1", rule(still, 9), rule(still, 9))
    other = rule("-A OUTPUT -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j DROP", 8)
    world.count("node1", "", other.replace("216", "300"), key="iptables_legacy")
    world.node("node1")["fdb"] = []
    assert verdict(world, request(4)).cause == "no-fdb"


def test_a_rule_that_rejects() -> None:
    """The ICMP error that it sends is no answer of a listener."""
    world = World(UDP_PROBE)
    text = "-A FORWARD -i cni0 -p udp -j REJECT --reject-with icmp-port-unreachable"
    world.count("node1", FILTER, rule(text, 1))
    refused = error(3)._replace(quoted=datagram())
    events = [*request(3, datagram()), at(hop("node1", "vetha", "out"), refused, 1_040_000)]
    found = verdict(world, events, error="Connection refused")
    assert (found.cause, found.place) == ("rule", "node1")
    assert "rejected it" in found.summary
    assert found.evidence[1:] == (
        "node1/vetha saw ICMP port unreachable (3/3) from 10.244.0.1",
        "the probe from default/a: Connection refused",
    )


def test_the_rule_at_the_place_of_divergence_wins() -> None:
    """One elsewhere on the path moved, too, but the packet never came there."""
    world = World()
    text = "-A FORWARD -j DROP"
    world.count("node2", FILTER, rule(text, 3))
    assert verdict(world, request(3)).place == "node2"
    world.count("node1", FILTER, rule(text, 1))
    assert verdict(world, request(3)).place == "node1"


def test_nftables() -> None:
    """A counter in a table of nft's own."""
    text = """table inet blk {{
	chain forwarded {{
		type filter hook forward priority filter - 10; policy accept;
		ip protocol icmp counter packets {0} bytes 84 drop comment "no ping"
	}}
}}
"""
    world = World()
    world.count("node1", text.format(0), text.format(1), key="nft")
    found = verdict(world, request(3))
    assert (found.cause, found.place) == ("rule", "node1")
    assert "rule 1 of forwarded in table inet blk" in found.summary


def test_a_rule_without_counter_is_named_where_nothing_else_is() -> None:
    """It can have been that."""
    text = "table ip x {\n\tchain y {\n\t\tip daddr 10.244.1.0/24 drop\n\t}\n}\n"
    world = World()
    world.count("node1", text, text, key="nft")
    found = verdict(world, request(3))
    assert found.cause == "rule"
    assert "can have dropped it" in found.summary
    world.node("node1")["routes"].insert(0, {"type": "blackhole", "dst": "10.244.1.0/24"})
    assert verdict(world, request(3)).cause == "blackhole"


def test_a_filter_of_tc() -> None:
    """What the eBPF driver encapsulates passes no netfilter; a block is a filter."""
    text = """dev eth0 ingress
filter protocol ip pref 49152 flower chain 0{end}
filter protocol ip pref 49152 flower chain 0 handle 0x1{end}
  eth_type ipv4
  ip_proto udp
  not_in_hw
\taction order 1: gact action drop
\t random type none pass val 0
\t index 1 ref 1 bind 1 installed 8 sec used 1 sec
\tAction statistics:
\tSent 148 bytes 1 pkt (dropped {0}, overlimits 0 requeues 0){end}
\tbacklog 0b 0p requeues 0
"""
    world = World()
    world.count("node2", text.format(0, end=" "), text.format(1, end=" "), key="filters")
    found = verdict(world, request(6))
    assert (found.cause, found.place) == ("rule", "node2")
    assert "the tc filter on eth0 ingress" in found.summary
    assert "flower" in found.summary


def test_a_network_policy() -> None:
    """Calico's chains say what they drop in a comment."""
    before = FILTER.replace(
        "COMMIT",
        '[{0}:0] -A cali-tw-caliB -m comment --comment "cali:x"'
        ' -m comment --comment "Drop if no profiles matched" -j DROP\nCOMMIT',
    )
    world = World()
    world.count("node2", before.format(0), before.format(1))
    found = verdict(world, request(7))
    assert (found.cause, found.place) == ("policy", "node2")
    assert "network policy" in found.advice


def test_a_chains_policy() -> None:
    """FORWARD drops what no rule accepts."""
    world = World()
    closed = FILTER.replace(":FORWARD ACCEPT [0:0]", ":FORWARD DROP [{0}:0]")
    world.count("node1", closed.format(3), closed.format(4))
    found = verdict(world, request(3))
    assert (found.cause, found.place) == ("policy", "node1")
    assert found.summary == (
        "node1 dropped it: the policy DROP of chain FORWARD in table filter counted 1 packet"
    )
    assert "iptables -P FORWARD ACCEPT" in found.advice


def test_dropped_by_the_target_itself() -> None:
    """A rule in the pod's own namespace."""
    world = World()
    text = "-A INPUT -p icmp -j DROP"
    world.count("node2", "", rule(text, 1), space=B.place)
    found = verdict(world, request(10))
    assert (found.cause, found.place) == ("rule", B.place)
