"""What goes into the guest, where packages come from, and what is made of the results."""

from __future__ import annotations

import io
import shlex
import tarfile
from pathlib import Path

import pytest

from testbed.node import context
from tests.vm import debian, lane, payload

PYPROJECT = """
[project]
dependencies = ["docker>=7.1", "pytest>=8.2"]
[project.optional-dependencies]
dev = ["mypy>=1.13", "pytest-timeout>=2.3", "ruff>=0.8"]
"""


def test_packages_are_those_that_live_tests_need() -> None:
    """The product's own and pytest's plugins, no linters."""
    found = payload.requirements(PYPROJECT)
    assert found == ["docker>=7.1", "pytest>=8.2", "pytest-timeout>=2.3"]


def test_arguments_reach_pytest_as_they_are() -> None:
    """Blanks and quotes included."""
    script = payload.command(["-k", "ipip and not 'x'", "tests/live"], slowness=15, seconds=900)
    last = shlex.split(script.splitlines()[-1])
    assert last[-3:] == ["-k", "ipip and not 'x'", "tests/live"]
    assert last[:2] == ["exec", "timeout"]
    assert "900" in last
    assert "TESTBED_TEST_SLOWNESS=15" in script
    assert "--timeout=450" in last


def test_deadlines_of_tests_scale() -> None:
    """With what emulation costs."""
    assert "--timeout=90 " in payload.command([], slowness=3, seconds=900)


def test_files_named_replace_the_selection() -> None:
    """Anything else is added to it."""
    everything = payload.selection([])
    assert everything
    assert all((payload.TREE / each.partition("::")[0]).exists() for each in everything)
    assert payload.selection(["-k", "ipip"]) == ["-k", "ipip", *everything]
    node = "tests/live/test_nodes.py::test_sysctls"
    assert payload.selection(["-x", node]) == ["-x", node]


def test_a_snapshot_has_the_same_node_image(tmp_path: Path) -> None:
    """Links and execute bits are kept: the guest looks for the image that the host built."""
    payload.snapshot(tmp_path)
    package = tmp_path / "testbed"
    files = context.entries(package / "_image", package / "agent")
    assert context.digest(files) == context.digest(context.sources())
    assert not (tmp_path / ".git").exists()
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_payload_is_the_project_and_its_command(tmp_path: Path) -> None:
    """In one tar, the command executable."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "file").write_text("content")
    payload.write(tmp_path / "payload.tar", project, "#!/bin/bash\n")
    with tarfile.open(tmp_path / "payload.tar") as tar:
        assert sorted(tar.getnames()) == ["project", "project/file", "run"]
        assert tar.getmember("run").mode == 0o755


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deb file:/srv bookworm main", "deb file:/srv bookworm-backports main"),
        (
            "deb [signed-by=/k.gpg] file:/srv bookworm main",
            "deb [signed-by=/k.gpg] file:/srv bookworm-backports main",
        ),
        ("deb file:/srv bookworm-security main", None),
    ],
)
def test_backports_are_looked_for_where_the_suite_is(line: str, expected: str | None) -> None:
    """On the same mirror, with the same key."""
    assert debian.backports([line]) == expected


def test_sources_are_those_that_mmdebstrap_used(tmp_path: Path) -> None:
    """Without its comments."""
    (tmp_path / "etc/apt").mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list").write_text("# one\ndeb file:/srv bookworm main\n\n")
    assert debian.sources(tmp_path) == ["deb file:/srv bookworm main"]


def test_a_source_that_does_not_answer(tmp_path: Path) -> None:
    """Is not reachable; one that does is."""
    release = tmp_path / "dists/bookworm-backports/InRelease"
    source = f"deb [trusted=yes] file:{tmp_path} bookworm-backports main"
    assert not debian.reachable(source, tmp_path)
    release.parent.mkdir(parents=True)
    release.write_text("Suite: bookworm-backports\n")
    assert debian.reachable(source, tmp_path)


def results(path: Path, **files: str) -> Path:
    """What a guest with these files in /out writes to its disk."""
    with tarfile.open(path, "w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize("status", [0, 1, 124])
def test_the_verdict_is_the_tests_own(tmp_path: Path, status: int) -> None:
    """And everything else that the guest wrote is there."""
    disk = results(tmp_path / "disk", status=f"{status}\n", lsmod="ipip")
    assert lane.collect(disk, tmp_path / "out") == status
    assert (tmp_path / "out/lsmod").read_text() == "ipip"


def test_no_verdict_is_no_success(tmp_path: Path) -> None:
    """Nothing written, half written, or logs alone: 125."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    assert lane.collect(disk, tmp_path / "out") == 125
    assert lane.collect(results(disk, status="").rename(disk), tmp_path / "out") == 125
    assert lane.collect(results(disk, dmesg="late"), tmp_path / "other") == 125


def test_results_of_the_last_run_are_removed(tmp_path: Path) -> None:
    """Nothing else in the folder is."""
    for name in ("junit.xml", "status", "mine.txt"):
        (tmp_path / name).touch()
    (tmp_path / "pcaps/test").mkdir(parents=True)
    lane.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
