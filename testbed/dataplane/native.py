"""Rendering a plan to the native files that the agent feeds to ``ip``, ``bridge`` and the like.

The files are what somebody would type by hand: they stay on the node under :data:`DIRECTORY` to be
read, and ``testbed plan`` prints them without Docker.
"""

from __future__ import annotations

from collections.abc import Iterable

from testbed.dataplane.spec import File, KernelObject, Ruleset

__all__ = ["DIRECTORY", "native_files"]

DIRECTORY = "/etc/testbed/native"

_SUFFIX = {"fdb": "bridge"}
"""Every other kind is read by ``ip -batch``."""
_RULES_SUFFIX = {"iptables-restore": "iptables", "ipset": "ipset", "wg": "conf", "nft": "nft"}


def native_files(objects: Iterable[KernelObject], rulesets: Iterable[Ruleset]) -> tuple[File, ...]:
    """One file per run of objects of a kind, numbered in the order they are applied."""
    files: list[tuple[str, list[str]]] = []
    kind = ""
    for item in objects:
        if item.kind != kind:
            kind = item.kind
            files.append((f"{kind}.{_SUFFIX.get(kind, 'ip')}", []))
        files[-1][1].extend(item.create)
    contents = [(name, "\n".join(lines) + "\n") for name, lines in files]
    contents += [(f"{rules.name}.{_RULES_SUFFIX[rules.tool]}", rules.content) for rules in rulesets]
    return tuple(
        File(f"{DIRECTORY}/{number:02d}-{name}", content)
        for number, (name, content) in enumerate(contents, start=1)
    )
