"""Applying ``ipset save`` fragments: level-triggered, and atomic for the rules that match them.

A set whose members differ is filled under another name and swapped, as Felix does, so that no
packet ever meets a half-filled set. What varies by kernel and version (``hashsize``,
``bucketsize``, ``initval``) is not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .command import run
from .errors import AgentError, CommandError

__all__ = ["IpSet", "apply", "difference", "parse", "remove"]

_SPARE = "testbed-spare"
"""Where a set's new members are collected before the swap."""


class IpSet(NamedTuple):
    """One set of a fragment or of the kernel."""

    kind: str
    create: str
    """The line that makes it, without ``create NAME``."""
    members: frozenset[str]


def parse(text: str) -> dict[str, IpSet]:
    """Read ``ipset save`` output or a fragment."""
    created: dict[str, str] = {}
    members: dict[str, set[str]] = {}
    for line in text.splitlines():
        verb, _, rest = line.partition(" ")
        name, _, what = rest.partition(" ")
        if verb == "create":
            created[name] = what
        elif verb == "add":
            members.setdefault(name, set()).add(what)
    return {
        name: IpSet(create.partition(" ")[0], create, frozenset(members.get(name, ())))
        for name, create in created.items()
    }


def difference(wanted: Mapping[str, IpSet], have: Mapping[str, IpSet]) -> list[str]:
    """What ``ipset restore`` must read so that the sets come to hold what is wanted."""
    differing = [name for name in wanted if _differs(wanted[name], have.get(name))]
    # A restore that failed leaves it behind.
    lines = [f"destroy {_SPARE}"] if differing and _SPARE in have else []
    for name in differing:
        if name in have:
            lines += [*_filled(_SPARE, wanted[name]), f"swap {_SPARE} {name}", f"destroy {_SPARE}"]
        else:
            lines += _filled(name, wanted[name])
    return lines


def _differs(each: IpSet, present: IpSet | None) -> bool:
    return present is None or (present.kind, present.members) != (each.kind, each.members)


def _filled(name: str, each: IpSet) -> list[str]:
    return [
        f"create {name} {each.create}",
        *(f"add {name} {member}" for member in sorted(each.members)),
    ]


def _sets(fragments: Iterable[Mapping[str, Any]]) -> dict[str, IpSet]:
    found: dict[str, IpSet] = {}
    for item in fragments:
        found |= parse(item["content"])
    return found


def _save() -> dict[str, IpSet]:
    return parse(run(["ipset", "save"]).decode())


def apply(fragments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Make the kernel's sets hold the fragments; return the lines fed to ``ipset restore``.

    Raises:
        AgentError: ``ipset`` refused a line.
    """
    wanted = _sets(fragments)
    return _restore(difference(wanted, _save())) if wanted else []


def remove(
    fragments: Iterable[Mapping[str, Any]], previous: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Destroy the sets of ``previous`` that are no longer wanted; no rule names them any more.

    Raises:
        AgentError: ``ipset`` refused, for example because a rule of somebody else names a set.
    """
    gone = [name for name in _sets(previous) if name not in _sets(fragments)]
    if not gone:
        return []
    have = _save()
    return _restore([f"destroy {name}" for name in gone if name in have])


def _restore(lines: list[str]) -> list[str]:
    if not lines:
        return []
    try:
        run(["ipset", "restore"], stdin=("\n".join(lines) + "\n").encode())
    except CommandError as error:
        text = "\n".join(lines)
        raise AgentError("ipset restore refused the sets", text, error.output) from None
    return [f"ipset {line}" for line in lines]
