"""Sandboxes, with CNI plugins that are shell scripts and namespaces that are plain files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.agent import rootfs, sandbox
from testbed.agent.cni import CniRuntime
from testbed.agent.cni_cache import Cache
from testbed.agent.errors import AgentError, CniError
from testbed.agent.init import first_failure
from testbed.agent.pods import Pod
from testbed.agent.sandbox import Sandboxes, node_ip
from tests.unit.agent.fakes import FakePlugins, pod_spec

RESULT = """{"cniVersion": "1.0.0", "interfaces": [{"name": "cni0"}, {"name": "veth1"},
{"name": "eth0", "sandbox": "/x"}], "ips": [{"address": "10.1.0.2/24"}]}"""


@pytest.fixture
def sandboxes(plugins: FakePlugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandboxes:
    """Sandboxes whose network is one plugin called bridge."""

    @contextmanager
    def new_netns(path: str) -> Iterator[None]:
        Path(path).write_text("")
        yield

    monkeypatch.setattr("testbed.agent.syscalls.new_netns", new_netns)
    monkeypatch.setattr("testbed.agent.syscalls.unmount", lambda _: None)
    monkeypatch.setattr(sandbox, "INHERITED", {})
    monkeypatch.setattr(sandbox, "NETNS", str(tmp_path / "netns"))
    (tmp_path / "netns").mkdir()
    (tmp_path / "net.d").mkdir()
    conf = {"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]}
    (tmp_path / "net.d" / "10.conflist").write_text(json.dumps(conf))
    plugins.add("loopback", '{"cniVersion": "0.3.1"}')
    plugins.add("bridge", RESULT)
    runtime = CniRuntime(str(plugins.directory), Cache(str(tmp_path / "results")))
    return Sandboxes(runtime, str(tmp_path / "net.d"))


def test_a_sandbox(sandboxes: Sandboxes, plugins: FakePlugins, tmp_path: Path) -> None:
    """The namespace is pinned first; lo, then eth0; IDs are as runtimes make them."""
    made = sandboxes.attach(pod_spec("web"), "")
    assert len(bytes.fromhex(made.id)) == 32
    [name] = [path.name for path in (tmp_path / "netns").iterdir()]
    assert made.netns.endswith(f"/{name}")
    kind, *groups = name.split("-")
    assert kind == "cni"
    assert [len(group) for group in groups] == [8, 4, 4, 4, 12]
    assert (made.ip, made.ips, made.host_interface) == ("10.1.0.2", ("10.1.0.2",), "veth1")
    assert plugins.calls == ["ADD loopback", "ADD bridge"]
    assert plugins.lines("calls")[1].endswith(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;"
        f"K8S_POD_INFRA_CONTAINER_ID={made.id};K8S_POD_UID=uid-web"
    )


def test_detach_undoes_it(sandboxes: Sandboxes, plugins: FakePlugins, tmp_path: Path) -> None:
    """eth0 before lo; the namespace and the cache are gone; it may be repeated."""
    pod = pod_spec("web")
    made = sandboxes.attach(pod, "")
    for _ in range(2):
        sandboxes.detach(pod, made)
        assert plugins.calls[2:] == ["DEL bridge", "DEL loopback"]
    assert list((tmp_path / "netns").iterdir()) == []
    assert list((tmp_path / "results").iterdir()) == []


def test_detach_goes_on_when_a_plugin_fails(
    sandboxes: Sandboxes, plugins: FakePlugins, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error is logged, lo and the namespace go all the same."""
    pod = pod_spec("web")
    made = sandboxes.attach(pod, "")
    plugins.fail("bridge", "DEL", '{"code": 5, "msg": "busy"}')
    sandboxes.detach(pod, made)
    assert plugins.calls[-1] == "DEL loopback"
    assert "busy" in capfd.readouterr().out
    assert list((tmp_path / "netns").iterdir()) == []


def test_a_failed_attach_leaves_nothing(
    sandboxes: Sandboxes, plugins: FakePlugins, tmp_path: Path
) -> None:
    """The list's own DEL, then lo's; the namespace goes."""
    plugins.fail("bridge", "ADD", '{"code": 101, "msg": "no"}')
    with pytest.raises(CniError):
        sandboxes.attach(pod_spec("web"), "")
    assert plugins.calls == ["ADD loopback", "ADD bridge", "DEL bridge", "DEL loopback"]
    assert list((tmp_path / "netns").iterdir()) == []
    assert list((tmp_path / "results").iterdir()) == []


def test_an_address_that_is_not_given_again(
    sandboxes: Sandboxes, plugins: FakePlugins, capfd: pytest.CaptureFixture[str]
) -> None:
    """A refused request is followed by an ADD without one; nothing of the first is left."""
    refuse = '{ echo "$CNI_ARGS" | grep -q IP=10.9.9.9; }'
    script = (plugins.directory / "bridge").read_text()
    script = script.replace(
        "if [ -e", f"if [ $CNI_COMMAND = ADD ] && {refuse}; then exit 1; fi\nif [ -e"
    )
    (plugins.directory / "bridge").write_text(script)
    assert sandboxes.attach(pod_spec("web"), "10.9.9.9").ip == "10.1.0.2"
    assert plugins.calls[-2:] == ["ADD loopback", "ADD bridge"]
    assert "address 10.9.9.9 not given again" in capfd.readouterr().out
    assert sandboxes.attach(pod_spec("b"), "10.1.0.2").ip == "10.1.0.2"
    assert plugins.lines("calls")[-1].endswith(";IP=10.1.0.2")


def test_a_network_without_ipv4(sandboxes: Sandboxes, plugins: FakePlugins, tmp_path: Path) -> None:
    """Undone, and said."""
    plugins.add("bridge", '{"cniVersion": "1.0.0", "ips": [{"address": "fd00::2/64"}]}')
    with pytest.raises(AgentError, match="CNI gave no IPv4 address"):
        sandboxes.attach(pod_spec("web"), "")
    assert list((tmp_path / "netns").iterdir()) == []


def test_host_network_needs_no_cni(sandboxes: Sandboxes, plugins: FakePlugins) -> None:
    """No namespace, no plugin, no interface of its own."""
    pod = pod_spec("h", host_network=True)
    made = sandboxes.attach(pod, "10.1.0.9")
    assert (made.netns, made.host_interface) == ("", "")
    sandboxes.detach(pod, made)
    assert sandboxes.check(pod, made) == {"pod": "default/h", "error": None}
    assert plugins.calls == []


def test_check(sandboxes: Sandboxes, plugins: FakePlugins) -> None:
    """CHECK of eth0; a plugin's objection is the answer."""
    pod = pod_spec("web")
    made = sandboxes.attach(pod, "")
    assert sandboxes.check(pod, made) == {"pod": "default/web", "error": None}
    plugins.fail("bridge", "CHECK", '{"code": 100, "msg": "address is gone"}')
    assert sandboxes.check(pod, made)["error"]["msg"] == "address is gone"


def test_an_interface_that_does_not_exist_has_no_address() -> None:
    """Empty instead of an exception."""
    assert node_ip("no-such-if") == ""


def test_remove_tree(tmp_path: Path) -> None:
    """Files, directories and links go, what links point to stays."""
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").write_text("")
    (tree / "a" / "link").symlink_to(keep)
    rootfs.remove_tree(str(tree))
    assert not tree.exists()
    assert (keep / "file").exists()
    rootfs.remove_tree(str(tree))


def test_why_a_node_is_not_ready() -> None:
    """The first pod that does not run, with its error or its container's end."""
    ended, failed = Pod(pod_spec("a", restart_policy="Never")), Pod(pod_spec("b"))
    ended.containers[0].ended(3)
    ended.finished = True
    failed.error = "no address left"
    assert first_failure([]) is None
    assert first_failure([failed, ended]) == {
        "what": "pod is Pending",
        "where": "default/b",
        "why": "no address left",
    }
    assert first_failure([ended]) == {
        "what": "pod is Failed",
        "where": "default/a",
        "why": "container app ended with exit status 3",
    }
