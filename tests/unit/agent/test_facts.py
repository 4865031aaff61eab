"""What is read of a network namespace, and how what the tools print is taken apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.agent import facts

RULESET = """\
table ip nat {
	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		counter packets 3 bytes 180 masquerade
	}
}
table inet guard {
	chain forward {
		type filter hook forward priority filter; policy drop;
		tcp dport 80 counter packets 1 bytes 60 drop
	}
}
table ip6 nat {
}
"""
WARNINGS = "# Warning: table ip nat is managed by iptables-nft, do not touch!\n"


def test_documents_follow_each_other() -> None:
    """One process answers several questions; what follows a word that is no JSON is left out."""
    assert list(facts.documents('[{"a": 1}]\n\n[ ]\n {}\nRTNETLINK answers\n[1]')) == [
        [{"a": 1}],
        [],
        {},
    ]
    assert list(facts.documents("")) == []


def test_tables_of_iptables_are_left_out() -> None:
    """By family and name: iptables-save shows them with its own words."""
    kept = facts.foreign_tables(RULESET, WARNINGS)
    assert kept.startswith("table inet guard {")
    assert "tcp dport 80 counter packets 1 bytes 60 drop" in kept
    assert "masquerade" not in kept
    assert kept.endswith("table ip6 nat {\n}\n")


def test_without_iptables_everything_is_kept() -> None:
    """No warning, no table left out."""
    assert facts.foreign_tables(RULESET, "") == RULESET


def test_counters_have_the_names_of_their_groups() -> None:
    """The format of ``/proc/net/snmp`` and ``/proc/net/netstat``."""
    text = (
        "TcpExt: SyncookiesSent IPReversePathFilter\nTcpExt: 0 3\n"
        "Ip: Forwarding OutNoRoutes\nIp: 1 -1\n"
    )
    assert facts.counters(text) == {
        "TcpExt.SyncookiesSent": 0,
        "TcpExt.IPReversePathFilter": 3,
        "Ip.Forwarding": 1,
        "Ip.OutNoRoutes": -1,
    }
    assert facts.counters("") == {}


def test_a_namespace_that_is_gone_has_problems_only() -> None:
    """Nothing raises: a deleted pod is part of the facts."""
    found = facts.read("/nowhere/netns")
    assert found.pop("problems") == ["/nowhere/netns: No such file or directory"]
    assert not any(found.values())
    assert {"links", "routes", "rules", "neighbours", "fdb", "iptables", "nft"} <= set(found)


class Tools:
    """A directory of tools that print what they are told to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for name in ("ip", "bridge", "tc", "nft", "iptables-save", "iptables-legacy-save"):
            self.prints(name, "")

    def prints(self, name: str, text: str, error: str = "", status: int = 0) -> None:
        """Let tool ``name`` read its input to the end, and print."""
        (self._directory / f"{name}.out").write_text(text)
        (self._directory / f"{name}.err").write_text(error)
        script = self._directory / name
        script.write_text(
            f'#!/bin/sh\necho "$0 $*" >> {self._directory}/calls\n'
            f"/bin/cat > $0.in\n/bin/cat $0.out\n/bin/cat $0.err >&2\nexit {status}\n"
        )
        script.chmod(0o755)

    def asked(self, name: str) -> str:
        """What tool ``name`` read."""
        return (self._directory / f"{name}.in").read_text()

    @property
    def calls(self) -> str:
        """Every command so far, one a line."""
        return (self._directory / "calls").read_text()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """Tools in place of the machine's own."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(facts, "PROC", str(tmp_path / "net"))
    monkeypatch.setattr(facts, "SYSCTLS", str(tmp_path / "sys"))
    return Tools(tmp_path)


def test_one_process_answers_all_questions_to_ip(tools: Tools) -> None:
    """In their order; links and addresses are one answer."""
    tools.prints("ip", '[{"ifname": "eth0"}]\n[{"dst": "default"}]\n[{"table": "main"}]\n[]\n')
    found = facts.read()
    assert tools.asked("ip") == "address\nroute show table all\nrule\nneigh\n"
    assert found["links"] == found["addresses"] == [{"ifname": "eth0"}]
    assert found["routes"] == [{"dst": "default"}]
    assert found["rules"] == [{"table": "main"}]
    assert found["neighbours"] == []
    assert found["problems"] == []


def test_a_tool_that_fails_is_told(tools: Tools, tmp_path: Path) -> None:
    """With its own words, beside what the others answered; so is one that is missing."""
    tools.prints("nft", "", "netlink: Error: Operation not permitted", 1)
    tools.prints("bridge", '[{"mac": "02:42:ac:14:00:04"}]')
    (tmp_path / "tc").unlink()
    found = facts.read()
    assert found["fdb"] == [{"mac": "02:42:ac:14:00:04"}]
    assert found["problems"] == [
        "qdiscs: No such file or directory",
        "nft: netlink: Error: Operation not permitted",
    ]


def test_filters_are_read_of_devices_that_can_have_any(tools: Tools) -> None:
    """Both ways of each, and only there: every device would be a process."""
    tools.prints("tc", '[{"kind": "clsact", "dev": "eth0"}, {"kind": "noqueue", "dev": "lo"}]')
    filters = facts.read()["filters"]
    assert filters.startswith("dev eth0 ingress\n")
    assert "dev eth0 egress\n" in filters
    assert "dev lo" not in tools.calls


def test_legacy_tables_are_read_where_there_are_any(tools: Tools, tmp_path: Path) -> None:
    """The kernel names them."""
    tools.prints("iptables-legacy-save", "*filter\n")
    assert facts.read()["iptables_legacy"] == ""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "ip_tables_names").write_text("filter\n")
    assert facts.read()["iptables_legacy"] == "*filter\n"


def test_virtual_servers_are_read_where_there_are_any(tools: Tools, tmp_path: Path) -> None:
    """The kernel's own list only says whether: it is not whole when it is long."""
    server = "-A -t 10.96.0.10:80 -s rr\n"
    tools.prints("ipvsadm", server)
    header = "IP Virtual Server\nProt LocalAddress:Port\n  -> RemoteAddress:Port\n"
    (tmp_path / "net").mkdir()
    for listing, said in (("", ""), (header, ""), (f"{header}TCP  0A60000A:0050 rr\n", server)):
        (tmp_path / "net" / "ip_vs").write_text(listing)
        assert facts.read()["ipvs"] == said


def test_sysctls_of_every_interface(tools: Tools, tmp_path: Path) -> None:
    """Named as sysctl(8) does, with a slash for the dot in an interface's name."""
    for path, value in (("all", "2"), ("flannel.1", "1")):
        (tmp_path / "sys/net/ipv4/conf" / path).mkdir(parents=True)
        (tmp_path / "sys/net/ipv4/conf" / path / "rp_filter").write_text(f"{value}\n")
    (tmp_path / "sys/net/ipv4/ip_forward").write_text("1\n")
    assert facts.read()["sysctls"] == {
        "net.ipv4.ip_forward": "1",
        "net.ipv4.conf.all.rp_filter": "2",
        "net.ipv4.conf.flannel/1.rp_filter": "1",
    }


def test_ebtables_rules_are_kept() -> None:
    """iptables-save does not show them."""
    table = "table bridge filter {\n\tchain FORWARD {\n\t}\n}\n"
    warning = "# Warning: table bridge filter is managed by iptables-nft, do not touch!\n"
    assert facts.foreign_tables(table, warning) == table
