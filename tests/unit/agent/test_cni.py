"""The runtime's side of CNI, with plugins that are shell scripts."""

from __future__ import annotations

import base64
import errno
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from testbed.agent import cni
from testbed.agent.cni import CniRuntime, first_ipv4, host_interface, pod_ips
from testbed.agent.cni_cache import Attachment, Cache
from testbed.agent.conflist import Network, parse
from testbed.agent.errors import CniError
from tests.unit.agent.fakes import FakePlugins

ARGS = (("IgnoreUnknown", "1"), ("K8S_POD_NAME", "web"))
ONE = Attachment("c0ffee", "/var/run/netns/cni-1", "eth0", ARGS, {"bandwidth": {"ingressRate": 1}})


def network(version: str = "1.0.0", **more: Any) -> Network:
    """A list of two plugins."""
    plugins = [{"type": "first"}, {"type": "second", "capabilities": {"bandwidth": True}}]
    return parse(json.dumps({"name": "net", "cniVersion": version, "plugins": plugins, **more}))


@pytest.fixture
def runtime(plugins: FakePlugins, tmp_path: Path) -> CniRuntime:
    """A runtime with two plugins that work."""
    plugins.add("first", '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}]}')
    plugins.add("second", '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.3/24"}]}')
    return CniRuntime(str(plugins.directory), Cache(str(tmp_path / "results")))


def test_add_runs_the_list_in_order(runtime: CniRuntime, plugins: FakePlugins) -> None:
    """Each plugin gets the result before it, the last one's is the result."""
    assert runtime.add(network(), ONE)["ips"] == [{"address": "10.1.0.3/24"}]
    assert plugins.calls == ["ADD first", "ADD second"]
    first, second = (json.loads(line) for line in plugins.lines("configs"))
    assert first == {"type": "first", "name": "net", "cniVersion": "1.0.0"}
    assert second["prevResult"]["ips"] == [{"address": "10.1.0.2/24"}]
    assert second["runtimeConfig"] == {"bandwidth": {"ingressRate": 1}}
    assert "capabilities" not in second


def test_the_environment_is_the_specifications(runtime: CniRuntime, plugins: FakePlugins) -> None:
    """Container, namespace, interface, path and arguments."""
    runtime.add(network(), ONE)
    assert plugins.lines("calls")[0] == (
        f"ADD first c0ffee /var/run/netns/cni-1 eth0 {plugins.directory} "
        "IgnoreUnknown=1;K8S_POD_NAME=web"
    )


def test_the_result_is_cached_as_libcni_does(runtime: CniRuntime, tmp_path: Path) -> None:
    """Name, modes and keys."""
    runtime.add(network(), ONE)
    path = tmp_path / "results" / "net-c0ffee-eth0"
    entry = json.loads(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(entry) == [
        "kind",
        "containerId",
        "config",
        "ifName",
        "networkName",
        "netns",
        "cniArgs",
        "capabilityArgs",
        "result",
    ]
    assert entry["kind"] == "cniCacheV1"
    assert entry["cniArgs"] == [["IgnoreUnknown", "1"], ["K8S_POD_NAME", "web"]]
    assert json.loads(base64.b64decode(entry["config"]))["name"] == "net"
    cached = runtime.cache.read("net", ONE)
    assert cached is not None
    assert cached.attachment == ONE._replace(pod="")


def test_delete_runs_backwards_with_the_final_result(
    runtime: CniRuntime, plugins: FakePlugins
) -> None:
    """DEL in reverse order; both get the result of the whole list; the cache entry goes."""
    runtime.add(network(), ONE)
    runtime.delete(network(), ONE)
    assert plugins.calls[2:] == ["DEL second", "DEL first"]
    for line in plugins.lines("configs")[2:]:
        assert json.loads(line)["prevResult"]["ips"] == [{"address": "10.1.0.3/24"}]
    assert runtime.cache.read("net", ONE) is None


def test_delete_may_be_repeated_without_a_cache(runtime: CniRuntime, plugins: FakePlugins) -> None:
    """Without an entry plugins are called without prevResult."""
    runtime.delete(network(), ONE._replace(netns=""))
    assert plugins.calls == ["DEL second", "DEL first"]
    assert "prevResult" not in json.loads(plugins.lines("configs")[0])


def test_old_versions_delete_without_the_result(runtime: CniRuntime, plugins: FakePlugins) -> None:
    """PrevResult on DEL came with 0.4.0."""
    runtime.add(network("0.3.1"), ONE)
    runtime.delete(network("0.3.1"), ONE)
    assert all("prevResult" not in json.loads(line) for line in plugins.lines("configs")[2:])


def test_a_failed_delete_keeps_the_entry(runtime: CniRuntime, plugins: FakePlugins) -> None:
    """The next attempt needs the result again."""
    runtime.add(network(), ONE)
    plugins.fail("first", "DEL", '{"code": 11, "msg": "later"}')
    with pytest.raises(CniError):
        runtime.delete(network(), ONE)
    assert runtime.cache.read("net", ONE) is not None


def test_a_failed_add_is_undone(runtime: CniRuntime, plugins: FakePlugins) -> None:
    """All plugins get DEL, the error has the plugin's code, message, details and stderr."""
    plugins.fail("second", "ADD", '{"code": 101, "msg": "no luck", "details": "today"}')
    with pytest.raises(CniError) as caught:
        runtime.add(network(), ONE)
    error = caught.value
    assert (error.plugin, error.code, error.msg, error.details) == (
        "second",
        101,
        "no luck",
        "today",
    )
    assert error.stderr == "second complains"
    assert str(error) == "plugin second: CNI ADD failed with code 101: no luck (today)"
    assert error.as_dict()["code"] == "101"
    assert plugins.calls == ["ADD first", "ADD second", "DEL second", "DEL first"]
    assert runtime.cache.read("net", ONE) is None


def test_a_failing_roll_back_goes_on(
    runtime: CniRuntime, plugins: FakePlugins, capfd: pytest.CaptureFixture[str]
) -> None:
    """A DEL that fails is logged and the next plugin's is run."""
    plugins.fail("second", "ADD", '{"code": 101, "msg": "no luck"}')
    plugins.fail("second", "DEL", '{"code": 5, "msg": "still none"}')
    with pytest.raises(CniError, match="no luck"):
        runtime.add(network(), ONE)
    assert plugins.calls[-1] == "DEL first"
    assert "still none" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("answer", "msg"),
    [
        ("", "netplugin failed with exit status 1: second complains"),
        ("oops", "netplugin failed but error parsing its diagnostic message 'oops'"),
        ("[]", "netplugin failed but error parsing its diagnostic message '[]'"),
    ],
)
def test_errors_that_are_not_json(
    runtime: CniRuntime, plugins: FakePlugins, answer: str, msg: str
) -> None:
    """What the plugin printed is in the message."""
    plugins.fail("second", "ADD", answer)
    with pytest.raises(CniError) as caught:
        runtime.add(network(), ONE)
    assert (caught.value.code, caught.value.msg) == (999, msg)


@pytest.mark.parametrize("answer", ["", "not json", "[]"])
def test_a_result_must_be_an_object(runtime: CniRuntime, plugins: FakePlugins, answer: str) -> None:
    """Anything else is a decoding failure."""
    plugins.add("second", answer)
    with pytest.raises(CniError) as caught:
        runtime.add(network(), ONE)
    assert caught.value.code == 6


def test_a_missing_plugin(runtime: CniRuntime, plugins: FakePlugins) -> None:
    """The message is libcni's."""
    (plugins.directory / "second").unlink()
    with pytest.raises(CniError, match=r'failed to find plugin "second" in path \[/'):
        runtime.add(network(), ONE)


def test_check_gives_every_plugin_the_final_result(
    runtime: CniRuntime, plugins: FakePlugins
) -> None:
    """CHECK in order; prevResult is ADD's result."""
    runtime.add(network(), ONE)
    runtime.check(network(), ONE)
    assert plugins.calls[2:] == ["CHECK first", "CHECK second"]
    assert json.loads(plugins.lines("configs")[2])["prevResult"]["ips"][0]["address"] == (
        "10.1.0.3/24"
    )


def test_check_needs_a_version_a_result_and_permission(
    runtime: CniRuntime, plugins: FakePlugins
) -> None:
    """Old configurations and unknown attachments are refused; disableCheck does nothing."""
    with pytest.raises(CniError, match=r"'0\.3\.1' does not support CHECK command"):
        runtime.check(network("0.3.1"), ONE)
    with pytest.raises(CniError, match="no cached result of c0ffee eth0"):
        runtime.check(network(), ONE)
    runtime.check(network(disableCheck=True), ONE)
    assert plugins.calls == []


def test_a_busy_executable_is_tried_again(
    runtime: CniRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text file busy: five more attempts, a second apart."""
    attempts: list[int] = []
    waits: list[float] = []

    def busy(*_: object, **__: object) -> None:
        attempts.append(1)
        raise OSError(errno.ETXTBSY, "Text file busy")

    monkeypatch.setattr(cni, "execute", busy)
    monkeypatch.setattr("time.sleep", waits.append)
    with pytest.raises(CniError, match="Text file busy"):
        runtime._call("DEL", "first", ONE, {})
    assert len(attempts) == 6
    assert waits == [1.0] * 5


def test_unreadable_cache_entries_are_left_alone(tmp_path: Path) -> None:
    """Files of another shape are no entries."""
    (tmp_path / "x-1-eth0").write_text("{}")
    (tmp_path / "x-2-eth0").write_text("no json")
    assert list(Cache(str(tmp_path)).entries()) == []
    assert list(Cache(str(tmp_path / "missing")).entries()) == []


def test_addresses_of_every_result_version() -> None:
    """The first IPv4 is the pod's; before 0.3.0 results had another shape."""
    ips = pod_ips({"ips": [{"address": "fd00::2/64"}, {"address": "10.0.0.2/24"}]})
    assert ips == ("fd00::2", "10.0.0.2")
    assert first_ipv4(ips) == "10.0.0.2"
    assert pod_ips({"ip4": {"ip": "10.0.0.3/24"}}) == ("10.0.0.3",)
    assert first_ipv4(()) == ""


def test_the_nodes_end_of_the_link() -> None:
    """The last interface outside the sandbox: the veth, not the bridge, nor what shapes egress."""
    names = [{"name": "cni0"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/netns"}]
    assert host_interface({"interfaces": names}) == "veth1"
    assert host_interface({"interfaces": names[1:]}) == "veth1"
    assert host_interface({"interfaces": [*names, {"name": "bwp218a36ac0ea6"}]}) == "veth1"
    assert host_interface({}) == ""
