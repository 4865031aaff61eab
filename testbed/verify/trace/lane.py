"""One leg as a lane of a drawing: numbered hops with arrows between them, and their headers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise

from testbed.verify.trace import shapes, words
from testbed.verify.trace.cards import cards
from testbed.verify.trace.model import ExpectedHop, Hop, Leg
from testbed.verify.trace.stations import COLUMN, MARGIN, Layout

__all__ = ["Lane", "lane"]

_RADIUS = 14.0
_SIZE = 11.0


@dataclass(frozen=True, slots=True)
class Lane:
    """What is to be drawn."""

    parts: tuple[str, ...]
    bottom: float


def lane(name: str, leg: Leg, layout: Layout, top: float, *, lost: bool) -> Lane:
    """A lane with its upper edge at ``top``.

    Args:
        name: ``request`` or ``reply``.
        leg: what to draw.
        layout: the columns.
        top: where it begins.
        lost: whether the packet died here, if the leg diverges.
    """
    y = top + 44
    rows = list(words.rows(leg))
    seen = _seen(name, leg, layout)
    missing = [
        (layout.column(row.wanted, name), row.wanted)
        for row in rows
        if row.seen is None and row.wanted is not None
    ]
    told, below = _captions(layout, seen, [each for each in missing if each[0] not in seen], y)
    placed = sorted((column, hops[0]) for column, hops in seen.items())
    boxes, bottom = cards(layout, placed, below + 6)
    parts = [
        *_title(name, y),
        *_ways(name, leg, layout, [column for column, _ in missing], y),
        *_bubbles(name, layout, seen, y),
        *(
            shapes.circle(layout.centers[column], y, _RADIUS - 2, "f-background s-dim dash")
            for column, _ in missing
            if column not in seen
        ),
        *_divergence(name, leg, layout, y, lost=lost),
        *told,
        *boxes,
    ]
    return Lane(tuple(parts), bottom + 16)


def _seen(name: str, leg: Leg, layout: Layout) -> dict[int, list[Hop]]:
    """Column → the hops there; more than one where the packet came by again."""
    found: dict[int, list[Hop]] = {}
    for hop in leg.observed:
        found.setdefault(layout.column(hop.event, name), []).append(hop)
    return found


def _title(name: str, y: float) -> list[str]:
    x = MARGIN
    ends = (x, x + 56) if name == "request" else (x + 56, x)
    return [
        shapes.words(x, y - 10, name, 14, f"bold f-{name}"),
        shapes.arrow(*ends, y + 4, name),
    ]


def _ways(name: str, leg: Leg, layout: Layout, missing: list[int], y: float) -> Iterator[str]:
    """Arrows from hop to hop, and the way that was not taken."""
    forward = 1 if name == "request" else -1
    hops = [(layout.column(hop.event, name), hop.expected) for hop in leg.observed]
    shown = {*(column for column, _ in hops), *missing}
    last = next((column for column, _ in hops[::-1]), None)
    if missing:
        behind = [column for column, fine in hops if fine and (missing[0] - column) * forward > 0]
        last = max(behind, key=lambda each: each * forward, default=None)
    for here, following in pairwise([*([] if last is None else [last]), *missing]):
        yield from _way(layout, here, following, shown, y, "dim", "dash")
    drawn: dict[tuple[int, int], str] = {}
    for (here, fine), (following, good) in pairwise(hops):
        drawn.setdefault((here, following), name if fine and good else "odd")
    for (here, following), colour in drawn.items():
        if here != following:
            back = (following - here) * forward < 0
            yield from _way(layout, here, following, shown, y, colour, over=back)


def _way(
    layout: Layout,
    here: int,
    following: int,
    shown: Collection[int],
    y: float,
    colour: str,
    style: str = "",
    *,
    over: bool = False,
) -> Iterator[str]:
    """One arrow; over whatever else is shown between its ends."""
    x1, x2 = layout.centers[here], layout.centers[following]
    if over or any(min(here, following) < each < max(here, following) for each in shown):
        yield shapes.arc(x1, x2, y - _RADIUS, colour, style)
        return
    gap = _RADIUS + 2 if x2 > x1 else -_RADIUS - 2
    if style:
        yield shapes.line(x1 + gap, y, x2 - gap, y, f"s-{colour} {style}")
    else:
        yield shapes.arrow(x1 + gap, x2 - gap, y, colour)


def _bubbles(name: str, layout: Layout, seen: dict[int, list[Hop]], y: float) -> Iterator[str]:
    for column, hops in seen.items():
        x, first = layout.centers[column], hops[0]
        colour = name if all(hop.expected for hop in hops) else "odd"
        about = f"{words.hop_name(first)}: {first.event.packet.length} bytes"
        yield shapes.circle(x, y, _RADIUS, f"f-{colour} s-{colour}", about)
        text = f"{first.number or '•'}" + ("…" if len(hops) > 1 else "")
        yield shapes.words(x, y + 4.5, text, 13, "bold f-on", "middle")


def _captions(
    layout: Layout,
    seen: dict[int, list[Hop]],
    missing: list[tuple[int, ExpectedHop]],
    y: float,
) -> tuple[list[str], float]:
    """When and what, under each hop; elements, and where they end."""
    texts: dict[int, tuple[str, list[str]]] = {}
    for column, hops in seen.items():
        told = ", ".join(hops[0].happened)
        if len(hops) > 1:
            numbers = ", ".join(str(hop.number) for hop in hops[1:6])
            told += f", again: {numbers}" + (" …" if len(hops) > 6 else "")
        texts[column] = ("f-text", shapes.wrapped(told, COLUMN - 8, _SIZE))
    for column, wanted in missing:
        told = f"expected: {wanted.what or wanted.direction}"
        texts.setdefault(column, ("f-dim", shapes.wrapped(told, COLUMN - 8, _SIZE)))
    top = y + _RADIUS + 27
    parts = [
        shapes.words(
            layout.centers[column],
            top - 14,
            words.duration(hops[0].since_ns),
            10,
            "mono f-dim",
            "middle",
        )
        for column, hops in seen.items()
    ]
    parts += [
        part
        for column, (style, rows) in texts.items()
        for part in shapes.lines(layout.centers[column], top, rows, _SIZE, style, "middle")
    ]
    deepest = max((len(rows) for _, rows in texts.values()), default=0)
    return parts, top + (deepest - 1) * _SIZE * 1.25 + 4


def _divergence(name: str, leg: Leg, layout: Layout, y: float, *, lost: bool) -> Iterator[str]:
    """Where the walk leaves the path, and where the packet was lost, which may be farther on."""
    if leg.divergence is None or leg.divergence >= len(leg.expected):
        return
    forward = 1 if name == "request" else -1
    following = layout.centers[layout.column(leg.expected[leg.divergence], name)]
    if leg.divergence:
        before = layout.centers[layout.column(leg.expected[leg.divergence - 1], name)]
    else:
        before = following - COLUMN * forward * 0.66
    strayed = any(not hop.expected for hop in leg.observed)
    if strayed or not lost:
        x = (before + following) / 2 if following - before < 2 * COLUMN else before + COLUMN / 2
        yield shapes.circle(x, y, 11, "f-odd s-background", "it leaves the expected path here")
        yield shapes.words(x, y + 5, "!", 15, "bold f-on", "middle")
        yield shapes.words(x, y - 19, "leaves the path", 11, "bold f-odd", "middle")
    if not lost:
        return
    x = (before + following) / 2
    if strayed:
        x = layout.centers[layout.column(leg.observed[-1].event, name)] + COLUMN * forward * 0.45
    yield shapes.circle(x, y, 13, "f-dead s-background", "it was not seen beyond this point")
    yield shapes.line(x - 5, y - 5, x + 5, y + 5, "s-on", 3)
    yield shapes.line(x - 5, y + 5, x + 5, y - 5, "s-on", 3)
    yield shapes.words(x, y - 19, "lost here", 11, "bold f-dead", "middle")
