"""What the node image is made of: one list of files, hashed for its tag and packed for its build.

The context's root holds ``images/node`` (``testbed/_image``, a link to it in the source tree and
its copy in an installed package) and, as ``agent/``, the agent's modules. A file counts with its
path, whether it may be executed, and its bytes: what Git keeps, so every checkout has one tag.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import testbed
from testbed.errors import MissingCapabilityError

__all__ = ["SUITE", "Entry", "archive", "digest", "entries", "sources"]

SUITE = "bookworm"
"""The Debian release that the image is made from."""
_PACKAGE = Path(testbed.__file__).parent


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One file of the build context."""

    path: str
    mode: int
    content: bytes


@cache
def sources() -> tuple[Entry, ...]:
    """The node image's own build context, read once per process.

    Raises:
        MissingCapabilityError: the installation lacks the image's files.
    """
    image = _PACKAGE / "_image"
    if not (image / "Dockerfile").is_file():
        raise MissingCapabilityError(
            f"this installation of testbed lacks the node image's files ({image}/Dockerfile).\n"
            "Install it from its repository: pip install -e ."
        )
    return entries(image, _PACKAGE / "agent")


def entries(image: Path, agent: Path) -> tuple[Entry, ...]:
    """The context of the folder ``image`` with ``agent``'s Python modules below ``agent/``."""
    files = [*_below(image, "*", ""), *_below(agent, "*.py", "agent/")]
    return tuple(sorted(files))


def digest(files: Iterable[Entry]) -> str:
    """SHA-256 of the files and of the Debian release they are put on."""
    state = hashlib.sha256(f"{SUITE}\n".encode())
    for file in files:
        state.update(f"{file.mode:o} {len(file.content)} {file.path}\n".encode())
        state.update(file.content)
    return state.hexdigest()


def archive(files: Iterable[Entry]) -> io.BytesIO:
    """The files as a tar archive, the same bytes for the same files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for file in files:
            header = tarfile.TarInfo(file.path)
            header.mode, header.size = file.mode, len(file.content)
            tar.addfile(header, io.BytesIO(file.content))
    stream.seek(0)
    return stream


def _below(folder: Path, pattern: str, prefix: str) -> Iterator[Entry]:
    folder = folder.resolve()
    for path in folder.rglob(pattern):
        relative = path.relative_to(folder)
        if "__pycache__" in relative.parts or path.suffix == ".pyc" or not path.is_file():
            continue
        mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
        yield Entry(prefix + relative.as_posix(), mode, path.read_bytes())
