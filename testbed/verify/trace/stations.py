"""Where a drawing has what: the interfaces on the path as columns, in boxes of pods and nodes.

Both legs share the columns. The request goes through them from left to right, and the reply back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

from testbed.verify.trace.model import IN, OUT, Event, ExpectedHop, Leg

__all__ = ["COLUMN", "GUTTER", "MARGIN", "Layout", "Station", "arrange"]

COLUMN = 150.0
GUTTER = 86.0
MARGIN = 24.0
_WIRE = 72.0
_NODE_PAD = 14.0
_POD_PAD = 12.0
_TURNED = {IN: OUT, OUT: IN}


class Station(NamedTuple):
    """An interface, as a packet on its way from source to target crosses it."""

    place: str
    node: str
    interface: str
    direction: str


class Span(NamedTuple):
    """A box around neighbouring columns."""

    name: str
    left: float
    right: float


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a walk."""

    stations: tuple[Station, ...]
    centers: tuple[float, ...]
    """The x of each station."""
    nodes: tuple[Span, ...]
    pods: tuple[Span, ...]
    """Of namespaces within a node."""
    links: frozenset[int]
    """Columns from which a packet goes, or should, to the next one or comes from it."""
    width: float

    def column(self, hop: ExpectedHop | Event, leg: str) -> int:
        """Of a hop of the ``request`` or of the ``reply``."""
        found = _find(self.stations, _station(hop, reverse=leg == "reply"))
        assert found is not None
        return found


def arrange(request: Leg, reply: Leg) -> Layout:
    """Columns for everything that was seen or expected."""
    stations: list[Station] = []
    places = {hop.place for leg in (request, reply) for hop in leg.expected}
    expected = [_way(request.expected), _way(reply.expected, reverse=True)]
    observed = [
        _way([hop.event for hop in request.observed]),
        _way([hop.event for hop in reply.observed], reverse=True),
    ]
    for way in expected:
        _merge(stations, way, None)
    for way in observed:
        _merge(stations, way, places)
    return _placed(stations, frozenset(_links(stations, [*expected, *observed])))


def _way(hops: Sequence[ExpectedHop | Event], *, reverse: bool = False) -> list[Station]:
    """From source to target."""
    way = [_station(hop, reverse=reverse) for hop in hops]
    return way[::-1] if reverse else way


def _links(stations: Sequence[Station], ways: Iterable[Sequence[Station]]) -> Iterator[int]:
    for way in ways:
        for ends in pairwise(_find(stations, each) for each in way):
            here, following = sorted(each for each in ends if each is not None)
            if following == here + 1:
                yield here


def _station(hop: ExpectedHop | Event, *, reverse: bool) -> Station:
    direction = _TURNED.get(hop.direction, hop.direction) if reverse else hop.direction
    return Station(hop.place, hop.node, hop.interface, direction)


def _find(stations: Sequence[Station], wanted: Station) -> int | None:
    """The column of this crossing, else one of the same interface."""
    if wanted in stations:
        return stations.index(wanted)
    same = (
        column
        for column, each in enumerate(stations)
        if (each.place, each.interface) == (wanted.place, wanted.interface)
    )
    return next(same, None)


def _merge(stations: list[Station], way: Iterable[Station], shared: Collection[str] | None) -> None:
    """Add what is new, behind what comes before it on its way, within its own place if it can.

    In places that are ``shared``, an interface has one column, whichever way it is crossed.
    Elsewhere it has two if need be, as a node that sends a packet back where it came from, or lo.
    ``None``: it is an expected path. A node to which that comes back from another one, as to a
    router between a client, the node that it asks and the endpoint, is there twice. What was
    observed tells no such thing: copies of a packet may be in several nodes at once.
    """
    behind = -1
    for wanted in way:
        found = _find(stations, wanted)
        if wanted not in stations and found is not None and found <= behind:
            found = found if wanted.place in (shared or ()) else None
        if found is None:
            if behind < 0 or stations[behind].place != wanted.place:
                left = shared is None and behind >= 0 and stations[behind].node != wanted.node
                own = [
                    at
                    for at, each in enumerate(stations)
                    if each.place == wanted.place and not (left and at < behind)
                ]
                behind = own[-1] if own else behind
            found = _boundary(stations, behind + 1, wanted.node)
            stations.insert(found, wanted)
        behind = found


def _boundary(stations: Sequence[Station], at: int, node: str) -> int:
    """Where a column of ``node`` can stand nearest to ``at`` without splitting another node."""

    def splits(index: int) -> bool:
        around = {each.node for each in stations[max(index - 1, 0) : index + 1]}
        return 0 < index < len(stations) and len(around) == 1 and node not in around

    whole = [index for index in range(len(stations) + 1) if not splits(index)]
    return min(whole, key=lambda index: abs(index - at))


def _placed(stations: Sequence[Station], links: frozenset[int]) -> Layout:
    centers: list[float] = []
    nodes: list[Span] = []
    pods: list[Span] = []
    x = MARGIN + GUTTER
    for node, columns in groupby(stations, key=lambda each: each.node):
        left = x
        x += _NODE_PAD
        for place, inside in groupby(columns, key=lambda each: each.place):
            pad = _POD_PAD if place != node else 0.0
            begin = x
            x += pad
            for _ in inside:
                centers.append(x + COLUMN / 2)
                x += COLUMN
            x += pad
            if pad:
                pods.append(Span(place, begin, x))
        x += _NODE_PAD
        nodes.append(Span(node, left, x))
        x += _WIRE
    width = (x - _WIRE if stations else x) + MARGIN
    return Layout(tuple(stations), tuple(centers), tuple(nodes), tuple(pods), links, width)
