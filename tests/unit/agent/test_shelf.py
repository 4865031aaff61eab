"""Many named values in a few files."""

from __future__ import annotations

from pathlib import Path

from testbed.agent.shelf import Shelf

MANY = {f"default/web-{number}": {"number": number} for number in range(1000)}


def test_what_was_put_is_there(tmp_path: Path) -> None:
    """All of it, or the part that is asked for."""
    shelf = Shelf(str(tmp_path))
    assert shelf.all() == {}
    shelf.put(MANY)
    assert shelf.all() == MANY
    assert shelf.some(["default/web-7", "default/none"]) == {"default/web-7": {"number": 7}}


def test_a_change_writes_one_file(tmp_path: Path) -> None:
    """Of the others not even the time changes."""
    shelf = Shelf(str(tmp_path))
    shelf.put(MANY)
    before = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    shelf.put({"default/web-7": {"number": 8}})
    assert sum(path.stat().st_ino != before[path] for path in tmp_path.iterdir()) == 1
    assert shelf.all() == {**MANY, "default/web-7": {"number": 8}}


def test_what_is_gone_leaves_no_file(tmp_path: Path) -> None:
    """One by one, or all at once."""
    shelf = Shelf(str(tmp_path))
    shelf.put(MANY)
    shelf.put({"default/web-7": None})
    assert "default/web-7" not in shelf.all()
    shelf.replace({"": {"shared": 1}})
    assert shelf.all() == {"": {"shared": 1}}
    assert len(list(tmp_path.iterdir())) == 1
