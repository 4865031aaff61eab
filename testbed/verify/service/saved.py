"""``iptables-save -c``: its rules in words that people read, with both counters."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Saved", "parse"]

_RULE = re.compile(r"^\[(\d+):(\d+)\] -A (\S+) ?(.*)$")
_DEFAULT = {"--mode": "random", "--mask": "255.255.255.255", "--rsource": ""}
"""Options that every rule of kube-proxy's has alike: they tell nothing."""


@dataclass(frozen=True, slots=True)
class Saved:
    """One rule."""

    match: tuple[str, ...]
    """Without comment, target, and the ``-m`` that the other options imply."""
    target: str
    """Empty: none, it only counts."""
    details: tuple[str, ...]
    """The target's options."""
    comment: str
    packets: int
    bytes: int

    def option(self, name: str) -> str:
        """The value of an option; empty where there is none, or a negated one."""
        for before, word, after in zip(("", *self.match), self.match, self.match[1:], strict=False):
            if word == name:
                return "" if before == "!" else after
        return ""

    @property
    def address(self) -> str:
        """The destination it wants; empty where that is no single address."""
        return self.option("-d").removesuffix("/32")

    @property
    def port(self) -> int:
        """The destination port it wants, or 0."""
        text = self.option("--dport")
        return int(text) if text.isdigit() else 0


def parse(text: str) -> dict[tuple[str, str], list[Saved]]:
    """Table and chain → its rules; chains without rules as well."""
    table = ""
    found: dict[tuple[str, str], list[Saved]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            found.setdefault((table, line[1:].split()[0]), [])
        elif rule := _RULE.match(line):
            packets, size, chain, body = rule.groups()
            found.setdefault((table, chain), []).append(_rule(body, int(packets), int(size)))
    return found


def _rule(body: str, packets: int, size: int) -> Saved:
    words = shlex.split(body)
    jump = next((place for place, word in enumerate(words) if word in ("-j", "-g")), len(words))
    match, comment = _match(words[:jump])
    target = words[jump + 1] if jump + 1 < len(words) else ""
    return Saved(tuple(match), target, tuple(words[jump + 2 :]), comment, packets, size)


def _match(words: Sequence[str]) -> tuple[list[str], str]:
    """What is left of the match when everything that goes without saying is left out."""
    found: list[str] = []
    comment = ""
    rest = iter(words)
    for word in rest:
        if word == "-m":
            next(rest, "")
        elif word == "--comment":
            comment = next(rest, "")
        elif word in _DEFAULT:
            if _DEFAULT[word]:
                next(rest, "")
        else:
            found.append(word)
    return found, comment
