"""Fragments of iptables-save files, as planners write them and the agent reads them."""

from __future__ import annotations

from testbed.agent.rules import Fragment
from testbed.dataplane import kubelet
from testbed.dataplane.fragment import Table, fragment


def test_fragment_declares_chains_then_jumps_then_rules() -> None:
    """A table a section; those that hold nothing are left out."""
    table = Table({"OWN": ("-j RETURN", "-j DROP"), "EMPTY": ()}, {"INPUT": ("-j OWN",)})
    assert fragment({"mangle": Table(), "filter": table}) == (
        "*filter\n:OWN - [0:0]\n:EMPTY - [0:0]\n-I INPUT -j OWN\n"
        "-A OWN -j RETURN\n-A OWN -j DROP\nCOMMIT\n"
    )


def test_nothing_is_an_empty_text() -> None:
    """A Service without chains has no table, not an empty one."""
    assert fragment({"nat": Table()}) == ""


def test_jumps_are_in_the_order_in_which_packets_meet_them() -> None:
    """The agent puts them at the top in the order in which they are written."""
    text = fragment({"nat": Table({}, {"OUTPUT": ("-j A", "-j B")})})
    assert Fragment(text).first["nat"]["OUTPUT"] == ["-A OUTPUT -j A", "-A OUTPUT -j B"]


def test_kubelet_blocks_packets_to_loopback_from_elsewhere() -> None:
    """KUBE-FIREWALL at the top of INPUT and OUTPUT, with the one rule."""
    table = kubelet.TABLES["filter"]
    assert set(table.first) == {"INPUT", "OUTPUT"}
    (rule,) = table.chains["KUBE-FIREWALL"]
    assert rule.startswith("! -s 127.0.0.0/8 -d 127.0.0.0/8 ")
