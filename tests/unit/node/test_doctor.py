"""The diagnosis: what is known without an engine, and a verdict for every ability."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testbed.dataplane.features import KERNEL_FLAGS, Features
from testbed.node import doctor, verdicts
from testbed.node.host import Completed
from testbed.plan import cni, cnis
from testbed.topology.load import load
from testbed.topology.model import Backend

if TYPE_CHECKING:
    from tests.unit.node.conftest import FakeHost

CLUSTER = load(Path(__file__).parents[3] / "compose" / "flannel.yaml", cnis=cnis())
HERE = replace(Features.full(), kernel_release="6.1.0-test")


def lacking(*names: str, **reasons: str) -> Features:
    """Everything but ``names``."""
    values = {**dict.fromkeys(names, False)}
    return replace(HERE, reasons=reasons, **values)  # type: ignore[arg-type]  # names of flags


def verdict(features: Features, ability: str, has_modules: bool | None = True) -> verdicts.Verdict:
    """One ability's verdict."""
    found = verdicts.verdicts(features, "", has_modules)
    return next(each for each in found if each.feature == ability)


def test_everything_works_where_nothing_is_missing() -> None:
    """A full kernel has no other verdict than ok."""
    assert {each.state for each in verdicts.verdicts(HERE, "", has_modules=True)} == {"ok"}


def test_a_missing_driver_is_named_with_its_remedy() -> None:
    """Which option, which words of the kernel, which module."""
    features = lacking("vxlan", vxlan="Unknown device type.")
    assert verdict(features, "flannel vxlan") == verdicts.Verdict(
        "flannel vxlan",
        "missing",
        "kernel 6.1.0-test has no vxlan (CONFIG_VXLAN): Unknown device type.",
        "On the Docker host: `modprobe -a vxlan`; if it does not find them, install "
        "linux-modules-extra-6.1.0-test (Ubuntu), or another kernel.",
    )
    assert verdict(features, "flannel host-gw").state == "ok"


def test_a_kernel_without_modules_must_be_replaced() -> None:
    """There is nothing to load."""
    found = verdict(lacking("ifb", "tbf"), "bandwidth", has_modules=False)
    assert found.remedy.startswith("This kernel has no loadable modules")
    assert "CONFIG_IFB, CONFIG_NET_SCH_TBF" in found.remedy


def test_the_capability_set_is_degraded_not_missing() -> None:
    """Nodes work with it; the engine's words say why it is used."""
    features = lacking("privileged", privileged="unable to apply caps")
    found = verdict(features, "privileged nodes")
    assert found.state == "degraded"
    assert "(unable to apply caps); nodes get NET_ADMIN, NET_RAW, SYS_ADMIN" in found.reason


@pytest.mark.parametrize("ability", ["calico ipip", "flannel ipip"])
def test_ebpf_stands_for_the_ipip_driver(ability: str) -> None:
    """It works, another way; the kernel's words are told once."""
    features = lacking("ipip", ipip="Unknown device type.")
    assert verdict(features, "ipip driver").state == "degraded"
    assert verdict(features, "ipip driver").reason == (
        "by eBPF programs: kernel 6.1.0-test has no ipip (CONFIG_NET_IPIP): Unknown device type."
    )
    found = verdict(features, ability)
    assert found.state == "degraded"
    assert found.reason == "by eBPF programs, as the kernel has no ipip driver"
    assert found.remedy == verdict(features, "ipip driver").remedy
    assert verdict(features, "calico vxlan").state == "ok"


def test_without_any_ipip_driver_both_reasons_are_told() -> None:
    """The remedy is the kernel's own driver."""
    features = lacking("ipip", "ipip_ebpf", ipip="Unknown device type.", ipip_ebpf="no clsact")
    for ability in ("ipip driver", "calico ipip", "flannel ipip"):
        found = verdict(features, ability)
        assert found.state == "missing"
        assert "(CONFIG_NET_IPIP): Unknown device type.; no ipip_ebpf: no clsact" in found.reason
        assert found.remedy.startswith("On the Docker host: `modprobe -a ipip`")
    without_tunnel = verdict(lacking("ipset", "ipip", "ipip_ebpf"), "calico none")
    assert "no ipset" in without_tunnel.reason
    assert "ipip" not in without_tunnel.reason


def test_what_a_cni_requires_is_among_its_needs() -> None:
    """No verdict says ok where ``up`` would refuse; every backend has a row."""
    for name, traits in cnis().items():
        for backend in traits.backends:
            ability = f"{name} {backend}" if len(traits.backends) > 1 else name
            cluster = replace(CLUSTER, cni=name, backend=Backend(backend), ipip="kernel")
            assert cni(name).requires(cluster) <= {*verdicts.NEEDS[ability].split()}


def test_every_need_is_a_flag() -> None:
    """The tables name no feature that is never probed."""
    wanted = {name for needs in verdicts.NEEDS.values() for name in needs.split()}
    assert wanted <= set(KERNEL_FLAGS)
    assert set(verdicts.DRIVERS) <= set(KERNEL_FLAGS)
    assert {*verdicts.SUBSTITUTES, *verdicts.SUBSTITUTES.values()} <= set(KERNEL_FLAGS)


def test_without_an_engine_the_machine_is_still_described(machine: FakeHost) -> None:
    """Kernel, iptables backend and tools need no engine; every verdict says what to do first."""
    machine.programs |= {"iptables", "tshark"}
    machine.answers["iptables"] = Completed(0, "iptables v1.8.9 (nf_tables)\n")
    machine.answers["/usr/bin/tshark"] = Completed(0, "TShark (Wireshark) 4.0.17.\n")
    found = doctor.examine(None, machine)
    assert found.problem == "no Docker engine answers.\nRun `testbed setup`."
    assert (found.engine, found.kernel, found.privileges) == (None, {}, "")
    assert found.kernel_release == "6.1.0-test"
    assert found.iptables == {"host": "nf_tables", "node": ""}
    assert doctor.Tool("tshark", "/usr/bin/tshark", "4.0.17") in found.tools
    assert doctor.Tool("docker", "", "") in found.tools
    assert {(each.state, each.remedy) for each in found.verdicts} == {
        ("missing", "Run `testbed setup`.")
    }
    assert not found.ok


def test_why_there_is_no_engine_can_be_told(machine: FakeHost) -> None:
    """The words of ``connect`` become the reason."""
    found = doctor.examine(None, machine, problem="user x may not use it.\nRun `sudo usermod`.")
    assert found.verdicts[0].reason == "user x may not use it."
    assert found.verdicts[0].remedy == "Run `sudo usermod`."


def test_json_has_stable_keys(machine: FakeHost) -> None:
    """What ``testbed doctor -o json`` prints can be relied on."""
    value = doctor.examine(None, machine).to_json()
    assert json.loads(json.dumps(value)) == json.loads(json.dumps(value, sort_keys=True))
    assert list(value) == [
        "ok",
        "problem",
        "engine",
        "image",
        "privileges",
        "kernel_release",
        "kernel",
        "reasons",
        "iptables",
        "tools",
        "verdicts",
    ]
    assert list(value["verdicts"][0]) == ["feature", "state", "reason", "remedy"]
