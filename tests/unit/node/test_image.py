"""The node image: a name from its inputs' hash, a build whose steps show, a Debian to build on."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import requests
from docker.errors import APIError, ImageNotFound

from testbed.errors import MissingCapabilityError, NodeError
from testbed.node import context, debian, image
from testbed.node.host import Completed

if TYPE_CHECKING:
    import docker

    from tests.unit.node.conftest import FakeHost, Told


def refused(status: int, explanation: str) -> APIError:
    """The SDK's error for an answer of the engine."""
    response = requests.Response()
    response.status_code = status
    return APIError("refused", response=response, explanation=explanation)


class FakeEngine:
    """An engine that holds images by reference; ``client`` is what the code under test sees."""

    def __init__(self, *present: str) -> None:
        self.present: dict[str, dict[str, Any]] = {
            name: {"Id": f"sha256:{name}", "Size": 7, "Created": "2026-01-01T00:00:00Z"}
            for name in present
        }
        self.registry: list[dict[str, Any]] = [{"error": "lookup example: no such host"}]
        self.pulled = ""
        self.listed: list[dict[str, Any]] = []
        self.in_use: set[str] = set()
        self.removed: list[str] = []
        self.imported: dict[str, Any] = {}

    @property
    def client(self) -> docker.DockerClient:
        """The engine as the SDK's client."""
        return cast("docker.DockerClient", self)

    @property
    def api(self) -> FakeEngine:
        """The low-level half."""
        return self

    @property
    def images(self) -> Any:  # the SDK has a property here and a method of this name in ``api``
        """Both halves of the SDK call it images."""
        return _Images(self)

    def pull(self, repository: str, tag: str, stream: bool, decode: bool) -> list[dict[str, Any]]:
        """What the registry says."""
        assert stream
        assert decode
        if self.pulled:
            self.present[self.pulled] = {}
        return [*self.registry, {"status": f"{repository}:{tag}"}]

    def import_image(self, src: str, repository: str, tag: str, changes: Sequence[str]) -> None:
        """Keep what was imported."""
        self.imported = {"size": Path(src).stat().st_size, "changes": list(changes)}
        self.present[f"{repository}:{tag}"] = {}

    def remove_image(self, name: str) -> None:
        """Remove, unless a container uses it."""
        if name in self.in_use:
            raise refused(409, "image is being used")
        self.removed.append(name)


class _Images:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    def get(self, name: str) -> Any:
        """``client.images.get``."""
        if name not in self.engine.present:
            raise ImageNotFound("no such image")
        self.attrs = self.engine.present[name]
        return self

    def __call__(self, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        """``client.api.images``."""
        assert filters == {"label": "testbed.image"}
        return self.engine.listed


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A small image folder and agent."""
    shell, agent = tmp_path / "image", tmp_path / "agent"
    for path, text in (
        (shell / "Dockerfile", "FROM scratch\n"),
        (shell / "src" / "pause.c", "int main;\n"),
        (shell / "__pycache__" / "x.pyc", "junk"),
        (agent / "init.py", "pass\n"),
        (agent / "README", "not a module\n"),
        (agent / "__pycache__" / "init.cpython-311.pyc", "junk"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return shell, agent


def test_context_holds_image_files_and_agent_modules(folders: tuple[Path, Path]) -> None:
    """Compiled files and what is not Python in the agent stay out."""
    paths = [entry.path for entry in context.entries(*folders)]
    assert paths == ["Dockerfile", "agent/init.py", "src/pause.c"]


def test_context_follows_a_link_to_the_image_folder(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """In the source tree testbed/_image is a link to images/node."""
    shell, agent = folders
    link = tmp_path / "link"
    link.symlink_to(shell)
    assert context.entries(link, agent) == context.entries(shell, agent)


def test_digest_depends_on_content_name_and_mode(folders: tuple[Path, Path]) -> None:
    """Each change gives another image; what Git does not keep gives the same."""
    shell, agent = folders
    digests = [context.digest(context.entries(shell, agent))]
    (shell / "Dockerfile").chmod(0o600)
    assert context.digest(context.entries(shell, agent)) == digests[0]
    (shell / "Dockerfile").chmod(0o755)
    digests.append(context.digest(context.entries(shell, agent)))
    (shell / "src" / "pause.c").write_text("int main();\n")
    digests.append(context.digest(context.entries(shell, agent)))
    (agent / "init.py").rename(agent / "start.py")
    digests.append(context.digest(context.entries(shell, agent)))
    assert len(set(digests)) == 4


def test_archive_is_the_same_for_the_same_files(folders: tuple[Path, Path]) -> None:
    """No times, no owners: the engine's build cache sees the same files as the same."""
    files = context.entries(*folders)
    first = context.archive(files)
    (folders[0] / "Dockerfile").touch()
    assert first.getvalue() == context.archive(context.entries(*folders)).getvalue()
    with tarfile.open(fileobj=first) as tar:
        members = {each.name: (each.mode, each.mtime, each.uid) for each in tar}
    assert members["Dockerfile"] == (0o644, 0, 0)


def test_reference_names_the_inputs() -> None:
    """The tag is 12 hexadecimal digits."""
    assert re.fullmatch(r"testbed-node:[0-9a-f]{12}", image.reference())


def test_present_image_is_used_at_once(told: Told) -> None:
    """Nothing is built or reported."""
    engine = FakeEngine(image.reference())
    assert image.ensure(engine.client, told) == image.reference()
    assert told.lines == []


def test_build_reports_its_steps(told: Told) -> None:
    """One line a step, however long its command."""
    image.follow(
        [
            {"stream": "Step 1/2 : FROM scratch"},
            {"stream": " ---> 1234\n"},
            {"stream": "Step 2/2 : RUN apt-get update  && \\\n   apt-get install -y " + "x" * 99},
            {"aux": {"ID": "sha256:1"}},
        ],
        told,
    )
    assert told.lines[0] == "image: step 1/2: FROM scratch"
    assert told.lines[1].startswith(
        "image: step 2/2: RUN apt-get update && \\ apt-get install -y xxx"
    )
    assert told.lines[1].endswith("x…")


def test_build_error_has_the_step_and_its_last_lines(told: Told) -> None:
    """What the step printed stands before the engine's words."""
    lines: list[dict[str, Any]] = [
        {"stream": "Step 1/2 : FROM scratch"},
        {"stream": "of another step\n"},
        {"stream": "Step 2/2 : RUN make pause"},
        {"stream": "pause.c:1: error\n"},
        {"errorDetail": {}, "error": "The command '/bin/sh -c make pause' returned: 2\n"},
    ]
    with pytest.raises(NodeError) as caught:
        image.follow(lines, told)
    assert str(caught.value) == (
        "the node image could not be built, step 2/2: RUN make pause\n"
        "  pause.c:1: error\n"
        "  The command '/bin/sh -c make pause' returned: 2\n"
        "Correct that and run `testbed image build`: steps that worked are not run again."
    )


def test_prune_keeps_the_current_image_and_those_in_use(told: Told) -> None:
    """Only images with our label are listed; what a container uses is named."""
    engine = FakeEngine()
    engine.in_use = {"testbed-node:used"}
    engine.listed = [
        {"Id": "0", "RepoTags": [debian.BOOTSTRAPPED]},
        {"Id": "1", "RepoTags": [image.reference()]},
        {"Id": "2", "RepoTags": ["testbed-node:old"]},
        {"Id": "3", "RepoTags": ["testbed-node:used"]},
        {"Id": "sha256:untagged", "RepoTags": None},
    ]
    assert image.prune(engine.client, told) == ["testbed-node:old", "sha256:untagged"]
    assert engine.removed == ["testbed-node:old", "sha256:untagged"]
    assert told.lines == ["image: testbed-node:used is still used and stays"]


@pytest.mark.parametrize("present", [debian.PUBLISHED, debian.BOOTSTRAPPED])
def test_a_local_debian_is_used(present: str, machine: FakeHost, told: Told) -> None:
    """Neither registry nor mmdebstrap is asked."""
    assert debian.ensure(FakeEngine(present).client, machine, told) == present
    assert (told.lines, machine.ran) == ([], [])


def test_a_published_debian_is_pulled(machine: FakeHost, told: Told) -> None:
    """A registry that answers is the quickest way."""
    engine = FakeEngine()
    engine.registry, engine.pulled = [{"status": "Downloading"}], debian.PUBLISHED
    assert debian.ensure(engine.client, machine, told) == debian.PUBLISHED


def test_without_a_registry_mmdebstrap_makes_a_debian(machine: FakeHost, told: Told) -> None:
    """It takes the mirrors of the machine's own apt, is installed if need be, and is imported."""
    machine.answers["apt-get indextargets"] = Completed(
        0,
        "Debian|Debian|http://mirror.test/debian/\n"
        "Debian|Debian-Security|http://mirror.test/security/\n"
        "|Some Vendor|http://vendor.test/\n",
    )
    lenient = "apt-config shell VALUE Acquire::Check-Valid-Until"
    machine.answers[lenient] = Completed(0, "VALUE='false'\n")
    engine = FakeEngine()
    assert debian.ensure(engine.client, machine, told) == debian.BOOTSTRAPPED
    assert engine.imported == {"size": 0, "changes": ["LABEL testbed.image=debian"]}
    assert "image: no registry (no such host); making Debian bookworm with mmdebstrap" in told.lines
    installing = "apt-get install -y -q -o Dpkg::Use-Pty=0"
    assert any(line.startswith(installing) and "mmdebstrap" in line for line in machine.ran)
    command = next(line for line in machine.ran if line.startswith("mmdebstrap"))
    assert "--variant=minbase" in command
    assert '--aptopt=Acquire::Check-Valid-Until "false"' in command
    assert "Check-Date" not in command
    assert "--dpkgopt=path-exclude=/usr/share/man/*" in command
    assert command.endswith(
        "deb http://mirror.test/debian/ bookworm main "
        "deb http://mirror.test/debian/ bookworm-updates main "
        "deb http://mirror.test/security/ bookworm-security main"
    )


def test_mirrors_of_another_distribution_are_not_debians(machine: FakeHost) -> None:
    """On Ubuntu mmdebstrap takes its own default."""
    machine.answers["apt-get indextargets"] = Completed(0, "Ubuntu|Ubuntu|http://mirror.test/u/\n")
    assert debian.mirrors(machine) == ()


def test_only_root_makes_a_debian(machine: FakeHost, told: Told) -> None:
    """mmdebstrap is there, but we are not root: the command is said."""
    machine.rooted = False
    machine.programs.add("mmdebstrap")
    machine.write("/usr/share/keyrings/debian-archive-keyring.gpg", "")
    with pytest.raises(MissingCapabilityError, match="sudo testbed setup"):
        debian.ensure(FakeEngine().client, machine, told)


def test_a_failed_mmdebstrap_shows_its_last_words(machine: FakeHost, told: Told) -> None:
    """The message holds the tool's own output and what to do."""
    machine.answers["mmdebstrap"] = Completed(25, "I: running apt-get update...\nE: no mirror\n")
    with pytest.raises(MissingCapabilityError, match=r"code 25\):\n  I: .*\n  E: no mirror\n"):
        debian.ensure(FakeEngine().client, machine, told)


def test_proxies_come_from_the_environment_or_apt(machine: FakeHost) -> None:
    """Where only apt knows the proxy, the build is told of it."""
    asked = "apt-config shell VALUE Acquire::http::Proxy"
    machine.answers[asked] = Completed(0, "VALUE='http://proxy.test:3128'\n")
    assert debian.proxies(machine) == {"http_proxy": "http://proxy.test:3128"}
    machine.variables["https_proxy"] = "http://other.test:1"
    assert debian.proxies(machine) == {"https_proxy": "http://other.test:1"}
