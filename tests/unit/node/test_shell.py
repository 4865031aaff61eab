"""The parts of the Docker shell that need no Docker."""

from __future__ import annotations

import io
import multiprocessing
import tarfile
import threading

import pytest

from testbed.errors import NodeError
from testbed.node import archive, lock
from testbed.node.parallel import each


def test_packed_files_have_their_directories() -> None:
    """The engine would make missing ones with its own mode."""
    data = archive.pack({"/etc/testbed/spec.json": b"{}", "/etc/testbed/other": b"x"})
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(entry.name, entry.isdir()) for entry in tar] == [
            ("etc", True),
            ("etc/testbed", True),
            ("etc/testbed/spec.json", False),
            ("etc/testbed/other", False),
        ]


def test_unpack_reads_the_files() -> None:
    """What the engine sends is a tar of one file, or of a directory."""
    assert archive.unpack(archive.pack({"/a": b"hello"})) == [b"hello"]
    assert archive.unpack(archive.pack({"/d/a": b"1", "/d/b": b"2"})) == [b"1", b"2"]
    assert archive.unpack(archive.pack({})) == []


def test_results_come_in_the_items_order() -> None:
    """However long each takes."""
    first = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            first.wait(5)
        else:
            first.set()
        return item * 2

    assert each(work, [0, 1]) == [0, 2]


def test_nothing_to_do() -> None:
    """No thread is started for it."""
    assert each(str, []) == []


def test_a_single_failure_is_raised_as_it_is() -> None:
    """The others are finished all the same."""
    done = []

    def work(item: int) -> None:
        if item == 1:
            raise NodeError("one")
        done.append(item)

    with pytest.raises(NodeError, match="one"):
        each(work, range(3))
    assert sorted(done) == [0, 2]


def test_all_failures_are_reported() -> None:
    """As a group, in the items' order."""

    def work(item: int) -> None:
        raise NodeError(str(item))

    with pytest.raises(ExceptionGroup) as caught:
        each(work, range(2))
    assert [str(error) for error in caught.value.exceptions] == ["0", "1"]


def test_a_lock_is_held_by_one_at_a_time() -> None:
    """The second waits, is told who holds it, and gives up in time."""
    holders: list[int] = []
    name = f"unit-{threading.get_native_id()}"
    with (
        lock.held(name),
        pytest.raises(NodeError, match="still being changed by process"),
        lock.held(name, holders.append, seconds=0.1),
    ):
        pass
    assert holders == [multiprocessing.current_process().pid]
    with lock.held(name, seconds=0.1):
        pass
