"""Many named values in a few files, so that one of thousands is changed without writing the rest.

A name's file follows from its hash. Each file is a JSON object on one line.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Shelf"]

_FILES = 32


class Shelf:
    """The values that a directory holds."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def all(self) -> dict[str, Any]:
        """Every value by its name."""
        found: dict[str, Any] = {}
        for path in sorted(self._directory.glob("*.json")):
            found |= json.loads(path.read_bytes())
        return found

    def some(self, names: Iterable[str]) -> dict[str, Any]:
        """The values of these names, as far as there are any."""
        wanted = list(names)
        held: dict[str, Any] = {}
        for path in {self._path(name) for name in wanted}:
            held |= _read(path)
        return {name: held[name] for name in wanted if name in held}

    def put(self, values: Mapping[str, Any]) -> None:
        """Change the values of these names; ``None`` removes one."""
        changed: dict[Path, dict[str, Any]] = {}
        for name, value in values.items():
            changed.setdefault(self._path(name), {})[name] = value
        for path, part in changed.items():
            merged = {**_read(path), **part}
            _write(path, {name: merged[name] for name in merged if merged[name] is not None})

    def replace(self, values: Mapping[str, Any]) -> None:
        """Hold these values and no others."""
        gone = {name: None for name in self.all() if name not in values}
        self.put({**gone, **values})

    def _path(self, name: str) -> Path:
        return self._directory / f"{zlib.crc32(name.encode()) % _FILES:03}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return found


def _write(path: Path, values: Mapping[str, Any]) -> None:
    if not values:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(values, separators=(",", ":")) + "\n", encoding="utf-8")
    fresh.rename(path)
