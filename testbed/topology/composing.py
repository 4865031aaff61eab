"""YAML text to PyYAML's nodes, fast: a thousand Services are two megabytes of manifests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import yaml

__all__ = ["nodes"]

_TAG = "tag:yaml.org,2002:"
_DOUBTFUL = re.compile("[\t!\x85\u2028\u2029\ufeff]|[|>][-+0-9]*#")
"""What libyaml and PyYAML do not read in the same way."""
_INTEGER = re.compile(r"[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?")


def nodes(text: str) -> Iterator[yaml.Node]:
    """The documents' nodes; libyaml is fifteen times as fast, PyYAML says better what is wrong."""
    done = 0
    if _FAST_LOADER is not None and not _DOUBTFUL.search(text):
        try:
            for node in _composed(_FAST_LOADER(text)):
                yield node
                done += 1
            return
        except (yaml.YAMLError, RecursionError, UnboundLocalError):
            pass  # the last one is a mistake of libyaml's binding, at great depth
    yield from islice(_composed(_Loader(text)), done, None)


def _composed(loader: Any) -> Iterator[yaml.Node]:
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield node
    finally:
        loader.dispose()


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    changed = {"timestamp", "int", "float"}
    kept = {
        first: [(tag, regexp) for tag, regexp in rows if tag.removeprefix(_TAG) not in changed]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for tag, pattern in (("float", _FLOAT), ("int", _INTEGER)):
        for first in "+-.0123456789":
            kept.setdefault(first, []).append((_TAG + tag, re.compile(rf"(?:{pattern.pattern})\Z")))
    return kept


class _Loader(yaml.SafeLoader):
    """YAML 1.1's types without dates and base-60 numbers."""

    yaml_implicit_resolvers = _resolvers()


_FAST_LOADER: Any = None
if yaml.__with_libyaml__:
    _FAST_LOADER = type(
        "_FastLoader",
        (yaml.CSafeLoader,),
        {"yaml_implicit_resolvers": _Loader.yaml_implicit_resolvers},
    )
