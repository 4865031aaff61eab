"""The calico CNI plugin in this process: what it refuses, asks IPAM and logs."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from testbed.agent import calico_cni, calico_workload
from testbed.agent.calico_cni import host_veth, main
from tests.unit.agent.calico_node import CONFIG, ROOT
from tests.unit.agent.fakes import FakePlugins


class Plugin:
    """Runs the plugin in this process, with an IPAM plugin that is a shell script."""

    def __init__(self, plugins: FakePlugins, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plugins = plugins
        self.nodename = place / "nodename"
        self.nodename.write_text("node1")
        self.mtu = place / "mtu"
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(calico_cni, "NODENAME", str(self.nodename))
        monkeypatch.setattr(calico_workload, "NODENAME", str(self.nodename))
        monkeypatch.setattr(calico_cni, "MTU", str(self.mtu))
        monkeypatch.setattr(calico_cni, "ENDPOINTS", str(place / "endpoints"))
        monkeypatch.setattr(sys, "argv", ["calico"])

    def run(self, command: str, config: dict[str, Any] = CONFIG, **environment: str) -> int:
        """One call."""
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": "/gone",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.plugins.directory),
            "CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1",
            **environment,
        }
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        stdin = io.TextIOWrapper(io.BytesIO(json.dumps(config).encode()))
        self._monkeypatch.setattr(sys, "stdin", stdin)
        return main()


@pytest.fixture
def plugin(plugins: FakePlugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """The plugin with an IPAM plugin that has an address."""
    plugins.add("calico-ipam", '{"cniVersion": "0.3.1", "ips": [{"address": "10.65.0.1/26"}]}')
    return Plugin(plugins, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("config", "environment", "code", "msg"),
    [
        ({**CONFIG, "ipam": {}}, {}, 7, "ipam.type is missing or no text"),
        ({**CONFIG, "ipam": []}, {}, 7, "ipam.type is missing or no text"),
        ({**CONFIG, "cniVersion": "1.1.0"}, {}, 1, "incompatible CNI versions"),
        (CONFIG, {"CNI_NETNS": "/gone"}, 999,
         'failed to Statfs "/gone": no such file or directory'),
        (CONFIG, {"CNI_NETNS": "/etc/passwd"}, 999,
         'failed to open netns "/etc/passwd": unknown FS magic on "/etc/passwd"'),
        (CONFIG, {"CNI_ARGS": "x"}, 999, 'ARGS: invalid pair "x"'),
        (CONFIG, {"CNI_IFNAME": ""}, 4, "required env variables [CNI_IFNAME] missing"),
    ],
)  # fmt: skip
def test_refusals(
    plugin: Plugin,
    capfd: pytest.CaptureFixture[str],
    config: dict[str, Any],
    environment: dict[str, str],
    code: int,
    msg: str,
) -> None:
    """Code and message, before IPAM is asked."""
    assert plugin.run("ADD", config, **environment) == 1
    answer = json.loads(capfd.readouterr().out)
    assert (answer["code"], answer["msg"]) == (code, msg)
    assert plugin.plugins.calls == []


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_without_calico_node(
    plugin: Plugin, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    """Upstream's hint; the file's name and whether it matters may be configured."""
    plugin.nodename.unlink()
    assert plugin.run(command) == 1
    assert json.loads(capfd.readouterr().out)["msg"] == (
        f"stat {plugin.nodename}: no such file or directory: check that the calico/node container "
        "is running and has mounted /var/lib/calico/"
    )
    assert plugin.plugins.calls == []
    assert plugin.run("DEL", {**CONFIG, "nodename_file_optional": True}) == 0
    assert plugin.run("DEL", {**CONFIG, "nodename_file": str(plugin.plugins.directory)}) == 0


def test_the_nodes_name(plugin: Plugin, capfd: pytest.CaptureFixture[str]) -> None:
    """The configuration's, else the file's, which ends every line of the log."""
    for config in (CONFIG, {**CONFIG, "nodename": ""}):
        plugin.nodename.write_text("node-2")
        plugin.run("DEL", config)
    first, second = [line for line in capfd.readouterr().err.splitlines() if "Teardown" in line]
    assert first.endswith('Pod="web-1" WorkloadEndpoint="node1-k8s-web--1-eth0"')
    assert second.endswith('WorkloadEndpoint="node--2-k8s-web--1-eth0"')


def test_a_malformed_mtu(plugin: Plugin, capfd: pytest.CaptureFixture[str]) -> None:
    """Is an error even if the configuration has another."""
    plugin.mtu.write_text("large")
    assert plugin.run("ADD") == 1
    assert json.loads(capfd.readouterr().out)["msg"] == (
        'failed to read MTU file: strconv.Atoi: parsing "large": invalid syntax'
    )


def test_ipam_gets_the_configuration_and_arguments_that_it_may_ignore(plugin: Plugin) -> None:
    """As the runtime gave it, whatever there is to be deleted."""
    assert plugin.run("DEL", CNI_NETNS="") == 0
    assert plugin.plugins.calls == ["DEL calico-ipam"]
    assert json.loads(plugin.plugins.lines("configs")[0]) == CONFIG
    assert os.environ["CNI_ARGS"].startswith("IgnoreUnknown=1;K8S_POD_NAMESPACE=")


def test_an_error_of_ipam_is_passed_on(plugin: Plugin, capfd: pytest.CaptureFixture[str]) -> None:
    """Code, message and details."""
    error = {"code": 11, "msg": "try again", "details": "x"}
    plugin.plugins.fail("calico-ipam", "DEL", json.dumps(error))
    assert plugin.run("DEL") == 1
    out, err = capfd.readouterr()
    assert json.loads(out) == error
    assert 'Final result of CNI DEL was an error. ContainerID="c1" error="try again"' in err


@pytest.mark.parametrize("name", ["calico", "calico-ipam"])
def test_the_image_s_executables(name: str) -> None:
    """Start the interpreter without anything that is not needed, and the module of their name."""
    path = ROOT / "images" / "node" / name
    module = {"calico": "calico_cni", "calico-ipam": "calico_ipam"}[name]
    text = path.read_text()
    assert text.startswith("#!/usr/bin/python3 -IS\n")
    assert f"from agent.{module} import main" in text
    assert path.stat().st_mode & 0o111 == 0o111


def test_the_name_of_a_veth() -> None:
    """SHA-1 of namespace and name: the example of libcalico-go's own test."""
    assert host_veth("namespace", "podname") == "cali82111e10a96"
    assert len(host_veth("kube-system", "coredns-abc")) == 15
