"""YAML text as values that know where they stand.

What YAML hides is reported here: a duplicate key (the parser would silently keep the last one), a
tab in the indentation, an alias that contains itself. Scalars are typed as Kubernetes and Compose
type them, which is YAML 1.1 without dates and without base-60 numbers (``12:30`` is a string).

In a Compose file ``$$`` is a literal dollar, as Compose itself reads it, extension sections
included; ``$VAR`` is refused, because the result would depend on the caller's environment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

import yaml

from testbed.errors import Problem, TopologyError
from testbed.topology.composing import nodes

__all__ = ["BROKEN", "Place", "Problems", "Value", "describe", "documents", "located", "quote"]

_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a value stands; ``line`` counts from 1, 0 is the whole file."""

    file: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class Value:
    """One YAML value; in a mapping its place is that of its key."""

    data: Data
    place: Place


class Broken(Enum):
    """The type of :data:`BROKEN`."""

    BROKEN = "broken"


BROKEN: Final = Broken.BROKEN
"""Stands for a value whose problem is reported already, so that no reader reports it again."""

Data: TypeAlias = (
    "str | int | float | bool | Mapping[str, Value] | tuple[Value, ...] | Broken | None"
)


class Problems:
    """Collects every problem of an input, so that they are reported at once."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def add(self, place: Place, message: str) -> None:
        """Record one problem."""
        self._found.append(Problem(place.file, place.line, message))

    def check(self) -> None:
        """Raise what was found.

        Raises:
            TopologyError: there is at least one problem.
        """
        if self._found:
            raise TopologyError(self._found)


def quote(text: str) -> str:
    """A text of the input as messages print it: on one line, in quotes, not too long."""
    shown = text if len(text) <= 80 else text[:79] + "…"
    return json.dumps(shown, ensure_ascii=False)


def describe(data: Data) -> str:
    """Name a value in a message: ``the number 8080``, ``a list``."""
    match data:
        case None:
            return "nothing"
        case bool():
            return f"the boolean {str(data).lower()}"
        case int() | float():
            return f"the number {data}"
        case str():
            return f"the string {quote(data)}"
        case tuple():
            return "a list"
        case _:
            return "a mapping"


def located(data: object, place: Place) -> Value:
    """Wrap plain data (dicts, lists, scalars) as if it had been read at ``place``."""
    match data:
        case Mapping():
            return Value({str(key): located(value, place) for key, value in data.items()}, place)
        case list() | tuple():
            return Value(tuple(located(item, place) for item in data), place)
        case str() | int() | float() | None:
            return Value(data, place)
    raise TypeError(f"{type(data).__name__} is not YAML data")


def documents(
    text: str, file: str, problems: Problems, *, compose: bool = False
) -> list[Value] | None:
    """Parse every document of ``text``; empty documents are left out, as kubectl does.

    After a syntax error the rest of the file is unknown: None, and the error is in ``problems``.
    """
    try:
        return list(_documents(text, file, problems, compose))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.add(
            Place(file, line),
            f"invalid YAML: character U+{int(error.character):04X} is not allowed; remove it",
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.add(Place(file, mark.line + 1 if mark else 0), f"invalid YAML: {_explain(error)}")
    except RecursionError:
        problems.add(Place(file), "invalid YAML: nested too deeply to be a topology")
    return None


def _documents(text: str, file: str, problems: Problems, compose: bool) -> Iterator[Value]:
    for node in nodes(text):
        value = _Conversion(file, problems, compose).value(node)
        if value.data is not None:
            yield value


def _explain(error: yaml.MarkedYAMLError) -> str:
    message = ", ".join(part for part in (error.context, error.problem) if part)
    if r"'\t'" in message:
        return f"{message}; YAML does not allow tabs as indentation: use spaces"
    return message


class _Conversion:
    """Turns one document's node graph into values; aliases share what they point at."""

    def __init__(self, file: str, problems: Problems, compose: bool) -> None:
        self._constructor = yaml.constructor.SafeConstructor()
        self._file = file
        self._problems = problems
        self._compose = compose
        self._done: dict[int, Data] = {}
        self._open: set[int] = set()

    def value(self, node: yaml.Node, line: int | None = None) -> Value:
        own = int(node.start_mark.line) + 1
        return Value(self._data(node), Place(self._file, line or own))

    def _problem(self, node: yaml.Node, message: str) -> None:
        self._problems.add(Place(self._file, int(node.start_mark.line) + 1), message)

    def _data(self, node: yaml.Node) -> Data:
        if id(node) in self._open:
            self._problem(node, "an alias points at the value that contains it; write it out")
            return BROKEN
        if id(node) not in self._done:
            self._open.add(id(node))
            self._done[id(node)] = self._convert(node)
            self._open.remove(id(node))
        return self._done[id(node)]

    def _convert(self, node: yaml.Node) -> Data:
        match node:
            case yaml.MappingNode() if node.tag == f"{_TAG}map":
                return self._mapping(node)
            case yaml.SequenceNode() if node.tag == f"{_TAG}seq":
                return tuple(self.value(item) for item in node.value)
            case yaml.ScalarNode():
                return self._scalar(node)
        self._problem(node, f"the YAML tag {_short(node.tag)} is not supported; remove it")
        return BROKEN

    def _scalar(self, node: yaml.ScalarNode) -> Data:
        if node.tag.removeprefix(_TAG) not in {"str", "int", "float", "bool", "null"}:
            self._problem(node, f"the YAML tag {_short(node.tag)} is not supported; remove it")
            return BROKEN
        try:
            data: Any = self._constructor.construct_object(node)
        except (ValueError, KeyError, yaml.YAMLError):
            self._problem(node, f"{quote(node.value)} cannot be read as {_short(node.tag)}")
            return BROKEN
        if self._compose and isinstance(data, str):
            return self._without_variables(node, data)
        return data if isinstance(data, str | int | float | bool) else None

    def _without_variables(self, node: yaml.Node, text: str) -> Data:
        if "$" in text.replace("$$", ""):
            self._problem(
                node,
                f"{quote(text)}: testbed does not substitute variables in a Compose file, so that "
                'the file alone decides; write the value itself, or "$$" for a literal dollar',
            )
            return BROKEN
        return text.replace("$$", "$")

    def _mapping(self, node: yaml.MappingNode) -> Mapping[str, Value]:
        merged: dict[str, Value] = {}
        own: dict[str, Value] = {}
        for key_node, value_node in node.value:
            line = int(key_node.start_mark.line) + 1
            is_scalar = isinstance(key_node, yaml.ScalarNode)
            if key_node.tag == f"{_TAG}merge":
                for name, value in self._merge(value_node):
                    merged.setdefault(name, value)
            elif key_node.tag != f"{_TAG}str" or not is_scalar:
                hint = f": write {quote(key_node.value)}" if is_scalar else ""
                self._problem(key_node, f"a key must be a string{hint}")
                if is_scalar:
                    own.setdefault(key_node.value, Value(BROKEN, Place(self._file, line)))
            elif key_node.value in own:
                first = own[key_node.value].place.line
                self._problem(
                    key_node,
                    f"key {quote(key_node.value)} is already on line {first}; "
                    "YAML would silently keep only the last one: remove one of them",
                )
            else:
                own[key_node.value] = self.value(value_node, line)
        return merged | own

    def _merge(self, node: yaml.Node) -> Iterable[tuple[str, Value]]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            data = self._data(source)
            if isinstance(data, Mapping):
                yield from data.items()
            else:
                self._problem(source, '"<<" merges mappings, so it needs an alias of one')


def _short(tag: str) -> str:
    return f"!!{tag.removeprefix(_TAG)}" if tag.startswith(_TAG) else tag
