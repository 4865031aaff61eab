"""Detecting features: the best privileges that the engine grants, asked once per engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest
import requests
from docker.errors import APIError, NotFound

from testbed.agent import features as probe
from testbed.dataplane.features import KERNEL_FLAGS, Features
from testbed.errors import MissingCapabilityError, NodeError
from testbed.node.features import LABEL, detect

if TYPE_CHECKING:
    import docker

ANSWER = {
    "flags": {name: name != "ipip" for name in KERNEL_FLAGS},
    "reasons": {"ipip": "Unknown device type."},
}
NO_CAPABILITY = (
    "OCI runtime create failed: unable to start container process: unable to apply caps: "
    "operation not permitted: unknown"
)
NO_TUN = (
    'error gathering device information while adding custom device "/dev/net/tun": no such file'
)


class FakeEngine:
    """An engine that runs one probe, if it starts what it is given."""

    adapters: dict[str, object] = {}  # noqa: RUF012  # not reached by a local socket
    base_url = "http://192.0.2.1:2375"
    api_version = "1.41"

    def __init__(self) -> None:
        self.facts = {
            "ID": "ABCD",
            "KernelVersion": "6.1.0-test",
            "ServerVersion": "20.10.24",
            "CgroupVersion": "2",
            "Driver": "overlay2",
            "Architecture": "x86_64",
        }
        self.refuses: dict[str, str] = {}
        """HostConfig key with a true value → the engine's words."""
        self.code, self.output = 0, json.dumps(ANSWER)
        self.volumes_by_name: dict[str, dict[str, str]] = {}
        self.containers: list[dict[str, Any]] = []
        self.removed = 0

    @property
    def client(self) -> docker.DockerClient:
        """The engine as the SDK's client."""
        return cast("docker.DockerClient", self)

    @property
    def api(self) -> FakeEngine:
        """The low-level half, which is all that is used."""
        return self

    def info(self) -> dict[str, str]:
        """What the engine says of itself."""
        return self.facts

    def create_host_config(self, **arguments: str) -> dict[str, Any]:
        """What the SDK knows to say."""
        return {"NetworkMode": arguments["network_mode"]}

    def create_container(self, image: str, **arguments: Any) -> dict[str, str]:
        """Remember it."""
        self.containers.append({"image": image, **arguments})
        return {"Id": str(len(self.containers))}

    def start(self, container: str) -> None:
        """Refuse what the test says."""
        config = self.containers[int(container) - 1]["host_config"]
        for key, words in self.refuses.items():
            if config.get(key):
                response = requests.Response()
                response.status_code = 500
                raise APIError("refused", response=response, explanation=words)

    def wait(self, container: str, timeout: int) -> dict[str, int]:
        """The probe's end."""
        assert container
        assert timeout
        return {"StatusCode": self.code}

    def logs(self, container: str, stdout: bool, stderr: bool) -> bytes:
        """The probe's output."""
        assert container
        assert stdout
        assert stderr == (self.code != 0)
        return self.output.encode()

    def remove_container(self, container: str, force: bool, v: bool) -> None:
        """Count it."""
        assert container
        assert force
        assert v
        self.removed += 1

    def inspect_volume(self, name: str) -> dict[str, Any]:
        """A volume by name."""
        if name not in self.volumes_by_name:
            raise NotFound("no such volume")
        return {"Name": name, "Labels": self.volumes_by_name[name]}

    def create_volume(self, name: str, labels: dict[str, str]) -> None:
        """Like the engine: an existing one keeps its labels."""
        self.volumes_by_name.setdefault(name, labels)

    def volumes(self, filters: dict[str, str]) -> dict[str, Any]:
        """Volumes by label."""
        found = [
            {"Name": name, "Labels": labels}
            for name, labels in self.volumes_by_name.items()
            if filters["label"] in labels
        ]
        return {"Volumes": found or None}

    def images(self) -> list[dict[str, Any]]:
        """Two node images, and one without a name."""
        return [{"RepoTags": ["node:1"]}, {"RepoTags": ["node:2"]}, {"RepoTags": None}]

    def remove_volume(self, name: str) -> None:
        """Forget it."""
        del self.volumes_by_name[name]


@pytest.fixture
def engine() -> FakeEngine:
    """An engine that starts everything."""
    return FakeEngine()


def test_privileged_is_tried_first(engine: FakeEngine) -> None:
    """Where the engine lets it, one container answers everything."""
    found = detect(engine.client, "node:1")
    assert found.privileged
    assert found.available == frozenset(KERNEL_FLAGS) - {"ipip"}
    assert found.reasons == {"ipip": "Unknown device type."}
    assert (found.kernel_release, found.cgroup_version) == ("6.1.0-test", "2")
    assert len(engine.containers) == engine.removed == 1


def test_the_probe_runs_without_a_network(engine: FakeEngine) -> None:
    """Nothing can leave the machine, and the probe's leftovers could be found by label."""
    detect(engine.client, "node:1")
    container = engine.containers[0]
    assert container["host_config"]["NetworkMode"] == "none"
    assert container["labels"] == {"testbed.probe": "features"}
    assert container["entrypoint"][:2] == ["python3", "-IS"]


def test_a_refused_privilege_falls_back_to_capabilities(engine: FakeEngine) -> None:
    """The engine's words are kept, without its chain of prefixes."""
    engine.refuses = {"Privileged": NO_CAPABILITY}
    found = detect(engine.client, "node:1")
    assert not found.privileged
    assert found.reasons["privileged"] == "unable to apply caps: operation not permitted"
    assert engine.containers[1]["host_config"]["MaskedPaths"] == []
    assert engine.removed == 2


def test_a_host_without_tun_gets_nodes_without_it(engine: FakeEngine) -> None:
    """Only when the device is what the engine misses."""
    engine.refuses = {"Privileged": NO_CAPABILITY, "Devices": NO_TUN}
    detect(engine.client, "node:1")
    assert [bool(each["host_config"].get("Devices")) for each in engine.containers] == [
        False,
        True,
        False,
    ]


def test_an_engine_that_refuses_both_is_said(engine: FakeEngine) -> None:
    """Exit code 3 with both refusals."""
    engine.refuses = {"Privileged": NO_CAPABILITY, "CapAdd": "no capabilities here"}
    with pytest.raises(MissingCapabilityError) as caught:
        detect(engine.client, "node:1")
    assert "privileged: unable to apply caps: operation not permitted\n" in str(caught.value)
    assert "capabilities: no capabilities here\n" in str(caught.value)
    assert engine.removed == len(engine.containers) == 2


@pytest.mark.parametrize(("code", "output"), [(1, "Traceback: x"), (0, "no JSON"), (0, "[]")])
def test_a_broken_probe_is_an_error(engine: FakeEngine, code: int, output: str) -> None:
    """No features are made up, and the probe's container is gone."""
    engine.code, engine.output = code, output
    with pytest.raises(NodeError, match="feature probe"):
        detect(engine.client, "node:1")
    assert engine.removed == 1


def test_the_answer_is_asked_once(engine: FakeEngine) -> None:
    """The second time it is read from a volume's label."""
    first = detect(engine.client, "node:1")
    assert detect(engine.client, "node:1") == first
    assert len(engine.containers) == 1
    [name] = engine.volumes_by_name
    assert name.startswith("testbed-features-")


@pytest.mark.parametrize("fact", ["ID", "KernelVersion", "ServerVersion"])
def test_another_engine_or_kernel_is_asked_anew(engine: FakeEngine, fact: str) -> None:
    """The volume of the state before is replaced, not kept."""
    detect(engine.client, "node:1")
    engine.facts[fact] = "another"
    detect(engine.client, "node:1")
    assert len(engine.containers) == 2
    assert len(engine.volumes_by_name) == 1


def test_another_image_has_an_answer_of_its_own(engine: FakeEngine) -> None:
    """Two checkouts do not overwrite each other's answer."""
    detect(engine.client, "node:1")
    detect(engine.client, "node:2")
    assert len(engine.volumes_by_name) == 2


def test_answers_for_images_that_are_gone_are_forgotten(engine: FakeEngine) -> None:
    """Every change of the agent makes another image: their answers do not pile up."""
    detect(engine.client, "node:gone")
    detect(engine.client, "node:1")
    assert len(engine.volumes_by_name) == 1


def test_refresh_asks_again_and_remembers_the_new_answer(engine: FakeEngine) -> None:
    """Doctor sees what has changed, and so does the next ``up``."""
    detect(engine.client, "node:1")
    engine.output = json.dumps({"flags": dict.fromkeys(KERNEL_FLAGS, True), "reasons": {}})
    assert detect(engine.client, "node:1", refresh=True).ipip
    assert detect(engine.client, "node:1").ipip
    assert len(engine.containers) == 2


def test_an_unreadable_answer_is_asked_anew(engine: FakeEngine) -> None:
    """A label of another version, or none, is no reason to fail."""
    detect(engine.client, "node:1")
    [labels] = engine.volumes_by_name.values()
    labels[LABEL] = '{"vxlan": true}'
    assert detect(engine.client, "node:1").vxlan
    assert len(engine.containers) == 2


def test_features_survive_json() -> None:
    """What is written to the label is what is read from it."""
    features = Features.full()
    assert Features.from_json(features.to_json()) == features
    with pytest.raises(ValueError, match="version"):
        Features.from_json("{}")


def test_every_flag_has_a_probe_and_every_probe_a_flag() -> None:
    """The agent's script and the model name the same features."""
    assert tuple(probe.PROBES) == KERNEL_FLAGS
