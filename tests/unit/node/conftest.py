"""A machine that exists only in memory and in a temporary folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from testbed.node.host import Completed, Host

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'


class FakeHost(Host):
    """A host whose files are below a folder and whose commands are only written down."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.rooted = True
        self.programs: set[str] = {"apt-get"}
        self.answers: dict[str, Completed] = {}
        """By the beginning of the command line."""
        self.ran: list[str] = []
        self.variables: dict[str, str] = {"PATH": "/usr/bin"}
        self.write("/etc/os-release", DEBIAN)

    @property
    def is_root(self) -> bool:
        """As the test says."""
        return self.rooted

    @property
    def kernel_release(self) -> str:
        """A made-up kernel."""
        return "6.1.0-test"

    def write(self, absolute: str, content: str) -> Path:
        """Put a file on the machine."""
        path = self.path(absolute)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def environment(self) -> Mapping[str, str]:
        """As the test says."""
        return self.variables

    def which(self, name: str) -> str | None:
        """One of the programs that the test names."""
        return f"/usr/bin/{name}" if name in self.programs else None

    def run(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Completed:
        """Write the command down; succeed silently unless the test says otherwise."""
        del env
        line = " ".join(argv)
        self.ran.append(line)
        found = (answer for start, answer in self.answers.items() if line.startswith(start))
        return next(found, Completed(0, ""))


@pytest.fixture
def machine(tmp_path: Path) -> FakeHost:
    """A Debian machine, root, with apt-get and nothing else."""
    return FakeHost(tmp_path)


class Told:
    """A progress function that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, step: str, message: str) -> None:
        """Remember one line."""
        self.lines.append(f"{step}: {message}")


@pytest.fixture
def told() -> Told:
    """Progress that can be read afterwards."""
    return Told()
