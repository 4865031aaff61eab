"""A capture as a value: nothing while it runs, its packets afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from testbed.agent import pcapng
from testbed.api.packets import Captured, StillCapturingError
from testbed.api.testbed import Testbed
from testbed.errors import UsageError
from testbed.packets.selection import Packets
from testbed.verify import capture
from testbed.verify.capture import Source
from tests.unit.api.conftest import POD, THERE

REQUEST = bytes.fromhex(
    "020000000002020000000001080045000054000140004001247c0af400020af401020800000000010001"
    + "7e57bed0" * 14
)


class FakeRecording:
    """One echo request on the first interface."""

    dropped = 0

    def __init__(self, sources: Sequence[Source], filter: str) -> None:  # noqa: A002
        self.interfaces = [SimpleNamespace(name=each.name) for each in sources]
        self.sources = sources
        self.filter = filter
        self.stopped = False

    def stop(self) -> None:
        """Everything is there now."""
        self.stopped = True

    def pcapng(self) -> bytes:
        """A file."""
        assert self.stopped
        blocks = [pcapng.section("test")]
        blocks += [pcapng.interface(each.name, 1) for each in self.interfaces]
        return b"".join([*blocks, pcapng.packet(0, 1, REQUEST, len(REQUEST))])


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[FakeRecording]:
    """Every capture that is begun."""
    made: list[FakeRecording] = []

    @contextmanager
    def capturing(
        client: Any, cluster: Any, sources: Sequence[Source], expression: str
    ) -> Iterator[FakeRecording]:
        made.append(FakeRecording(sources, expression))
        yield made[-1]

    monkeypatch.setattr(capture, "capturing", capturing)
    return made


def test_packets_are_there_after_the_block(made: Testbed, recordings: list[FakeRecording]) -> None:
    """And the capture as a file."""
    node, here, there = made.nodes["node1"], made.pods[POD], made.pods[THERE]
    with made.capture(node.uplink, made.nodes["node2"]["flannel.1"], filter="icmp") as packets:
        assert not recordings[0].stopped
    assert recordings[0].filter == "icmp"
    assert isinstance(packets, Packets)
    assert len(packets) == 1
    assert packets.between(here, there).on(node.uplink)
    assert not packets.on("node2/flannel.1").between(here, there)
    assert packets.pcapng.startswith(b"\x0a\x0d\x0d\x0a")


@pytest.mark.parametrize("ask", [bool, len, list, lambda p: p.icmp(), lambda p: p.pcapng])
def test_packets_cannot_be_asked_for_while_the_capture_runs(ask: Any) -> None:
    """An empty selection there would be no proof of anything."""
    with pytest.raises(StillCapturingError, match="when the `with` block has ended"):
        ask(Captured())
    assert repr(Captured()) == "<a capture without packets>"


def test_interfaces_places_and_words(made: Testbed, recordings: list[FakeRecording]) -> None:
    """All that may be meant by where; the same one twice is one."""
    node, pod = made.nodes["node1"], made.pods[POD]
    with made.capture(node, node.uplink, pod, pod.veth, "node2:flannel.1"):
        pass
    assert recordings[0].sources == (
        Source("node1/eth0", "node1", "eth0"),
        Source(f"{POD}/eth0", "node1", "eth0", POD),
        Source("node1/veth1", "node1", "veth1"),
        Source("node2/flannel.1", "node2", "flannel.1"),
    )


def test_nothing_given_is_every_uplink(made: Testbed, recordings: list[FakeRecording]) -> None:
    """As with ``testbed capture``."""
    with made.capture():
        pass
    assert [each.name for each in recordings[0].sources] == [
        f"node{number}/eth0" for number in (1, 2, 3)
    ]


def test_a_word_that_names_nothing(made: Testbed, recordings: list[FakeRecording]) -> None:
    """Is told before anything runs."""
    words = "no node, router, client or pod 'node9'"
    with pytest.raises(UsageError, match=words), made.capture("node9"):
        pass
    assert not recordings


def test_a_failing_block_keeps_its_own_error(
    made: Testbed, recordings: list[FakeRecording]
) -> None:
    """Nothing is waited for then."""
    with pytest.raises(ZeroDivisionError), made.capture():
        raise ZeroDivisionError
    assert not recordings[0].stopped


def test_a_capture_that_was_broken_off_says_so(
    made: Testbed, recordings: list[FakeRecording]
) -> None:
    """It does not run any more, and what to do is another thing."""
    with pytest.raises(ZeroDivisionError), made.capture() as packets:
        raise ZeroDivisionError
    with pytest.raises(StillCapturingError, match="ZeroDivisionError ended the block"):
        len(packets)


@pytest.mark.parametrize("where", [None, 42, ["node1"]])
def test_what_cannot_be_captured_is_named(
    made: Testbed, recordings: list[FakeRecording], where: Any
) -> None:
    """Such as a list, where its interfaces were meant."""
    with (
        pytest.raises(UsageError, match="cannot be captured: give interfaces"),
        made.capture(where),
    ):
        pass
    assert not recordings
