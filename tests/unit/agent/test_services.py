"""Services of a node: a delta, everything, what is kept, and what puts it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from testbed.agent import client, kept_services, reconcile, rules, service_rules, services
from testbed.agent.command import Completed
from testbed.agent.errors import AgentError, CommandError
from testbed.agent.service_document import check
from testbed.agent.shelf import Shelf
from tests.unit.agent.kernel_rules import Kernel

JUMP = "-I OUTPUT -m comment --comment portals -j KUBE-SERVICES"
STATIC = {
    "name": "kube-proxy",
    "tool": "iptables-restore",
    "content": "*mangle\n:KUBE-PROXY-CANARY - [0:0]\nCOMMIT\n"
    f"*nat\n:KUBE-SERVICES - [0:0]\n{JUMP}\nCOMMIT\n",
}
CNI = {
    "name": "cni",
    "tool": "iptables-restore",
    "content": "*nat\n:CNI - [0:0]\n-A OUTPUT -j CNI\nCOMMIT\n",
}


def dispatch(*names: str) -> dict[str, Any]:
    """The shared unit of Services with these names."""
    jumps = "".join(f"-A KUBE-SERVICES -d {name} -j KUBE-SVC-{name}\n" for name in names)
    text = STATIC["content"].replace(JUMP + "\n", jumps + JUMP + "\n")
    return {"iptables": text}


def service(name: str, *endpoints: str) -> dict[str, Any]:
    """The unit of one Service."""
    chains = [f"KUBE-SEP-{name}-{endpoint}" for endpoint in endpoints]
    declared = "".join(f":{each} - [0:0]\n" for each in chains)
    jumps = "".join(f"-A KUBE-SVC-{name} -j {each}\n" for each in chains)
    dnat = "".join(f"-A {each} -j DNAT\n" for each in chains)
    return {"iptables": f"*nat\n:KUBE-SVC-{name} - [0:0]\n{declared}{jumps}{dnat}COMMIT\n"}


def document(units: dict[str, Any], base: str | None, generation: str, **more: Any) -> Any:
    """A checked document whose inputs are the names of its units."""
    inputs = {key: unit and {"of": key} for key, unit in units.items() if key}
    names = {"units": units, "base": base, "generation": generation, "inputs": inputs}
    return check({"mode": "iptables", "serial": int(generation[1:]), **names, **more})


FIRST = {"": dispatch("a", "b"), "d/a": service("a", "1", "2"), "d/b": service("b", "1")}


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A node without Services, whose spec's static rules are applied."""
    fake = Kernel()
    monkeypatch.setattr(kept_services, "DIRECTORY", str(tmp_path / "kept"))
    monkeypatch.setattr(kept_services, "LOCK", str(tmp_path / "run" / "lock"))
    monkeypatch.setattr(service_rules, "NATIVE", str(tmp_path / "native"))
    monkeypatch.setattr(rules, "run", fake.run)
    monkeypatch.setattr(rules, "lines", fake.lines)
    for module in (kept_services, services):
        monkeypatch.setattr(module, "execute", fake.execute)

    def agent(argv: tuple[str, ...]) -> bytes:
        fake.ran.append(list(argv))
        {"--restore": services.restore, "--forget": services.forget}[argv[-1]]()
        return b""

    monkeypatch.setattr(kept_services, "run", agent)
    sync([STATIC, CNI])
    fake.fed.clear()
    return fake


def kept(name: str) -> dict[str, Any]:
    """What the node keeps by Service."""
    return Shelf(f"{kept_services.DIRECTORY}/{name}").all()


def sync(
    rulesets: list[dict[str, Any]],
    before: list[dict[str, Any]] | None = None,
    booting: bool = False,
) -> list[str]:
    """What PID 1 does with the rulesets of a spec."""
    spec = {"files": [], "objects": [], "sysctls": {}, "rulesets": rulesets}
    return reconcile.reconcile(spec, {"rulesets": before or []}, booting=booting)


def test_the_first_document_is_one_transaction(kernel: Kernel) -> None:
    """And what was fed is there to be read; the answer has its lines."""
    answer = services.apply(document(FIRST, None, "g1"))
    assert answer["ok"] is True
    assert "-A KUBE-SVC-a -j KUBE-SEP-a-1" in answer["changes"]
    assert len(kernel.fed) == 1
    assert Path(service_rules.NATIVE, "iptables").read_text() == kernel.fed[0]
    assert kernel.tables["nat"]["KUBE-SEP-b-1"] == ["-A KUBE-SEP-b-1 -j DNAT"]
    assert kept_services.read("state")["generation"] == "g1"
    assert services.apply(document(FIRST, None, "g1"))["changes"] == []


def test_chains_are_declared_in_descending_order(kernel: Kernel) -> None:
    """In any other, iptables-nft takes four times as long for thousands."""
    services.apply(document(FIRST, None, "g1"))
    declared = [line for line in kernel.fed[0].splitlines() if line.startswith(":")]
    assert declared == sorted(declared, reverse=True)


def test_a_delta_feeds_what_differs(kernel: Kernel) -> None:
    """Without reading the kernel; chains that go, go at the end of the same transaction."""
    services.apply(document(FIRST, None, "g1"))
    kernel.fed.clear()
    kernel.saved = 0
    delta = {"": dispatch("a", "b"), "d/a": service("a", "2")}
    services.apply(document(delta, "g1", "g2"))
    assert kernel.saved == 0
    assert kernel.fed == [
        "*nat\n:KUBE-SVC-a - [0:0]\n-A KUBE-SVC-a -j KUBE-SEP-a-2\n-F KUBE-SEP-a-1\n"
        "-X KUBE-SEP-a-1\nCOMMIT\n"
    ]
    assert kept("inputs") == {"d/a": {"of": "d/a"}, "d/b": {"of": "d/b"}}


def test_a_service_that_is_gone_leaves_nothing(kernel: Kernel) -> None:
    """Neither chains nor what is kept of it."""
    services.apply(document(FIRST, None, "g1"))
    services.apply(document({"": dispatch("b"), "d/a": None}, "g1", "g2"))
    assert not [name for name in kernel.tables["nat"] if name.endswith(("-a", "-a-1", "-a-2"))]
    assert set(kept("units")) == {"", "d/b"}
    assert set(kept("inputs")) == {"d/b"}


@pytest.mark.parametrize(("base", "mode"), [("g0", "iptables"), ("g1", "ipvs")])
def test_a_delta_on_something_else_is_stale(kernel: Kernel, base: str, mode: str) -> None:
    """Nothing is touched; the answer says what the node has."""
    services.apply(document(FIRST, None, "g1"))
    kernel.fed.clear()
    answer = services.apply(document({"d/a": None}, base, "g2", mode=mode))
    assert answer == {"ok": False, "stale": "g1"}
    assert kernel.fed == []


def test_a_refused_document_leaves_no_generation(kernel: Kernel) -> None:
    """The kernel is as it was; whoever comes next must tell everything."""
    services.apply(document(FIRST, None, "g1"))
    before = kernel.tables
    broken = {
        "d/a": {"iptables": "*nat\n:KUBE-SVC-a - [0:0]\n-A KUBE-SVC-a -j KUBE-NONE\nCOMMIT\n"}
    }
    with pytest.raises(AgentError) as error:
        services.apply(document(broken, "g1", "g2"))
    assert error.value.where == "-A KUBE-SVC-a -j KUBE-NONE"
    assert kernel.tables == before
    assert services.apply(document({}, "g1", "g2")) == {"ok": False, "stale": ""}
    assert services.apply(document(FIRST, None, "g1"))["ok"] is True


def test_verifying_puts_right_what_somebody_changed(kernel: Kernel) -> None:
    """Also chains of kube-proxy's that nobody wants."""
    services.apply(document(FIRST, None, "g1"))
    kernel.tables["nat"]["KUBE-SEP-b-1"] = []
    kernel.tables["nat"]["KUBE-SVC-stray"] = ["-A KUBE-SVC-stray -j ACCEPT"]
    assert services.apply(document({}, "g1", "g1"))["changes"] == []
    services.apply(document({}, "g1", "g1", verify=True))
    assert kernel.tables["nat"]["KUBE-SEP-b-1"] == ["-A KUBE-SEP-b-1 -j DNAT"]
    assert "KUBE-SVC-stray" not in kernel.tables["nat"]


def test_a_lost_canary_means_everything(kernel: Kernel) -> None:
    """Somebody has flushed the tables: a delta is not enough."""
    services.apply(document(FIRST, None, "g1"))
    kernel.tables = Kernel().tables
    services.apply(document({"d/a": service("a", "3")}, "g1", "g2"))
    assert {"KUBE-SEP-a-3", "KUBE-SEP-b-1"} <= set(kernel.tables["nat"])
    assert kernel.tables["nat"]["OUTPUT"] == [f"-A{JUMP[2:]}"]


def test_a_delta_that_the_kernel_refuses_becomes_everything(kernel: Kernel) -> None:
    """As kube-proxy does when a partial sync fails."""
    services.apply(document(FIRST, None, "g1"))
    del kernel.tables["nat"]["KUBE-SEP-a-2"]
    kernel.tables["nat"]["KUBE-SVC-a"] = []
    services.apply(document({"d/a": service("a", "1")}, "g1", "g2"))
    assert kernel.tables["nat"]["KUBE-SVC-a"] == ["-A KUBE-SVC-a -j KUBE-SEP-a-1"]


def test_a_sync_of_the_node_leaves_services_alone(kernel: Kernel) -> None:
    """What is kept stands in for the static rules, in which there is no Service."""
    services.apply(document(FIRST, None, "g1"))
    before = kernel.tables
    assert sync([STATIC, CNI], [STATIC, CNI]) == []
    assert kernel.tables == before


def test_a_boot_restores_services(kernel: Kernel) -> None:
    """Before the rules that name their chains; the order of jumps is the same again."""
    services.apply(document(FIRST, None, "g1"))
    before = kernel.tables
    kernel.tables = Kernel().tables
    sync([STATIC, CNI], [STATIC, CNI], booting=True)
    assert {name: set(chains) for name, chains in kernel.tables.items()} == {
        name: set(chains) for name, chains in before.items()
    }
    assert kernel.tables["nat"]["OUTPUT"] == before["nat"]["OUTPUT"]
    assert kernel.ran == [["testbed-agent", "services", "--restore"]]


def test_a_sync_restores_what_was_flushed(kernel: Kernel) -> None:
    """It would otherwise name chains that are not there."""
    services.apply(document(FIRST, None, "g1"))
    kernel.tables = Kernel().tables
    sync([STATIC, CNI], [STATIC, CNI])
    assert "KUBE-SEP-b-1" in kernel.tables["nat"]


def test_another_mode_leaves_nothing_of_the_old_one(kernel: Kernel) -> None:
    """The spec's rulesets say which mode it is."""
    services.apply(document(FIRST, None, "g1"))
    assert sync([CNI], [STATIC, CNI])[0] == "remove the Services of mode iptables"
    assert [name for name in kernel.tables["nat"] if name.startswith("KUBE")] == []
    assert kernel.tables["nat"]["OUTPUT"] == ["-A OUTPUT -j CNI"]
    assert kept_services.read("state") == {}


def test_files_come_and_go(kernel: Kernel, tmp_path: Path) -> None:
    """Processes are kept for PID 1."""
    path = tmp_path / "etc" / "announce.conf"
    file = {"path": str(path), "content": "x", "mode": 0o644}
    process = {"name": "announcer", "argv": ["announce"]}
    services.apply(document(FIRST, None, "g1", files=[file], processes=[process]))
    assert path.read_text() == "x"
    assert kept_services.processes() == [{**process, "reload": [], "files": []}]
    services.apply(document({}, "g1", "g2"))
    assert not path.exists()
    assert kept_services.processes() == []


DELETION = ["-D", "-p", "udp", "--orig-dst", "10.96.0.10", "--dst-nat", "10.244.0.9"]
LISTED = """\
udp      17 29 src=10.244.0.2 dst=10.96.0.10 sport=5353 dport=53 src=10.244.0.9 dst=10.244.0.2 \
sport=53 dport=5353 mark=0 use=1
udp      17 29 src=10.244.0.2 dst=10.96.0.77 sport=5353 dport=53 src=10.244.0.8 dst=10.244.0.2 \
sport=53 dport=5353 [ASSURED] mark=0 use=1
"""


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of UDP."""
    monkeypatch.setattr(services, "run", lambda _: LISTED.encode())


@pytest.mark.usefixtures("connections")
def test_connections_are_deleted_after_the_rules(kernel: Kernel) -> None:
    """Those that are there; an error leaves no generation."""
    kernel.answers["conntrack"] = Completed(0, b"", b"1 flow entries have been deleted.\n")
    others = [["-D", "-p", "udp", "--orig-dst", "10.96.0.11"], [*DELETION[:-1], "10.244.0.8"]]
    answer = services.apply(document(FIRST, None, "g1", conntrack=[*others, DELETION]))
    deleted = [each for each in answer["changes"] if each.startswith("conntrack")]
    assert deleted == [" ".join(["conntrack", *DELETION])]
    kernel.answers["conntrack"] = Completed(1, b"", b"0 flow entries have been deleted.\n")
    assert services.apply(document({}, "g1", "g2", conntrack=[DELETION]))["changes"] == []
    kernel.answers["conntrack"] = Completed(2, b"", b"no netlink\n")
    with pytest.raises(CommandError, match="no netlink"):
        services.apply(document({}, "g2", "g3", conntrack=[DELETION]))
    assert kept_services.read("state")["generation"] == ""
    assert kept_services.read("state")["serial"] == 2


@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize(
    "selection",
    [["--orig-dst", "10.96.0.77"], ["--dport", "53"], ["--dport", "53", "--dst-nat", "10.244.0.8"]],
)
def test_what_selects_connections(kernel: Kernel, selection: list[str]) -> None:
    """The address and port that a client asked for, and who was to answer."""
    deletion = ["-D", "-p", "udp", *selection]
    kernel.answers["conntrack"] = Completed(0, b"", b"")
    assert services.apply(document({}, None, "g1", conntrack=[deletion]))["changes"]


def test_pid_1_is_told_of_processes(
    kernel: Kernel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its changes are part of the answer, which is one line."""
    asked: list[dict[str, Any]] = []

    def request(message: dict[str, Any], _: object) -> dict[str, Any]:
        asked.append(message)
        return {"ok": True, "changes": ["start process announcer"]}

    monkeypatch.setattr(client, "request", request)
    path = tmp_path / "document.json"
    path.write_text(json.dumps(document({}, None, "g1")))
    assert services.main([str(path)]) == 0
    assert asked == [{"command": "services"}]
    assert capsys.readouterr().out == '{"ok":true,"changes":["start process announcer"]}\n'
    assert not path.exists()
