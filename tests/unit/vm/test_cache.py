"""The lane's cache: artefacts whole or not at all, and nothing removed that a run uses."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.vm.cache import Cache, home, key


def unexpected() -> None:
    """Called where another process must be waited for."""
    raise AssertionError("somebody else holds the lock")


def made(cache: Cache, name: str, inputs: str = "inputs") -> Path:
    """An artefact with one file."""
    with cache.making(unexpected):
        return cache.artefact(name, key(inputs), lambda folder: (folder / "file").write_text(name))


def test_keys_are_of_content() -> None:
    """Equal inputs, equal keys; lists and their joined text differ."""
    assert key("bookworm", ["a", "b"]) == key("bookworm", ("a", "b"))
    assert len({key("a", "b"), key("ab"), key(["a", "b"]), key("b", "a")}) == 4
    assert len(key()) == 16


def test_home_is_the_user_s_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_CACHE_HOME, else ~/.cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "testbed-vm"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert home() == Path("/home/somebody/.cache/testbed-vm")


def test_an_artefact_is_made_once(tmp_path: Path) -> None:
    """The second call finds it; another key makes another one."""
    cache = Cache(tmp_path)
    calls: list[Path] = []
    with cache.making(unexpected):
        for inputs in ("a", "a", "b"):
            path = cache.artefact("root", key(inputs), calls.append)
            assert path.is_dir()
    assert len(calls) == 2


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    """Neither an artefact nor a part of one."""
    cache = Cache(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "part").touch()
        raise KeyboardInterrupt

    with cache.making(unexpected), pytest.raises(KeyboardInterrupt):
        cache.artefact("root", key(), fail)
    assert not cache.path("root", key()).exists()
    assert not list((tmp_path / "unfinished").iterdir())


def test_one_process_makes_at_a_time(tmp_path: Path) -> None:
    """A second one is told to wait before it waits."""

    class WaitedError(Exception):
        """Instead of waiting."""

    def waiting() -> None:
        raise WaitedError

    with (
        Cache(tmp_path).making(unexpected),
        pytest.raises(WaitedError),
        Cache(tmp_path).making(waiting),
    ):
        pass
    with Cache(tmp_path).making(unexpected):
        pass


def test_what_a_killed_maker_left_is_removed(tmp_path: Path) -> None:
    """By the next one."""
    (tmp_path / "unfinished/root-1/usr").mkdir(parents=True)
    with Cache(tmp_path).making(unexpected):
        assert not list((tmp_path / "unfinished").iterdir())


def test_old_artefacts_are_removed(tmp_path: Path) -> None:
    """And only those."""
    cache = Cache(tmp_path)
    old, new = made(cache, "root", "old"), made(cache, "root", "new")
    assert cache.forget({new}) == [old.name]
    assert not old.exists()
    assert new.exists()
    assert cache.forget({new}) == []


def test_nothing_is_removed_while_another_run_lasts(tmp_path: Path) -> None:
    """Our own run is no reason to keep what is old; another one's is."""
    ours, other = Cache(tmp_path), Cache(tmp_path)
    old = made(ours, "root", "old")
    with ExitStack() as run:
        folder = run.enter_context(other.using())
        assert ours.forget(()) == []
        assert folder.is_dir()
    assert not folder.exists()
    with ours.using() as folder:
        assert ours.forget(()) == [old.name]
        assert folder.is_dir()


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    """Its lock went with it."""
    left = tmp_path / "runs/left"
    left.mkdir(parents=True)
    (left / "payload.tar").touch()
    Cache(tmp_path).forget(())
    assert not left.exists()
