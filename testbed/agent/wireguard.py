"""Applying WireGuard settings: keys, port and peers of devices that are there.

The device itself is a kernel object like any other; what is inside it is not in ``ip``'s listing
but in ``wg``'s. ``wg syncconf`` changes only what differs, so that sessions with peers that stay go
on. There is nothing to remove: settings go with their device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .command import run

__all__ = ["apply", "same"]


def apply(wanted: Iterable[Mapping[str, Any]]) -> list[str]:
    """Bring devices to their settings; return the commands run, without the keys they read.

    Args:
        wanted: rulesets whose name is a device's and whose content is what ``wg showconf`` prints.

    Raises:
        CommandError: ``wg`` refused; there is no such device, or a line is wrong.
    """
    changes = []
    for item in wanted:
        name, content = item["name"], item["content"]
        if same(run(["wg", "showconf", name]).decode(), content):
            continue
        run(["wg", "syncconf", name, "/dev/stdin"], stdin=content.encode())
        changes.append(f"wg syncconf {name}")
    return changes


def same(have: str, want: str) -> bool:
    """Whether two texts say the same, in whatever order of peers, keys and allowed addresses."""
    return _sections(have) == _sections(want)


def _sections(text: str) -> set[frozenset[tuple[str, frozenset[str]]]]:
    sections: list[set[tuple[str, frozenset[str]]]] = []
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if line.startswith("["):
            sections.append({(line, frozenset())})
        elif equals and sections:
            sections[-1].add((key.strip(), frozenset(value.replace(",", " ").split())))
    return {frozenset(section) for section in sections}
