"""A trace as text: every hop there and back, then where and why the packet died."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from testbed.packets import text
from testbed.verify.trace import words

if TYPE_CHECKING:
    from testbed.cli.console import Console
    from testbed.verify.trace.model import Diagnosis, Event, Leg, Trace

__all__ = ["lines", "render"]

_WIDTH = 120
_HEAD = ("", "#", "TIME", "NODE", "INTERFACE", "DIR", "TTL", "LENGTH", "WHAT HAPPENED")
_RIGHT = frozenset({1, 2, 6, 7})
"""Columns that hold numbers."""
_INDENT = " " * 5
_MOST = 60
"""More hops than that in one leg are a loop: those in between are only counted."""
_ASCII = str.maketrans({"✓": "ok", "✗": "x", "µ": "u", "…": "...", "→": "->", "·": ",", "≠": "!"})


def render(console: Console, trace: Trace) -> None:
    """Print the walk; in ASCII where the terminal or file cannot hold more."""
    encoding = (sys.stdout.encoding or "ascii").lower()
    for line in lines(trace):
        if not encoding.startswith("utf"):
            line = line.translate(_ASCII).encode(encoding, "replace").decode(encoding)
        console.print(line)


def lines(trace: Trace) -> Iterator[str]:
    """The whole text, line by line."""
    yield f"testbed {trace.testbed}: {words.probe(trace.probe)}"
    yield f"  from {words.endpoint(trace.source)}"
    yield f"  to   {words.target(trace)}"
    for name, leg in zip(("request", "reply"), words.walked(trace), strict=True):
        if leg.observed or (leg.expected and (name == "request" or trace.request.complete)):
            yield ""
            yield f"{name}: {_summary(leg, arrived=leg.complete or trace.answered)}"
            yield from _leg(leg)
    if trace.conntrack:
        yield ""
        yield f"conntrack on {words.tracking(trace)}:"
        for entry in trace.conntrack:
            yield from _wrapped(entry, "  ", " " * 13)
    if trace.errors:
        yield ""
        yield "ICMP errors:"
        for event in trace.errors:
            yield from _event(trace, event)
    yield ""
    yield f"{'✓' if trace.ok else '✗'} {words.verdict(trace)}"
    if trace.diagnosis is not None:
        yield from _diagnosis(trace.diagnosis, diverges=words.diverges(trace))
    if trace.error and not any(trace.error in line for line in _proof(trace)):
        yield from _wrapped(trace.error, f"  {'error':13}  ", " " * 17)


def _summary(leg: Leg, *, arrived: bool) -> str:
    """How many hops there were, and whether they are the right ones."""
    seen, wanted, good = len(leg.observed), len(leg.expected), leg.divergence
    if good is None:
        return f"{seen} hops" + (", as expected" if wanted else "")
    if not seen:
        return f"not seen; {wanted} hops are expected"
    end = "left the expected path" if arrived else "lost"
    off = seen - good
    more = f"; {off} more seen, ! where not expected" if off > 0 else ""
    return f"{end} after {good} of {wanted} expected hops{more}"


def _leg(leg: Leg) -> Iterator[str]:
    """A table; under a hop, the packet's headers wherever they are others than before."""
    table: list[tuple[Sequence[str], tuple[words.Layer, ...]]] = [(_HEAD, ())]
    before: tuple[words.Layer, ...] = ()
    found = list(words.rows(leg))
    for row in found:
        hop = row.seen
        now = words.layers(hop.event.packet) if hop else before
        table.append((_cells(row, leg), () if _same(now, before) else now))
        before = now
    widths = [max(len(cells[column]) for cells, _ in table) for column in range(len(_HEAD))]
    left_out = range(_MOST // 2 + 1, len(table) - _MOST // 2)
    for number, (cells, headers) in enumerate(table):
        if number in left_out:
            if number == left_out.start:
                yield f"{_INDENT}… {len(left_out)} more hops (all of them: -o json)"
            continue
        yield from _aligned(cells, widths)
        for depth, layer in enumerate(headers):
            yield from _headers(layer, _INDENT + "  " * depth)


def _headers(layer: words.Layer, indent: str) -> Iterator[str]:
    """One line, or two where one would be too long."""
    whole = f"{layer.macs}  {layer}" if layer.macs else f"{layer}"
    if len(indent) + len(whole) <= _WIDTH:
        yield indent + whole
    else:
        yield from (indent + part for part in (layer.macs, str(layer)) if part)


def _same(now: Sequence[words.Layer], before: Sequence[words.Layer]) -> bool:
    """Whether nothing but a TTL, which every line shows, is different."""
    return [each._replace(ttl=None) for each in now] == [each._replace(ttl=None) for each in before]


def _cells(row: words.Row, leg: Leg) -> tuple[str, ...]:
    if row.seen is None:
        assert row.wanted is not None
        wanted = row.wanted
        begins = leg.expected[leg.expected.index(wanted) - 1].encapsulation != wanted.encapsulation
        how = words.wanted(wanted) if begins else wanted.what
        mark, when = ("✗", "expected next") if row.diverges else ("", "then")
        place = _interface(wanted.place, wanted.node, wanted.interface)
        return (mark, "", "", wanted.node, place, wanted.direction, "", "", f"{when}: {how}")
    hop, event = row.seen, row.seen.event
    told = ", ".join(hop.happened)
    if hop.fragments > 1:
        told += f" [{hop.fragments} fragments]"
    return (
        "" if hop.expected else "!",
        str(hop.number or ""),
        words.duration(hop.since_ns),
        event.node,
        _interface(event.place, event.node, event.interface),
        event.direction,
        "" if event.packet.innermost.ttl is None else str(event.packet.innermost.ttl),
        str(event.packet.length),
        told.strip(),
    )


def _interface(place: str, node: str, interface: str) -> str:
    return interface if place == node else f"{place}/{interface}"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """A line of the table; what happened goes on below itself where there is no room for it."""
    padded = (
        cell.rjust(width) if column in _RIGHT else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells[:-1], widths[:-1], strict=True))
    )
    place = "  ".join(padded)
    return _wrapped(cells[-1], f"{place}  ", " " * (len(place) + 2)) or [place.rstrip()]


def _proof(trace: Trace) -> Sequence[str]:
    return trace.diagnosis.evidence if trace.diagnosis else ()


def _event(trace: Trace, event: Event) -> list[str]:
    """One sight that is in no leg."""
    began = words.began(trace)
    since = words.duration(event.packet.time_ns - began) if began else ""
    where = f"{event.place}/{event.interface} {event.direction}"
    return _wrapped(text.line(event.packet), f"  {since:>9}  {where}  ", " " * 13)


def _diagnosis(found: Diagnosis, *, diverges: bool) -> Iterator[str]:
    rows = [
        ("cause", f"{found.cause} ({found.leg}, at {found.place}): {found.summary}"),
        ("last seen", (found.last or "nowhere") if diverges else ""),
        ("expected next", found.expected if diverges else ""),
        *(("" if number else "evidence", line) for number, line in enumerate(found.evidence)),
        ("what to do", found.advice),
    ]
    for title, value in rows:
        for part, line in enumerate(value.splitlines()):
            yield from _wrapped(line, f"  {'' if part else title:13}  ", " " * 17)


def _wrapped(line: str, first: str, following: str) -> list[str]:
    return textwrap.wrap(
        line,
        max(_WIDTH, len(following) + 24),
        initial_indent=first,
        subsequent_indent=following,
        break_long_words=False,
        break_on_hyphens=False,
    )
