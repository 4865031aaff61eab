"""The flannel CNI plugin, with a bridge that is a shell script."""

from __future__ import annotations

import io
import json
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from testbed.agent.cni_skeleton import CniPluginError
from testbed.agent.flannel_cni import build_delegate, main, subnet_environment
from tests.unit.agent.fakes import FakePlugins

ENVIRONMENT = {
    "networks": ["10.244.0.0/16"],
    "subnets": ["10.244.1.0/24"],
    "mtu": 1450,
    "masquerade": True,
}
SUBNET_ENV = """\
FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""
CONFIG = {"name": "cbr0", "cniVersion": "0.3.1", "type": "flannel"}


class Plugin:
    """Runs the plugin in this process."""

    def __init__(self, plugins: FakePlugins, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plugins = plugins
        self.data = place / "data"
        self.subnet = place / "subnet.env"
        self.subnet.write_text(SUBNET_ENV)
        self._monkeypatch = monkeypatch

    def run(self, command: str, config: object = CONFIG, **environment: str) -> int:
        """One call; configurations get this test's files."""
        if isinstance(config, dict):
            config = {"subnetFile": str(self.subnet), "dataDir": str(self.data), **config}
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c0ffee",
            "CNI_NETNS": "/netns",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.plugins.directory),
            **environment,
        }
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        stdin = config if isinstance(config, str) else json.dumps(config)
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        return main()


@pytest.fixture
def plugin(plugins: FakePlugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """The plugin with a working bridge."""
    plugins.add("bridge", '{"cniVersion": "0.3.1"}')
    return Plugin(plugins, tmp_path, monkeypatch)


def test_add_delegates_to_bridge(plugin: Plugin, capfd: pytest.CaptureFixture[str]) -> None:
    """The delegate's configuration, its result, the saved file and the dump on stderr."""
    delegate = {"hairpinMode": True, "isDefaultGateway": True}
    assert plugin.run("ADD", {**CONFIG, "delegate": delegate}) == 0
    sent = plugin.plugins.lines("configs")[0]
    assert json.loads(sent) == {
        "cniVersion": "0.3.1",
        "hairpinMode": True,
        "ipMasq": False,
        "ipam": {
            "ranges": [[{"subnet": "10.244.1.0/24"}]],
            "routes": [{"dst": "10.244.0.0/16"}],
            "type": "host-local",
        },
        "isDefaultGateway": True,
        "isGateway": True,
        "mtu": 1450,
        "name": "cbr0",
        "type": "bridge",
    }
    saved = plugin.data / "c0ffee"
    assert saved.read_text() == sent
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert stat.S_IMODE(plugin.data.stat().st_mode) == 0o700
    out, err = capfd.readouterr()
    assert json.loads(out) == {"cniVersion": "0.3.1"}
    assert err == f"delegateAdd: netconf sent to delegate plugin:\n{sent}\n"


def test_delete_uses_and_removes_the_saved_file(plugin: Plugin) -> None:
    """DEL gives the delegate what ADD gave it; a second DEL is a success."""
    plugin.run("ADD")
    assert plugin.run("DEL", CNI_NETNS="") == 0
    assert plugin.plugins.calls == ["ADD bridge", "DEL bridge"]
    assert plugin.plugins.lines("configs")[0] == plugin.plugins.lines("configs")[1]
    assert not (plugin.data / "c0ffee").exists()
    assert plugin.run("DEL") == 0
    assert len(plugin.plugins.calls) == 2


def test_delete_removes_the_file_even_if_the_delegate_fails(
    plugin: Plugin, capfd: pytest.CaptureFixture[str]
) -> None:
    """As upstream does; the delegate's own error is reported."""
    plugin.run("ADD")
    plugin.plugins.fail("bridge", "DEL", '{"code": 7, "msg": "no"}')
    capfd.readouterr()
    assert plugin.run("DEL") == 1
    assert json.loads(capfd.readouterr().out) == {"code": 7, "msg": "no"}
    assert not (plugin.data / "c0ffee").exists()


def test_a_spoilt_saved_file_is_kept_and_ignored(plugin: Plugin) -> None:
    """Upstream says so on stderr and succeeds."""
    plugin.data.mkdir()
    (plugin.data / "c0ffee").write_text("{")
    assert plugin.run("DEL") == 0
    assert (plugin.data / "c0ffee").exists()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            '{"code": 11, "msg": "try again", "details": "x"}',
            {"code": 11, "msg": "try again", "details": "x"},
        ),
        (
            "",
            {
                "code": 999,
                "msg": "failed to delegate add: netplugin failed with no error message: "
                "exit status 1",
            },
        ),
        (
            "oops",
            {
                "code": 999,
                "msg": "failed to delegate add: netplugin failed but error parsing its "
                "diagnostic message 'oops'",
            },
        ),
    ],
)
def test_the_delegates_error_is_passed_on(
    plugin: Plugin, capfd: pytest.CaptureFixture[str], answer: str, expected: dict[str, Any]
) -> None:
    """Its code, message and details, or what can be said without them."""
    plugin.plugins.fail("bridge", "ADD", answer)
    assert plugin.run("ADD") == 1
    assert json.loads(capfd.readouterr().out) == expected


def test_a_missing_delegate(plugin: Plugin, capfd: pytest.CaptureFixture[str]) -> None:
    """Names the plugin and the path."""
    assert plugin.run("ADD", {**CONFIG, "delegate": {"type": "nope"}}) == 1
    directory = plugin.plugins.directory
    assert json.loads(capfd.readouterr().out) == {
        "code": 999,
        "msg": f'failed to delegate add: failed to find plugin "nope" in path [{directory}]',
    }


def test_check_does_nothing(plugin: Plugin) -> None:
    """Upstream's is not implemented either."""
    assert plugin.run("CHECK", {**CONFIG, "cniVersion": "1.0.0"}) == 0
    assert plugin.plugins.calls == []


@pytest.mark.parametrize(
    ("command", "config", "environment", "code", "msg"),
    [
        ("ADD", CONFIG, {"CNI_NETNS": "", "CNI_IFNAME": ""}, 4,
         "required env variables [CNI_NETNS,CNI_IFNAME] missing"),
        ("DEL", CONFIG, {"CNI_NETNS": "", "CNI_PATH": ""}, 4,
         "required env variables [CNI_PATH] missing"),
        ("ADD", CONFIG, {"CNI_CONTAINERID": "a/b"}, 4, "invalid characters in containerID"),
        ("ADD", CONFIG, {"CNI_IFNAME": "a" * 16}, 4, "interface name is too long"),
        ("ADD", CONFIG, {"CNI_IFNAME": ".."}, 4, "interface name is . or .."),
        ("ADD", CONFIG, {"CNI_IFNAME": "a b"}, 4,
         "interface name contains / or : or whitespace characters"),
        ("FROB", CONFIG, {}, 4, "unknown CNI_COMMAND: FROB"),
        ("ADD", {"cniVersion": "0.3.1"}, {}, 7, "missing network name"),
        ("ADD", {"name": "a b"}, {}, 7, "invalid characters found in network name"),
        ("ADD", "[]", {}, 6, "error unmarshall network config: not a JSON object"),
        ("ADD", {**CONFIG, "cniVersion": "9.0.0"}, {}, 1, "incompatible CNI versions"),
        ("CHECK", CONFIG, {}, 1, "config version does not allow CHECK"),
        ("STATUS", CONFIG, {}, 1, "config version does not allow STATUS"),
        ("ADD", {**CONFIG, "delegate": {"name": "x"}}, {}, 999,
         "'delegate' dictionary must not have 'name' field, it'll be set by flannel"),
        ("ADD", {**CONFIG, "delegate": {"ipam": {}}}, {}, 999,
         "'delegate' dictionary must not have 'ipam' field, it'll be set by flannel"),
        ("ADD", {**CONFIG, "delegate": {"type": 1}}, {}, 999,
         "'delegate' dictionary, if present, must have (string) 'type' field"),
    ],
)  # fmt: skip
def test_refusals(
    plugin: Plugin,
    capfd: pytest.CaptureFixture[str],
    command: str,
    config: object,
    environment: dict[str, str],
    code: int,
    msg: str,
) -> None:
    """Code and message, as JSON on stdout and exit status 1; nothing is delegated."""
    assert plugin.run(command, config, **environment) == 1
    answer = json.loads(capfd.readouterr().out)
    assert (answer["code"], answer["msg"]) == (code, msg)
    assert plugin.plugins.calls == []


def test_a_missing_subnet_file(plugin: Plugin, capfd: pytest.CaptureFixture[str]) -> None:
    """Upstream's hint is there."""
    plugin.subnet.unlink()
    assert plugin.run("ADD") == 1
    assert json.loads(capfd.readouterr().out)["msg"] == (
        f"failed to load flannel 'subnet.env' file: open {plugin.subnet}: "
        "no such file or directory. Check the flannel pod log for this node."
    )


def test_version_needs_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line with all versions."""
    monkeypatch.setenv("CNI_COMMAND", "VERSION")
    assert main() == 0
    assert capfd.readouterr().out == (
        '{"cniVersion":"1.1.0","supportedVersions":'
        '["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}\n'
    )


def test_without_a_command_it_introduces_itself(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """On stderr, with success."""
    monkeypatch.delenv("CNI_COMMAND", raising=False)
    assert main() == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("CNI Plugin flannel ")
    assert err.endswith(
        "CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
    )


def test_what_the_user_sets_in_the_delegate_wins() -> None:
    """Type, ipMasq, mtu and isGateway are only defaults."""
    mine = {"type": "ipvlan", "ipMasq": True, "mtu": 1300, "isGateway": False}
    delegate = build_delegate({"name": "n", "delegate": mine}, ENVIRONMENT)
    assert {key: delegate[key] for key in mine} == mine
    assert "cniVersion" not in delegate
    bridge = build_delegate({"name": "n"}, {**ENVIRONMENT, "masquerade": False})
    assert (bridge["ipMasq"], bridge["isGateway"]) == (True, True)
    assert "isGateway" not in build_delegate({"name": "n", "delegate": {"type": "x"}}, ENVIRONMENT)


def test_a_given_ipam_is_kept_but_for_its_ranges() -> None:
    """Routes are added, ranges replaced; runtimeConfig is handed down."""
    ipam = {"type": "mine", "dataDir": "/d", "ranges": [1], "routes": [{"dst": "1.0.0.0/8"}]}
    config = {"name": "n", "ipam": ipam, "runtimeConfig": {"ips": []}}
    delegate = build_delegate(config, ENVIRONMENT)
    assert delegate["runtimeConfig"] == {"ips": []}
    assert delegate["ipam"] == {
        "type": "mine",
        "dataDir": "/d",
        "ranges": [[{"subnet": "10.244.1.0/24"}]],
        "routes": [{"dst": "1.0.0.0/8"}, {"dst": "10.244.0.0/16"}],
    }
    with pytest.raises(CniPluginError):
        build_delegate({"name": "n", "delegate": {"type": None}}, ENVIRONMENT)


def test_subnet_env_of_both_families(tmp_path: Path) -> None:
    """Several networks, without doubles; subnets are reduced to their network."""
    path = tmp_path / "subnet.env"
    path.write_text(
        "FLANNEL_NETWORK=10.244.0.0/16,10.0.0.0/8,10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n"
        "FLANNEL_IPV6_NETWORK=fd00::/56\nFLANNEL_IPV6_SUBNET=fd00::1/64\n"
        "FLANNEL_MTU=1400\nFLANNEL_IPMASQ=false\n"
    )
    assert subnet_environment(str(path)) == {
        "networks": ["10.244.0.0/16", "10.0.0.0/8", "fd00::/56"],
        "subnets": ["10.244.1.0/24", "fd00::/64"],
        "mtu": 1400,
        "masquerade": False,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, "
         "FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ"),
        ("FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_SUBNET=10.1.0.1/16\nFLANNEL_MTU=1\n",
         "is missing FLANNEL_IPMASQ"),
        ("FLANNEL_NETWORK=10.0.0.0/33\n", "invalid CIDR address: 10.0.0.0/33"),
        ("FLANNEL_NETWORK=10.0.0.256/8\n", "invalid CIDR address: 10.0.0.256/8"),
        ("FLANNEL_NETWORK=10.0.0.0\n", "invalid CIDR address: 10.0.0.0"),
        ("FLANNEL_NETWORK=fd00::zz/8\n", "invalid CIDR address: fd00::zz/8"),
        (SUBNET_ENV.replace("1450", "x"), 'parsing "x": invalid syntax'),
    ],
)  # fmt: skip
def test_bad_subnet_files(tmp_path: Path, text: str, message: str) -> None:
    """The message says what is wrong, as upstream's does."""
    path = tmp_path / "subnet.env"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        subnet_environment(str(path))
