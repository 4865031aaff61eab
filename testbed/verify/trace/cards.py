"""The packet as nested boxes, one card for every stretch of the path on which it looks the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from testbed.verify.trace import shapes, words
from testbed.verify.trace.model import Hop
from testbed.verify.trace.stations import COLUMN, Layout

__all__ = ["cards"]

_SIZE = 10.0
_STEP = _SIZE * 1.3
_PAD = 6.0


class _Box(NamedTuple):
    """A layer with its lines, and the boxes inside it."""

    kind: str
    lines: tuple[tuple[str, str], ...]
    """Style and text."""
    height: float
    inner: _Box | None


def cards(layout: Layout, hops: Sequence[tuple[int, Hop]], top: float) -> tuple[list[str], float]:
    """Elements, and where they end.

    Args:
        layout: the columns.
        hops: column and hop of everything that is shown, from left to right.
        top: where they begin.
    """
    parts: list[str] = []
    bottom = top
    for layers, group in groupby(hops, key=lambda each: words.layers(each[1].event.packet)):
        columns = [column for column, _ in group]
        left = layout.centers[columns[0]] - COLUMN / 2 + 4
        right = layout.centers[columns[-1]] + COLUMN / 2 - 4
        made = _box(layers, right - left)
        parts += _drawn(made, left, top, right - left)
        bottom = max(bottom, top + made.height)
    return parts, bottom


def _box(layers: Sequence[words.Layer], width: float) -> _Box:
    layer, rest = layers[0], layers[1:]
    inner = _box(rest, width - 2 * _PAD) if rest else None
    texts = [
        (style, part)
        for style, text in _texts(layer)
        for part in shapes.wrapped(text, width - 2 * _PAD, _SIZE, shapes.MONO)
    ]
    height = _PAD * 2 + len(texts) * _STEP + (inner.height if inner else 0)
    return _Box(layer.kind, tuple(texts), height, inner)


def _texts(layer: words.Layer) -> Iterator[tuple[str, str]]:
    """Style and text of what a layer's headers say, from the outside to the inside."""
    if layer.macs:
        yield "mono f-dim", layer.macs.replace(" > ", " → ")
    if layer.ends:
        ttl = "" if layer.ttl is None else f", TTL\xa0{layer.ttl}"
        yield "mono f-text", f"IP {layer.ends.replace(' > ', ' → ')}{ttl}"
    ports = layer.ports.replace(" > ", " → ")
    name, _, rest = layer.protocol.partition(" ")
    if ports and layer.kind == "packet":
        yield "mono bold f-text", f"{name} {ports}"
        if rest:
            yield "mono f-text", rest
        return
    if ports:
        yield "mono f-text", f"UDP {ports}"
    yield "mono bold f-text", layer.protocol


def _drawn(made: _Box, left: float, top: float, width: float) -> Iterator[str]:
    colour = "packet" if made.kind == "packet" else "carrier"
    yield shapes.box(left, top, width, made.height, f"f-{colour} s-{colour}-edge", radius=5)
    y = top + _PAD + _SIZE - 1
    for style, text in made.lines:
        yield shapes.words(left + _PAD, y, text, _SIZE, style)
        y += _STEP
    if made.inner is not None:
        yield from _drawn(made.inner, left + _PAD, y - _SIZE + 1, width - 2 * _PAD)
