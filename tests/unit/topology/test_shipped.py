"""The topologies that come with testbed, and how they are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.plan import cnis
from testbed.topology import load as load_module
from testbed.topology.load import find, load, shipped

ROOT = Path(__file__).parents[3]


def test_every_shipped_topology_loads() -> None:
    """And it has the name by which it is found."""
    assert {"flannel", "flannel-host-gw", "flannel-pods"} <= shipped().keys()
    for name, path in shipped().items():
        assert load(path, cnis=cnis()).name == name


def test_flannel_is_three_words() -> None:
    """The name, the file and the CNI."""
    path = find("flannel")
    assert path == ROOT / "compose" / "flannel.yaml"
    cluster = load(path, cnis=cnis())
    assert (cluster.name, cluster.cni, len(cluster.nodes)) == ("flannel", "flannel", 3)


def test_flannel_pods_shows_what_manifests_can_do() -> None:
    """Two containers, a host port, the node's network, rates, a selector, the downward API."""
    cluster = load(find("flannel-pods"), cnis=cnis())
    pods = {pod.name: pod for pod in cluster.pods}
    assert [container.image for container in pods["web"].containers] == ["nginx", "busybox"]
    assert pods["redis"].containers[0].ports[0].host_port == 6379
    assert pods["on-the-node"].host_network
    assert pods["slow"].annotations["kubernetes.io/ingress-bandwidth"] == "10M"
    assert pods["greeter"].node == "node3"
    assert "running on node3" in pods["greeter"].containers[0].argv[-1]


def test_find_takes_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that exists is itself; a shipped name wins over a file of that name."""
    monkeypatch.chdir(tmp_path)
    for name in ("lab.yaml", "flannel"):
        (tmp_path / name).write_text("")
    assert find("lab.yaml") == Path("lab.yaml")
    assert find("./flannel") == Path("flannel")
    assert find("flannel") == ROOT / "compose" / "flannel.yaml"


def test_find_lists_the_names() -> None:
    """What is neither a file nor shipped."""
    with pytest.raises(UsageError) as raised:
        find("weave")
    assert f"testbed's own: {', '.join(shipped())}\n" in str(raised.value)
    with pytest.raises(UsageError, match='did you mean "flannel"'):
        find("flanel")


def test_an_installed_package_has_its_topologies_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's own directory comes first, then the checkout's."""
    monkeypatch.setattr(load_module, "_SHIPPED", (tmp_path / "none", tmp_path))
    (tmp_path / "lab.yaml").write_text("")
    assert shipped() == {"lab": tmp_path / "lab.yaml"}
    monkeypatch.setattr(load_module, "_SHIPPED", (tmp_path / "none",))
    with pytest.raises(UsageError, match="testbed's own: none"):
        find("lab")
