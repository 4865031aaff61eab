"""``testbed service``: its arguments, its exit codes, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from testbed import existing
from testbed.cli.main import main
from testbed.node import container, engine
from tests.unit.verify.service.services import EMPTY, GOLDEN, LOCAL, WEB

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The exit code of ``testbed service WORDS`` where a node has the rules of the golden file."""
    nodes = [SimpleNamespace(name=name) for name in ("node1", "node2")]
    cluster = SimpleNamespace(proxy="iptables", nodes=nodes)
    saved = (GOLDEN / "iptables-save.txt").read_bytes()
    monkeypatch.setattr(engine, "connect", lambda: None)
    monkeypatch.setattr(existing, "choose", lambda _client, name: name or "flannel")
    monkeypatch.setattr(existing, "cluster_of", lambda _client, _name: cluster)
    services = {"services": [EMPTY, LOCAL, WEB]}
    monkeypatch.setattr(existing, "status", lambda _client, _name: services)

    def answer(_client: object, name: str, argv: list[str]) -> tuple[int, bytes, bytes]:
        assert argv == ["iptables-save", "-c"]
        return (0, saved, b"") if name == "flannel-node1" else (1, b"", b"no such table")

    monkeypatch.setattr(container, "run", answer)

    def call(*words: str) -> int:
        with pytest.raises(SystemExit) as caught:
            main(["service", *words])
        return int(caught.value.code or 0)

    return call


def test_services_are_listed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """As kubectl does, with endpoints and policies."""
    assert run() == 0
    head, empty, local, web = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["NAMESPACE", "SERVICE", "TYPE", "CLUSTER"]
    assert empty.split()[-2:] == ["0/0", "-"]
    assert "external Local,affinity 10800 s" in local
    assert "198.51.100.7,192.0.2.10   80:30080/TCP   3/3" in web


def test_chains_of_one_are_shown(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """On the first node."""
    assert run("ns1/web") == 0
    shown = capsys.readouterr().out
    assert "service ns1/web on node node1, kube-proxy in mode iptables" in shown
    assert "balance: 1 of 3 at random" in shown


def test_json_has_chains_and_shares(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The same facts with stable keys."""
    assert run("ns1/web", "-o", "json") == 0
    value = json.loads(capsys.readouterr().out)
    shares = [
        rule["share"] for chain in value["chains"] for rule in chain["rules"] if rule["share"]
    ]
    assert shares == [0.333333] * 3
    assert value["service"]["cluster_ip"] == "10.96.0.41"


def test_unknown_names_are_wrong_usage(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The message lists the Services, or the nodes, that there are."""
    assert run("web") == 2
    assert "ns1/empty, ns1/local, ns1/web" in capsys.readouterr().err
    assert run("ns1/web", "--node", "node9") == 2
    assert "node1, node2" in capsys.readouterr().err


def test_what_a_node_refuses_is_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """With its tool's own words."""
    assert run("ns1/web", "--node", "node2") != 0
    assert "no such table" in capsys.readouterr().err


def test_drawings_are_written(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To files, or, instead of the text, to standard output."""
    assert run("ns1/web", "--svg", str(tmp_path / "a.svg"), "--dot", str(tmp_path / "a.dot")) == 0
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert (tmp_path / "a.dot").read_text().startswith("digraph")
    capsys.readouterr()
    assert run("ns1/web", "--dot", "-") == 0
    assert capsys.readouterr().out.startswith("digraph")


def test_all_problems_are_told_at_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the testbed is asked."""
    assert run("--dot", "/nowhere/a.dot", "--svg", "", "--node", "node1") == 2
    told = capsys.readouterr().err
    assert all(word in told for word in ("/nowhere", "--svg is empty", "--node:"))
