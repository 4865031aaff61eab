"""Frames of several tcpdumps as one pcapng in the order of time, until whoever reads it stops."""

from __future__ import annotations

import os
import select
import time
from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter

from . import pcapng
from .errors import AgentError
from .source import Frame, Source

__all__ = ["Stream"]

_TICK_SECONDS, _BATCH_SECONDS = 0.05, 0.003
_LATENESS_NS = 20_000_000
"""A frame has its time when the kernel gets it, and may wait in a queue before it is captured."""
_STOP_SECONDS = 2.0
_FULL = 64 << 20
"""Bytes that wait for a slow reader; then tcpdumps wait, too, and the kernel counts its drops."""
_TIME = attrgetter("time_ns")


class Stream:
    """The pcapng on its way: ``stdin`` says when to stop, ``stdout`` gets it."""

    def __init__(self, sources: Sequence[Source], stdin: int, stdout: int) -> None:
        self._sources = sources
        self._stdin = stdin
        self._stdout = stdout
        self._frames: list[Frame] = []
        self._waiting = bytearray()
        self._until = 0
        self._told = 0.0
        os.set_blocking(stdout, False)

    def run(self, head: bytes) -> list[AgentError]:
        """Hand out ``head`` and packets until told to stop; return what went wrong."""
        self._waiting += head
        for source in self._sources:  # what came together with the beginning of its file
            self._frames += source.frames(b"")
        self._advance(time.time_ns() - _LATENESS_NS)
        try:
            while not (self._all_ended or self._turn([self._stdin], _TICK_SECONDS)):
                self._advance(self._complete_until() - _LATENESS_NS)
            late = not self._drained(time.time_ns(), time.monotonic() + _STOP_SECONDS)
            gone = [source for source in self._sources if source.ended]
            self._end()
            self._flush(time.monotonic() + _STOP_SECONDS)
        except BrokenPipeError:  # nobody reads any longer
            return []
        problems = [AgentError("the capture ended early", each.name, _words(each)) for each in gone]
        if late:
            where = ", ".join(source.name for source in self._sources)
            problems.append(AgentError("frames may be missing at the end", where, "too many came"))
        return problems

    def _turn(self, stopping: list[int], seconds: float) -> bool:
        """Wait for anything, read and write; whether the request to stop has come."""
        room = len(self._waiting) < _FULL
        sources = [each for each in self._sources if room and not each.ended]
        if self._frames:  # they can be handed out soon
            seconds = min(seconds, _LATENESS_NS / 1e9)
        ready = self._select([*stopping, *sources], seconds)
        until = time.monotonic() + _BATCH_SECONDS
        told: list[int | Source] = []
        while ready and stopping and not told and time.monotonic() < until:
            told = self._select(
                stopping, until - time.monotonic()
            )  # more frames for the same price
        for source in ready:
            if isinstance(source, Source):
                self._frames += source.take()
        return bool(told) and _told_to_stop(self._stdin)

    def _select(self, reading: Sequence[int | Source], seconds: float) -> list[int | Source]:
        """What can be read, as soon as there is something; writes meanwhile what can be written."""
        writing = [self._stdout] if self._waiting else []
        ready, writable, _ = select.select(reading, writing, [], max(0.0, seconds))
        if writable:
            self._write()
        return ready

    @property
    def _all_ended(self) -> bool:
        """Whether nothing can come any more, as when the only pod was deleted."""
        return all(source.ended for source in self._sources)

    def _complete_until(self) -> int:
        return min(source.complete_until() for source in self._sources)

    def _drained(self, until: int, deadline: float) -> bool:
        """Read all that was captured until a time; whether that was done before the deadline."""
        while self._complete_until() < until:
            if time.monotonic() >= deadline:
                return False
            self._turn([], 0.001)
        return True

    def _advance(self, until: int) -> None:
        """Hand out everything until a time, and say so; what is late comes late."""
        self._frames.sort(key=_TIME)
        ready = bisect_right(self._frames, until, key=_TIME)
        for time_ns, interface, data, length in self._frames[:ready]:
            self._waiting += pcapng.packet(interface, time_ns, data, length)
        del self._frames[:ready]
        now = time.monotonic()
        if ready or now - self._told >= _TICK_SECONDS:
            self._told = now
            self._until = max(until, self._until)
            self._waiting += pcapng.statistics(0, self._until)

    def _end(self) -> None:
        """End every tcpdump, hand out what is left, and what each of them counted."""
        for source in self._sources:
            source.tcpdump.end()
        for source in self._sources:
            self._frames += source.frames(source.tcpdump.close())
        now = time.time_ns()
        self._frames.sort(key=_TIME)
        for time_ns, interface, data, length in self._frames:
            self._waiting += pcapng.packet(interface, time_ns, data, length)
        for source in self._sources:
            counts = {
                "received": source.tcpdump.count("received by filter"),
                "dropped": source.tcpdump.count("dropped by kernel"),
            }
            self._waiting += pcapng.statistics(source.index, now, **counts)

    def _flush(self, deadline: float) -> None:
        """Write what waits, as long as there is somebody who reads."""
        while self._waiting and time.monotonic() < deadline:
            self._select([], _TICK_SECONDS)

    def _write(self) -> None:
        del self._waiting[: os.write(self._stdout, self._waiting[: 1 << 16])]


def _told_to_stop(stdin: int) -> bool:
    """By a line, or by the end of the input: whoever wanted the capture is gone."""
    words = os.read(stdin, 4096)
    return not words or b"stop" in words


def _words(source: Source) -> str:
    """Why tcpdump has ended, as far as it had a word to say about that."""
    said = source.tcpdump.words.decode(errors="replace").splitlines()
    reasons = [
        line.removeprefix("tcpdump: ").removeprefix("pcap_loop: ")
        for line in said
        if line.startswith("tcpdump: ") and "listening on" not in line
    ]
    return ", ".join(reasons) or "tcpdump was killed"
