"""What the lane keeps between runs, outside the tree: artefacts named by what they are made from.

An artefact is a folder ``NAME-KEY``, made in full or not at all. One process at a time makes
artefacts; runs hold the ones they use, so that nobody removes them meanwhile.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

__all__ = ["Cache", "home", "key"]

_LOCK = "lock"
"""A file in a run's folder that its process holds locked."""


def home() -> Path:
    """``testbed-vm`` in the user's cache directory."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(configured) if configured else Path.home() / ".cache") / "testbed-vm"


def key(*inputs: object) -> str:
    """16 digits that stand for ``inputs``: values that JSON can spell."""
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


class Cache:
    """Artefacts below ``root``, and the folders of runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._own: set[Path] = set()

    @contextmanager
    def making(self, waiting: Callable[[], object]) -> Iterator[None]:
        """Be the only process that makes artefacts; ``waiting`` is called if another one is."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "making.lock").open("w") as lock:
            if not _locked(lock):
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            for path in (self.root / "unfinished").glob("*"):
                shutil.rmtree(path)
            yield

    @contextmanager
    def using(self) -> Iterator[Path]:
        """A folder for one run, which begins while artefacts are made and is removed at its end.

        While a process holds one, no other process removes artefacts.
        """
        runs = self.root / "runs"
        runs.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=runs))
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._own.add(folder)
            try:
                yield folder
            finally:
                self._own.discard(folder)
                shutil.rmtree(folder)

    def path(self, name: str, key: str) -> Path:
        """Where an artefact is, or would be."""
        return self.root / f"{name}-{key}"

    def artefact(self, name: str, key: str, make: Callable[[Path], object]) -> Path:
        """Return the artefact's folder, having ``make`` fill it if it is not there."""
        path = self.path(name, key)
        if not path.exists():
            unfinished = self.root / "unfinished" / path.name
            unfinished.mkdir(parents=True)
            try:
                make(unfinished)
                unfinished.rename(path)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return path

    def forget(self, kept: Collection[Path]) -> list[str]:
        """Remove every artefact but ``kept``; return the names of what was removed.

        Other runs may use any of them: nothing is removed until a call finds none.
        """
        if self._others_run():
            return []
        old = [path for path in self.root.glob("*-*") if path.is_dir() and path not in kept]
        for path in old:
            shutil.rmtree(path)
        return sorted(path.name for path in old)

    def _others_run(self) -> bool:
        """Whether runs of other processes last; what killed ones left behind is removed."""
        lasting = False
        for folder in (self.root / "runs").glob("*"):
            if folder in self._own:
                continue
            with suppress(FileNotFoundError), (folder / _LOCK).open("a") as lock:
                if _locked(lock):
                    shutil.rmtree(folder)  # not found, where its own process was faster
                else:
                    lasting = True
        return lasting


def _locked(file: IO[str]) -> bool:
    """Whether we got the file's lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
