"""The table ``ip kube-proxy``: read, compared, changed in one transaction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed.agent import nftables, service_rules
from testbed.agent.command import Completed
from testbed.agent.errors import AgentError, CommandError
from testbed.agent.nftables import Table, apply, difference, merged, parse, static
from testbed.dataplane import nft as text

LISTED = """\
table ip kube-proxy {
	comment "rules for kube-proxy"
	set affinity-x {
		type ipv4_addr
		size 65535
		flags dynamic,timeout
		timeout 3h
		elements = { 10.0.0.9 }
	}

	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"
		elements = { 10.96.0.1 . tcp . 80 : goto service-a,
						10.96.0.2 . tcp . 80 comment "ns1/b:p" : drop }
	}

	chain reject-chain {
		comment "helper for @no-endpoint-services"
		reject
	}

	chain filter-input {
		type filter hook input priority -110; policy accept;
		ct state new jump reject-chain
	}

	chain service-a {
		update @affinity-x { ip saddr } numgen random mod 2 vmap { 0 : goto a, 1 : goto b }
	}
}
"""
SHARED: dict[str, Any] = {
    "sets": {
        "service-ips": {
            "kind": "map",
            "spec": "type ipv4_addr . inet_proto . inet_service : verdict; "
            'comment "ClusterIP, ExternalIP and LoadBalancer IP traffic";',
        }
    },
    "elements": {"service-ips": {'10.96.0.2 . tcp . 80 comment "ns1/b:p"': "drop"}},
    "chains": {
        "reject-chain": {
            "base": "",
            "comment": "helper for @no-endpoint-services",
            "rules": ["reject"],
        },
        "filter-input": {
            "base": "type filter hook input priority -110; policy accept;",
            "rules": ["ct state new jump reject-chain"],
        },
    },
}
SERVICE: dict[str, Any] = {
    "sets": {
        "affinity-x": {
            "kind": "set",
            "spec": "type ipv4_addr; flags dynamic,timeout; timeout 3h;",
        }
    },
    "elements": {"service-ips": {"10.96.0.1 . tcp . 80": "goto service-a"}},
    "chains": {
        "service-a": {
            "base": "",
            "rules": [
                "update @affinity-x { ip saddr } "
                "numgen random mod 2 vmap { 0 : goto a, 1 : goto b }"
            ],
        }
    },
}
EMPTY = Table({}, {}, {})


class Nft:
    """``nft`` with a listing to show."""

    def __init__(self, listed: str | None) -> None:
        self.listed = listed
        self.fed: list[str] = []
        self.refusal = ""

    def execute(self, _: list[str]) -> Completed:
        """``nft list``."""
        return Completed(int(self.listed is None), (self.listed or "").encode(), b"")

    def run(self, argv: list[str], stdin: bytes) -> bytes:
        """``nft -f -``."""
        self.fed.append(stdin.decode())
        if self.refusal:
            raise CommandError(tuple(argv), self.refusal, 1)
        return b""


@pytest.fixture
def nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nft:
    """The table as listed above."""
    fake = Nft(LISTED)
    monkeypatch.setattr(nftables, "execute", fake.execute)
    monkeypatch.setattr(nftables, "run", fake.run)
    monkeypatch.setattr(service_rules, "NATIVE", str(tmp_path))
    return fake


def test_a_listing_is_what_was_written() -> None:
    """But for what the kernel has put into sets, and their size."""
    assert parse(LISTED) == merged([SHARED, SERVICE])
    assert difference(merged([SHARED, SERVICE]), parse(LISTED)) == ""


def test_the_text_of_a_unit_reads_back() -> None:
    """It is what a spec's static ruleset holds."""
    assert parse(text.table([SHARED])) == merged([SHARED])


def test_an_empty_kernel_gets_everything_in_order() -> None:
    """Sets and chains are there before the rules and elements that name them."""
    lines = difference(merged([SHARED, SERVICE]), EMPTY).splitlines()
    assert [line.split()[:2] for line in lines] == [
        *[["add", "map"], ["add", "set"]],
        *[["add", "chain"]] * 3,
        *[["add", "rule"]] * 3,
        ["add", "element"],
    ]
    assert lines[3] == (
        "add chain ip kube-proxy filter-input "
        "{ type filter hook input priority -110; policy accept; }"
    )


def test_a_service_that_goes_takes_its_parts_along() -> None:
    """Elements before the chains that they name, chains before the sets."""
    assert difference(merged([SHARED]), merged([SHARED, SERVICE])).splitlines() == [
        "delete element ip kube-proxy service-ips { 10.96.0.1 . tcp . 80 }",
        "flush chain ip kube-proxy service-a",
        "delete chain ip kube-proxy service-a",
        "delete set ip kube-proxy affinity-x",
    ]


def test_another_verdict_replaces_an_element() -> None:
    """A comment is no part of the key to delete."""
    now = merged([{**SHARED, "elements": {"service-ips": {"10.96.0.2 . tcp . 80": "goto x"}}}])
    assert difference(now, merged([SHARED])).splitlines() == [
        "delete element ip kube-proxy service-ips { 10.96.0.2 . tcp . 80 }",
        "add element ip kube-proxy service-ips { 10.96.0.2 . tcp . 80 : goto x }",
    ]


def test_other_rules_keep_the_affinity(nft: Nft) -> None:
    """The chain is flushed and filled; the set that remembers clients stays."""
    other = {**SERVICE, "chains": {"service-a": {"base": "", "rules": ["drop"]}}}
    apply({"": SHARED, "d/a": SERVICE}, {"": SHARED, "d/a": other}, False)
    assert nft.fed == [
        "flush chain ip kube-proxy service-a\nadd rule ip kube-proxy service-a drop\n"
    ]


def test_a_set_that_is_declared_otherwise_is_made_anew() -> None:
    """Rules that name it are written again."""
    spec = {"kind": "set", "spec": "type ipv4_addr; flags dynamic,timeout; timeout 1m;"}
    other = {**SERVICE, "sets": {"affinity-x": spec}}
    lines = difference(merged([SHARED, other]), merged([SHARED, SERVICE])).splitlines()
    assert [line.split(" ip ")[0] for line in lines] == [
        "flush chain",
        "delete set",
        "add set",
        "add rule",
    ]


def test_verifying_finds_what_somebody_changed(nft: Nft) -> None:
    """A stray chain, a missing rule: one transaction."""
    units = {"": SHARED, "d/a": SERVICE}
    assert apply(units, units, True) == []
    nft.listed = LISTED.replace("\t\treject\n", "").replace(
        "\tchain reject-chain {", "\tchain stray {\n\t\taccept\n\t}\n\n\tchain reject-chain {"
    )
    assert apply(units, units, True) == [
        "nft flush chain ip kube-proxy stray",
        "nft flush chain ip kube-proxy reject-chain",
        "nft delete chain ip kube-proxy stray",
        "nft add rule ip kube-proxy reject-chain reject",
    ]
    assert len(nft.fed) == 1


def test_a_lost_table_comes_back(nft: Nft) -> None:
    """With its comment."""
    nft.listed = None
    changes = apply({"": SHARED}, {"": SHARED}, True)
    assert changes[0] == 'nft add table ip kube-proxy { comment "rules for kube-proxy"; }'


def test_the_table_goes_with_the_mode(nft: Nft) -> None:
    """Whole; where there is none, nothing is to be done."""
    assert apply({"": SHARED}, {}, True) == ["nft delete table ip kube-proxy"]
    nft.listed = None
    assert apply({"": SHARED}, {}, True) == []


def test_a_static_ruleset_is_level_triggered(nft: Nft) -> None:
    """PID 1 applies it where no Services are kept."""
    ruleset = {"name": "kube-proxy", "tool": "nft", "content": LISTED}
    assert static([], []) == []
    assert static([ruleset], []) == []
    nft.listed = None
    assert "nft add rule ip kube-proxy reject-chain reject" in static([ruleset], [ruleset])
    nft.listed = LISTED
    assert static([], [ruleset]) == ["nft delete table ip kube-proxy"]


def test_a_refused_line_is_named(nft: Nft) -> None:
    """With the tool's words."""
    nft.listed = None
    nft.refusal = "/dev/stdin:2:1-9: Error: No such file or directory\nadd map\n^^^"
    with pytest.raises(AgentError) as error:
        apply({}, {"": SHARED}, True)
    assert error.value.where.startswith("add map ip kube-proxy service-ips {")
    assert error.value.why == "/dev/stdin:2:1-9: Error: No such file or directory"
