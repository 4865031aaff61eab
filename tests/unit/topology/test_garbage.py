"""Wrong input of any kind is a list of problems, never a crash."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import TopologyError
from testbed.topology.changes import applied, deleted
from testbed.topology.load import from_dict
from testbed.topology.model import Cluster
from testbed.topology.source import Place, Problems, documents, located
from tests.unit.topology.strategies import CNIS, clusters, topologies, wide_topologies

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(
        ["default", "10.244.0.0/16", "80", "-", "name", "10M", "::/0", "node1", "router"]
    ),
)
_KEYS = st.one_of(st.text(max_size=5), st.sampled_from(["type", "name", "subnet", "value"]))
_GARBAGE = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=4,
)


def spoiled(draw: st.DrawFn, data: Any) -> Any:
    """The data with one value somewhere replaced."""
    children: list[Any] = list(data) if isinstance(data, dict) else list(range(len(data)))
    if not children or draw(st.integers(0, 9)) == 0:
        return draw(_GARBAGE)
    key = draw(st.sampled_from(children))
    inner = data[key]
    data[key] = spoiled(draw, inner) if isinstance(inner, dict | list) else draw(_GARBAGE)
    return data


@st.composite
def spoiled_topologies(draw: st.DrawFn) -> Any:
    """A valid topology with some values replaced by anything."""
    data: Any = draw(topologies() | wide_topologies())
    for _ in range(draw(st.integers(1, 3))):
        data = spoiled(draw, data) if isinstance(data, dict) else data
    return data


@settings(max_examples=60, deadline=None)
@given(spoiled_topologies())
def test_any_data(data: Any) -> None:
    """Every value may be of any type."""
    with suppress(TopologyError):
        from_dict(data, cnis=CNIS)


@st.composite
def spoiled_manifests(draw: st.DrawFn) -> Any:
    """Manifests with some values replaced by anything."""
    found: Any = draw(topologies())["x-testbed"]["manifests"]
    for _ in range(draw(st.integers(0, 3))):
        found = spoiled(draw, found) if isinstance(found, list) else found
    return found


@settings(max_examples=40, deadline=None)
@given(clusters(), spoiled_manifests(), st.booleans())
def test_any_change(cluster: Cluster, manifests: Any, missing_ok: bool) -> None:
    """A change that is accepted is one that changes nothing when it is made again."""
    items = located(manifests, Place("f")).data
    found = [("", item) for item in items] if isinstance(items, tuple) else []
    with suppress(TopologyError):
        changed = applied(cluster, found)
        assert applied(changed, found) == changed
    with suppress(TopologyError):
        deleted(cluster, found, missing_ok=missing_ok)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="a1:-[]{}&*!|>'\"#%@`, \n\t?<~$\x00é\ufeff", max_size=30))
def test_any_text(text: str) -> None:
    """Text that is no YAML is one problem, text that is some is values."""
    problems = Problems()
    values = documents(text, "f.yaml", problems, compose=True)
    if values is None:
        with suppress(TopologyError):
            problems.check()
            raise AssertionError("nothing was reported")
