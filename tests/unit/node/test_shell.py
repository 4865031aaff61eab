"""The parts of the Docker shell that need no Docker."""

from __future__ import annotations

import io
import multiprocessing
import tarfile
import threading
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.dataplane.features import Features
from testbed.errors import NodeError
from testbed.node import archive, lock, underlay
from testbed.node.container import Setting
from testbed.node.parallel import each

PRIVILEGED = Features.full()
NODES = replace(PRIVILEGED, privileged=False)


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


def test_unpack_reads_the_file() -> None:
    """What the engine sends is a tar of one file."""
    assert archive.unpack(archive.pack({"/a": b"hello"})) == b"hello"


def test_unpack_of_a_directory() -> None:
    """There is no file to read."""
    with pytest.raises(FileNotFoundError):
        archive.unpack(archive.pack({}))


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


def test_free_subnets_avoid_everything_that_overlaps() -> None:
    """A larger network in use hides every pool inside it."""
    free = underlay.free_subnets([IPv4Network("172.16.0.0/13"), IPv4Network("172.24.3.0/24")])
    assert next(free) == IPv4Network("172.25.0.0/16")


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


def test_a_setting_is_recognised_by_what_only_a_new_container_changes() -> None:
    """Image, privileges, address, network, and what pods are attached by."""
    setting = Setting("testbed-node:1", NODES, IPv4Address("172.18.0.2"), "net1", "cni1")
    others = {
        replace(setting, image="testbed-node:2").digest,
        replace(setting, able=PRIVILEGED).digest,
        replace(setting, address=IPv4Address("172.18.0.3")).digest,
        replace(setting, network="net2").digest,
        replace(setting, attachment="cni2").digest,
        setting.digest,
    }
    assert len(others) == 6
