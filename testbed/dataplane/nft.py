"""The table ``ip kube-proxy`` as text, in the spelling of ``nft list table``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["table"]


def table(units: Iterable[Mapping[str, Any]]) -> str:
    """The table of the ``nft`` parts of units; elements are in the order of the units.

    Raises:
        ValueError: elements are of a set that no unit declares.
    """
    chains: dict[str, Mapping[str, Any]] = {}
    sets: dict[str, Mapping[str, str]] = {}
    elements: dict[str, dict[str, str]] = {}
    for unit in units:
        chains |= unit["chains"]
        sets |= unit["sets"]
        for name, pairs in unit["elements"].items():
            elements.setdefault(name, {}).update(pairs)
    if elements.keys() - sets.keys():
        raise ValueError(f"no unit declares {', '.join(elements.keys() - sets.keys())}")
    blocks = [
        *(_set(name, each, elements.get(name, {})) for name, each in sets.items()),
        *(_chain(name, each) for name, each in chains.items()),
    ]
    return 'table ip kube-proxy {\n\tcomment "rules for kube-proxy"\n' + "\n".join(blocks) + "}\n"


def _set(name: str, declared: Mapping[str, str], elements: Mapping[str, str]) -> str:
    lines = declared["spec"].rstrip(";").split("; ")
    if elements:
        texts = [f"{key} : {value}" if value else key for key, value in elements.items()]
        lines.append("elements = { " + ",\n\t\t\t     ".join(texts) + " }")
    return _block(f"{declared['kind']} {name}", lines)


def _chain(name: str, chain: Mapping[str, Any]) -> str:
    first = [f'comment "{chain["comment"]}"'] if "comment" in chain else []
    first += [chain["base"]] if chain["base"] else []
    return _block(f"chain {name}", first + chain["rules"])


def _block(head: str, lines: Iterable[str]) -> str:
    return "".join([f"\t{head} {{\n", *(f"\t\t{line}\n" for line in lines), "\t}\n"])
