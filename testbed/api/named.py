"""Nodes and pods by name, with an answer to a name that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

__all__ = ["Named"]

T = TypeVar("T")


class Named(Mapping[str, T]):
    """Name → handle, in the topology's order."""

    def __init__(self, kind: str, key: Callable[[str], str] = str) -> None:
        """``key`` makes the key of another way to write a name."""
        self._kind = kind
        self._handles: Mapping[str, T] = {}
        self._key = key

    def hold(self, handles: Mapping[str, T]) -> None:
        """Hold these from now on, for everybody who has this mapping."""
        self._handles = handles

    def __getitem__(self, name: str) -> T:
        try:
            return self._handles[self._key(name)]
        except KeyError:
            there = ", ".join(self._handles) or "none"
            raise KeyError(f"there is no {self._kind} {name!r}; there is {there}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._handles)

    def __len__(self) -> int:
        return len(self._handles)

    def __repr__(self) -> str:
        return f"<{len(self)} {self._kind}s: {', '.join(self._handles)}>"
