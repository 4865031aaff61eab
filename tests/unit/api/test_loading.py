"""Which topology is meant, and what may be said instead of what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed.api.loading import loaded
from testbed.errors import UsageError
from testbed.topology.load import find


def test_names_and_paths() -> None:
    """The same topology, with the same overrides."""
    assert loaded("flannel", nodes=2) == loaded(find("flannel"), nodes=2, name=None)


@pytest.mark.parametrize(
    ("topology", "overrides", "words"),
    [
        (None, {}, "None is neither the name of a topology nor the path of one"),
        ("flannel", {"nodez": 3}, "nodez: there is name, nodes"),
        ("flannel", {"nodes": "2"}, "nodes='2': use a number"),
        ("flannel", {"nodes": True}, "nodes=True: use a number"),
        ("flannel", {"pods_per_node": [2]}, "use a number"),
        ("flannel", {"name": 5}, "name=5: use a word"),
        (Path("/nonexistent/x.yaml"), {}, 'there is no file "/nonexistent/x.yaml"'),
    ],
)
def test_what_is_wrong_is_named(topology: Any, overrides: dict[str, Any], words: str) -> None:
    """Before anything is made of it."""
    with pytest.raises(UsageError, match=words):
        loaded(topology, **overrides)
