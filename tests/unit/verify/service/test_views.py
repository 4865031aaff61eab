"""From what native tools print of a node's rules to the chains of one Service."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from xml.dom import minidom

import pytest

from testbed.cli import chains
from testbed.verify.service import drawing, iptables, svg
from testbed.verify.service.facts import facts
from testbed.verify.service.tree import Chain, Rule, Section, View, to_json
from tests.unit.verify.service.services import BY_NAME, GOLDEN, view

CASES = [(mode, name) for mode in ("iptables", "nftables") for name in ("web", "local", "empty")]
CASES.append(("ipvs", "web"))


def rules(found: View) -> list[Rule]:
    """All rules of all chains."""
    return [rule for chain in found.chains.values() for rule in chain.rules]


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_text_is_golden(mode: str, name: str, golden: Callable[[Path, str], None]) -> None:
    """What people read."""
    found = view(mode, name)
    said = (*chains.heading(found, BY_NAME[name]), *chains.lines(found))
    golden(GOLDEN / f"{mode}-{name}.view.txt", "\n".join(said) + "\n")


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_shares_add_up(mode: str, name: str) -> None:
    """Every chain that balances hands on all that it gets."""
    for chain in view(mode, name).chains.values():
        shares = [rule.share for rule in chain.rules if rule.share is not None]
        assert not shares or sum(shares) == 1


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_three_endpoints_get_a_third_each(mode: str) -> None:
    """Although iptables' probabilities are 1/3, 1/2 and none."""
    shares = [rule.share for rule in rules(view(mode, "web")) if rule.share is not None]
    assert shares == [Fraction(1, 3)] * 3


def test_weights_are_shares_in_ipvs() -> None:
    """One of four parts, and three."""
    chain = view("ipvs", "web").chains["ipvs", "TCP 10.96.0.41:80 rr persistent 10800"]
    assert [rule.share for rule in chain.rules] == [Fraction(1, 4), Fraction(3, 4)]
    assert [rule.packets for rule in chain.rules] == [15, 0]


@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs"])
def test_endpoints_are_named(mode: str) -> None:
    """A translation says which pod it is, and where."""
    ends = {str(rule.endpoint) for rule in rules(view(mode, "web")) if rule.endpoint}
    assert {"pod ns1/web-1 on node1", "pod ns1/web-2 on node2"} <= ends


def test_counters_are_those_of_the_kernel() -> None:
    """Packets and bytes of iptables-save; nftables has none."""
    cluster = next(rule for rule in rules(view("iptables", "web")) if "10.96.0.41" in rule.match)
    assert (cluster.packets, cluster.bytes) == (30, 1800)
    assert all(rule.packets is None for rule in rules(view("nftables", "web")))


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_other_services_are_left_out(mode: str) -> None:
    """Neither their rules nor their chains."""
    text = json.dumps(to_json(view(mode, "web")))
    assert "10.96.0.42" not in text
    assert "ns1/local" not in text


@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs"])
def test_unknown_services_have_no_chains(mode: str) -> None:
    """Not even those that every Service shares."""
    found = view(mode, "other")
    assert found.empty
    assert any("no rule" in line for line in chains.heading(found, BY_NAME["other"]))
    minidom.parseString(svg.svg(found))  # noqa: S318  # our own


def test_comments_are_not_needed() -> None:
    """Large clusters have none: addresses and ports tell."""
    text = (GOLDEN / "iptables-save.txt").read_text()
    bare = re.sub(r' -m comment --comment "[^"]*"', "", text)
    with_comments, without = (
        view("iptables", "web"),
        iptables.view(bare, facts(BY_NAME["web"]), "node1"),
    )
    assert list(without.chains) == list(with_comments.chains)


def test_no_endpoints_are_refused() -> None:
    """Said in words, with the kernel's count."""
    refused = [rule for rule in rules(view("iptables", "empty")) if "REJECT" in rule.action]
    assert [rule.packets for rule in refused] == [0, 2]
    assert all("refused at once" in rule.gloss for rule in refused)


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_drawings_are_whole(mode: str, name: str) -> None:
    """Well-formed SVG with every chain's name in it; dot with an edge for every rule."""
    found = view(mode, name)
    picture = minidom.parseString(svg.svg(found))  # noqa: S318  # our own
    assert len(picture.getElementsByTagName("svg")) == 1
    graph = drawing.dot(found)
    assert graph.count("->") >= len(rules(found))
    assert graph.endswith("}\n")


def test_dot_escapes() -> None:
    """Quotes and backslashes end no label."""
    key = ("nat", 'a"b\\c')
    odd = View("n/s", "node1", "iptables", (Section("t", (key,)),), {key: Chain(key, "")})
    assert r'"a\"b\\c' in drawing.dot(odd)
