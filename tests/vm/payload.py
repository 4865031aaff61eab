"""What the guest is handed: the project's tree and the command that tests it."""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

__all__ = ["GRACE_SECONDS", "TREE", "command", "requirements", "selection", "snapshot", "write"]

TREE = Path(__file__).resolve().parents[2]
_SELECTION = Path(__file__).with_name("selection.txt")
_TEST_SECONDS = 30
"""Of one test on a machine that is not emulated, its fixtures included."""
GRACE_SECONDS = 60
"""For fixtures to clean up, once the time for all tests is over."""


def snapshot(folder: Path) -> None:
    """Copy the tree as Git would take it: everything in a run is made from one state of it."""
    for name in _files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(TREE / name, target, follow_symlinks=False)


def write(archive: Path, project: Path, script: str) -> None:
    """Write the tar of a snapshot and of ``run``, the guest's command."""
    entry = tarfile.TarInfo("run")
    entry.mode, entry.size = 0o755, len(script.encode())
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(project, "project")
        tar.addfile(entry, io.BytesIO(script.encode()))


def command(arguments: Sequence[str], slowness: int, seconds: int) -> str:
    """The script that runs pytest with ``arguments`` in the guest, for ``seconds`` at most."""
    pytest = [
        *("python3", "-m", "pytest", "-p", "testbed.pytest_plugin", "-p", "no:cacheprovider"),
        *("-v", "--color=no", "--durations=15", f"--timeout={_TEST_SECONDS * slowness}"),
        *("--junitxml=/out/junit.xml", "-o", "junit_family=xunit1", "--basetemp=/tmp/pytest"),
        "--flight-dir=/out/flight",
        *arguments,
    ]
    limit = ["timeout", "--signal=INT", f"--kill-after={GRACE_SECONDS}", str(seconds)]
    return (
        "#!/bin/bash\n"
        "export PYTHONPATH=/opt/packages PYTHONUNBUFFERED=1 TERM=dumb COLUMNS=100\n"
        f"export TESTBED_TEST_SLOWNESS={slowness}\n"
        "cd /payload/project || exit 125\n"
        f"exec {shlex.join([*limit, *pytest])}\n"
    )


def selection(given: Sequence[str]) -> list[str]:
    """Pytest's arguments: ``given``, and the selected tests unless they name files themselves."""
    if any((TREE / word.partition("::")[0]).exists() for word in given):
        return list(given)
    lines = (line.partition("#")[0].strip() for line in _SELECTION.read_text().splitlines())
    return [*given, *filter(None, lines)]


def requirements(pyproject: str) -> list[str]:
    """What of ``pyproject.toml`` the live tests need: the product's own, and pytest's plugins."""
    project = tomllib.loads(pyproject)["project"]
    development = project["optional-dependencies"]["dev"]
    plugins = [line for line in development if line.startswith("pytest-")]
    return [*project["dependencies"], *plugins]


def _files() -> list[str]:
    """Tracked and untracked files, without those that Git ignores."""
    # the checkout may be another user's, where continuous integration runs as root
    git = ["git", "-c", f"safe.directory={TREE}", "-C", str(TREE)]
    chosen = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run([*git, *chosen], check=True, capture_output=True, text=True).stdout
    names = sorted(set(filter(None, listing.split("\0"))))
    return [name for name in names if (TREE / name).is_symlink() or (TREE / name).exists()]
