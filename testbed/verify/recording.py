"""A capture on several nodes while it runs: their packets as one sequence, ordered by time.

Every agent sends its packets in order, and says until when that was all. A packet is handed on when
every node has come that far.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from operator import attrgetter
from typing import TYPE_CHECKING

from testbed.agent import pcapng
from testbed.agent.pcapng import Interface, Reader, Record, Statistics
from testbed.errors import NodeError
from testbed.node import archive
from testbed.node.session import Session

if TYPE_CHECKING:
    import docker

__all__ = ["Feed", "Recording"]

_APPLICATION = "testbed capture"
_READY_SECONDS, _STOP_SECONDS = 30.0, 8.0
"""Two hundred tcpdumps on a busy machine begin in nine seconds."""
_ROOM = 64 << 20
"""Bytes of packets of one node that may wait for those of others while somebody reads along."""
_EVER = 1 << 64
_TIME = attrgetter("time_ns")


class Feed:
    """What one node's agent sends, and the thread that reads it."""

    def __init__(self, container: str, request: str) -> None:
        self.interfaces: list[Interface] = []
        self.statistics: dict[int, Statistics] = {}
        """By number of the node's interface, once its capture has ended."""
        self.records: deque[Record] = deque()
        self.until = 0
        """Everything until this time is there."""
        self.size = 0
        self.problems: tuple[str, ...] = ()
        """Why it is not, or not all, of what was asked for; said at its end."""
        self._container = container
        self._request = request
        self._session: Session | None = None
        self._held = ExitStack()
        self._reader = Reader()
        self._thread: threading.Thread | None = None
        self._closed = False

    def begin(self, client: docker.DockerClient) -> None:
        """Wait until the node captures; where the request is at fault, ``problems`` says so.

        Raises:
            NodeError: the node cannot be asked.
        """
        argv = ["testbed-agent", "capture", archive.deliver(client, self._container, self._request)]
        self._session = self._held.enter_context(Session(client, self._container, argv))
        self._chunks = self._session.chunks()
        timer = _later(_READY_SECONDS, self.hang_up)
        try:
            while not self.until:
                chunk = next(self._chunks, b"")
                if not chunk:
                    self._end()
                    break
                self._take(chunk)
        except ValueError as error:
            raise NodeError(self._damaged(error)) from error
        finally:
            timer.cancel()
        if self.problems and not self._session.errors.startswith("{"):
            raise NodeError("\n".join(self.problems))

    def follow(self, changed: threading.Condition, room: int) -> None:
        """Read in a thread of its own, and not further than there is room for."""
        self._changed, self._room = changed, room
        self._thread = threading.Thread(target=self._run, name=self._container, daemon=True)
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Let the agent send what it still has, and end."""
        if self._session is not None:
            try:
                self._session.send("stop")
            except NodeError:  # it has ended; its thread knows how
                return

    def hang_up(self) -> None:
        """End it at once."""
        if self._session is not None:
            self._session.hang_up()

    def close(self) -> None:
        """End it at once, and wait for that."""
        self._closed = True
        self.hang_up()
        if self._thread is not None:
            with self._changed:
                self._changed.notify_all()
            self._thread.join()
        self._held.close()

    def _run(self) -> None:
        damage = ""
        try:
            for chunk in self._chunks:
                with self._changed:
                    self._take(chunk)
                    self._changed.notify_all()
                    self._changed.wait_for(self._may_go_on)
        except ValueError as error:
            damage = self._damaged(error)
        finally:
            with self._changed:
                self._end()
                self.problems = (damage,) if damage else self.problems
                self._changed.notify_all()

    def _damaged(self, error: ValueError) -> str:
        return f"{self._container} sent what is no capture: {error}"

    def _may_go_on(self) -> bool:
        """Wait only with packets that others hold up: the rest of ours may say that ours go on."""
        held = self.size > self._room and self.records[0].time_ns <= self.until
        return self._closed or not held

    def _take(self, chunk: bytes) -> None:
        for block in self._reader.feed(chunk):
            if isinstance(block, Record):
                self.records.append(block)
                self.size += len(block.data)
            elif isinstance(block, Interface):
                self.interfaces.append(block)
            elif block.received is not None:
                self.statistics[block.index] = block
            else:
                self.until = block.time_ns

    def _end(self) -> None:
        """Nothing comes any more: judge what has come."""
        assert self._session is not None
        self.until = _EVER
        words = self._session.errors.strip()
        if words:
            self.problems = tuple(_told(line) for line in words.splitlines())
        elif len(self.statistics) < max(1, len(self.interfaces)):
            self.problems = (f"{self._session.what} did not end well: packets may be missing",)


class Recording:
    """A capture that runs; see :func:`testbed.verify.capture.capturing`."""

    def __init__(self, feeds: Sequence[Feed], *, live: bool) -> None:
        self._feeds = feeds
        self._changed = threading.Condition()
        self._given: list[Record] = []
        self._offsets = []
        interfaces: list[Interface] = []
        for feed in feeds:
            self._offsets.append(len(interfaces))
            interfaces += feed.interfaces
        self.interfaces = tuple(interfaces)
        """In the order of their numbers in packets."""
        self._stopping: threading.Timer | None = None
        self.captured = 0
        """How many packets were handed out so far."""
        for feed in feeds:
            feed.follow(self._changed, _ROOM if live else _EVER)

    def ask_to_stop(self) -> None:
        """End the capture, and do not wait for that; also from a signal's handler."""
        if self._stopping is None:
            self._stopping = _later(_STOP_SECONDS, self._hang_up)
            for feed in self._feeds:
                feed.ask_to_stop()

    def stop(self) -> None:
        """End the capture: everything that was captured until now is in :attr:`records` then.

        Raises:
            NodeError: a node did not say that it is everything.
        """
        self.ask_to_stop()
        for batch in self.batches():
            self._given += batch
        if self.problems:
            raise NodeError("\n".join(self.problems))

    def close(self) -> None:
        """End the capture at once."""
        self._hang_up()
        if self._stopping is not None:
            self._stopping.cancel()

    def _hang_up(self) -> None:
        for feed in self._feeds:
            feed.hang_up()

    @property
    def records(self) -> Sequence[Record]:
        """All packets, in the order of time, once the capture was stopped."""
        return self._given

    @property
    def statistics(self) -> tuple[Statistics, ...]:
        """What every interface received and dropped, once the capture has ended."""
        return tuple(
            each._replace(index=offset + index)
            for feed, offset in zip(self._feeds, self._offsets, strict=True)
            for index, each in sorted(feed.statistics.items())
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """Why packets may be missing, once the capture has ended."""
        return tuple(dict.fromkeys(problem for feed in self._feeds for problem in feed.problems))

    @property
    def dropped(self) -> int:
        """How many packets the kernel had no room for, once the capture has ended."""
        return sum(each.dropped or 0 for each in self.statistics)

    def pcapng(self) -> bytes:
        """The whole file, once the capture was stopped."""
        return b"".join((self.head(), *(pcapng.packet(*each) for each in self._given), self.tail()))

    def head(self) -> bytes:
        """The beginning of a file."""
        described = (pcapng.interface(each.name, each.link_type) for each in self.interfaces)
        return b"".join((pcapng.section(_APPLICATION), *described))

    def tail(self) -> bytes:
        """The end of a file, once the capture has ended."""
        return b"".join(
            pcapng.statistics(
                each.index, each.time_ns, received=each.received, dropped=each.dropped
            )
            for each in self.statistics
        )

    def stream(self, count: int | None = None) -> Iterator[bytes]:
        """A file, in pieces that are whole blocks, as packets come; see :meth:`batches`."""
        yield self.head()
        for batch in self.batches(count):
            yield b"".join(pcapng.packet(*each) for each in batch)
        yield self.tail()

    def batches(self, count: int | None = None) -> Iterator[list[Record]]:
        """Packets in the order of time as they come, until the capture is asked to stop.

        With ``count``, it is asked to when so many have come, and the rest is left out.
        """
        while batch := self._next():
            kept = batch if count is None else batch[: max(0, count - self.captured)]
            self.captured += len(kept)
            if count is not None and self.captured >= count and kept:
                self.ask_to_stop()
            if kept:
                yield kept

    def _next(self) -> list[Record]:
        """The packets that no others can come before; none: that was all."""
        with self._changed:
            while True:
                until = min(feed.until for feed in self._feeds)
                batch: list[Record] = []
                for feed, offset in zip(self._feeds, self._offsets, strict=True):
                    while feed.records and feed.records[0].time_ns <= until:
                        record = feed.records.popleft()
                        feed.size -= len(record.data)
                        batch.append(record._replace(index=offset + record.index))
                if batch or until == _EVER:
                    break
                self._changed.wait()
            self._changed.notify_all()
        return sorted(batch, key=_TIME)


def _told(line: str) -> str:
    """A problem in the agent's words."""
    try:
        problem = json.loads(line)
        return ": ".join(problem[key] for key in ("where", "what", "why") if problem[key])
    except (ValueError, TypeError, KeyError):
        return line


def _later(seconds: float, act: Callable[[], object]) -> threading.Timer:
    """Do something after a time, unless it is cancelled."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    return timer
