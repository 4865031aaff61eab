"""YAML as values that know where they stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from testbed.errors import TopologyError
from testbed.topology import composing
from testbed.topology.source import BROKEN, Place, Problems, Value, documents, located, quote


def plain(value: Value) -> Any:
    """The value without its places."""
    if isinstance(value.data, Mapping):
        return {key: plain(item) for key, item in value.data.items()}
    if isinstance(value.data, tuple):
        return [plain(item) for item in value.data]
    return value.data


def read(text: str, *, compose: bool = False) -> list[Any]:
    """The documents of a text without problems."""
    problems = Problems()
    found = documents(text, "f.yaml", problems, compose=compose)
    problems.check()
    assert found is not None
    return [plain(value) for value in found]


def messages(text: str) -> str:
    """What is wrong with a text."""
    problems = Problems()
    documents(text, "f.yaml", problems)
    with pytest.raises(TopologyError) as raised:
        problems.check()
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("12", 12),
        ("-3", -3),
        ("0x1F", 31),
        ("0o17", "0o17"),
        ("1.5", 1.5),
        ("1e3", "1e3"),
        ("1.2.3", "1.2.3"),
        ("10.244.0.0/16", "10.244.0.0/16"),
        ("12:30", "12:30"),
        ("2024-01-31", "2024-01-31"),
        ("yes", True),
        ("off", False),
        ("'yes'", "yes"),
        ("~", None),
        ("10M", "10M"),
        ("-", [None]),
    ],
)
def test_scalars(text: str, data: object) -> None:
    """Types are YAML 1.1's, but dates and base-60 numbers are strings, as in Kubernetes."""
    assert read(f"key: {text}" if text != "-" else "key:\n- ") == [{"key": data}]


def test_places_are_those_of_keys_and_entries() -> None:
    """A value in a mapping stands at its key, an entry of a list where it begins."""
    found = documents("a:\n\n  b: 1\nc:\n  - x\n  - y\n", "f.yaml", Problems())
    assert found is not None
    top = found[0].data
    assert isinstance(top, Mapping)
    assert top["a"].place == Place("f.yaml", 1)
    nested = top["a"].data
    assert isinstance(nested, Mapping)
    assert nested["b"].place == Place("f.yaml", 3)
    entries = top["c"].data
    assert isinstance(entries, tuple)
    assert [entry.place.line for entry in entries] == [5, 6]


def test_empty_documents_are_left_out() -> None:
    """As kubectl does."""
    assert read("---\n---\na: 1\n---\n# nothing\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]


def test_merge_keys() -> None:
    """A mapping's own keys win over merged ones, and the first merged mapping over the next."""
    text = "x: &x {a: 1, b: 1}\ny: &y {a: 2, c: 2}\nz:\n  <<: [*x, *y]\n  b: 3\n"
    assert read(text)[0]["z"] == {"a": 1, "b": 3, "c": 2}


def test_shared_aliases_do_not_explode() -> None:
    """A document that would expand to 10^30 values is read at once."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 31)]
    assert documents("\n".join(lines), "f.yaml", Problems()) is not None


def test_deep_nesting_is_a_problem_not_a_crash() -> None:
    """Python's recursion limit does not reach the user."""
    assert messages("[" * 1000) == "f.yaml: invalid YAML: nested too deeply to be a topology"


def test_what_is_wrong_later_does_not_repeat_what_is_wrong_before() -> None:
    """Documents before a syntax error are read once, and their problems are reported once."""
    assert messages("a: 1\na: 2\n---\nb: [\n---\n").splitlines() == [
        'f.yaml:2: key "a" is already on line 1; YAML would silently keep only the last one: '
        "remove one of them",
        "f.yaml:5: invalid YAML: while parsing a flow node, expected the node content, but found "
        "'<document start>'",
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("a: [1, 2.5, 0x1f, yes, ~, 1:30, 2001-01-01]", "a: |+1\n  x\n\n", "x: &a [1]\ny: *a"),
        *(
            "a: 1\n...\n---\n- b",
            "a: 'b\n  c'\nd: \"e\\tf\"",
            "|#",
            ">-# x",
            "a\tb",
            "!",
            "\ufeff\ufeffa",
        ),
    ],
)
def test_both_parsers_read_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """libyaml, where it is there, is only for speed."""

    def both() -> tuple[list[Value] | None, str]:
        problems = Problems()
        found = documents(text, "f.yaml", problems)
        try:
            problems.check()
        except TopologyError as error:
            return found, str(error)
        return found, ""

    fast = both()
    monkeypatch.setattr(composing, "_FAST_LOADER", None)
    assert both() == fast


def test_a_list_that_says_it_is_a_string_is_no_key() -> None:
    """A tag does not make it one."""
    assert messages("? !!str [1]\n: a") == "f.yaml:1: a key must be a string"


def test_an_integer_of_ten_thousand_digits_is_a_problem() -> None:
    """Python refuses to convert it."""
    assert "cannot be read as !!int" in messages(f"a: {'9' * 10_000}")


def test_dollars_of_a_compose_file() -> None:
    """Two dollars are one, as Compose reads them; in a manifest they stay."""
    assert read("a: $$(NAME) $$$$", compose=True) == [{"a": "$(NAME) $$"}]
    assert read("a: $$(NAME) ${NAME}") == [{"a": "$$(NAME) ${NAME}"}]


def test_a_broken_value_is_marked() -> None:
    """So that nothing else is said about it."""
    found = documents("a: !tag x", "f.yaml", Problems())
    assert found is not None
    assert plain(found[0]) == {"a": BROKEN}


def test_plain_data_is_located_as_a_whole() -> None:
    """For topologies that never were a file."""
    place = Place("memory")
    value = located({"a": [1, None, {"b": True}]}, place)
    assert plain(value) == {"a": [1, None, {"b": True}]}
    with pytest.raises(TypeError, match="set is not YAML data"):
        located({1}, place)


def test_quotes_are_one_short_line() -> None:
    """Whatever the input holds cannot break a message's line."""
    assert quote("a\nb") == '"a\\nb"'
    assert len(quote("x" * 500)) == 82
