"""A plot of a few curves as SVG, for docs/: a page of code instead of a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["curves"]

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 190, 48, 56
_LINE = 16
_COLOURS = ("#1f6feb", "#d29922", "#3fb950", "#bf3989")


def curves(
    title: str, axes: tuple[str, str], counts: Sequence[int], values: Mapping[str, Sequence[float]]
) -> str:
    """Lines with a point for each count (a logarithmic axis) and a name at their ends."""
    top = max(value for each in values.values() for value in each) * 1.1
    span = math.log10(counts[-1]) - math.log10(counts[0])

    def x(count: float) -> float:
        along = (math.log10(count) - math.log10(counts[0])) / span
        return _LEFT + along * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="28" font-size="16">{escape(title)}</text>',
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 14, axes[0], "middle"),
        f'<text transform="translate(18 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(axes[1])}</text>',
    ]
    for tick in _ticks(top):
        parts.append(_line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick), "#d0d7de"))
        parts.append(_text(_LEFT - 8, y(tick) + 4, f"{tick:g}", "end"))
    parts += [_text(x(count), _HEIGHT - _BOTTOM + 20, f"{count:,}", "middle") for count in counts]
    labels = _apart({name: y(row[-1]) for name, row in values.items()})
    for (name, row), colour in zip(sorted(values.items()), _COLOURS, strict=False):
        points = [(x(count), y(value)) for count, value in zip(counts, row, strict=True)]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colour}"/>' for a, b in points]
        words = f"{name} {row[-1]:.2f}"
        parts.append(_text(points[-1][0] + 12, labels[name] + 4, words, "start"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _apart(places: Mapping[str, float]) -> dict[str, float]:
    """Heights of labels, moved down where they would meet."""
    found: dict[str, float] = {}
    least = 0.0
    for name in sorted(places, key=lambda each: places[each]):
        found[name] = max(places[name], least)
        least = found[name] + _LINE
    return found


def _ticks(top: float) -> list[float]:
    step = next(each for each in (0.25, 0.5, 1, 2, 5, 10, 20, 50) if top / each <= 8)
    return [step * number for number in range(int(top / step) + 1)]


def _text(across: float, down: float, words: str, anchor: str) -> str:
    return f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        'stroke-width="1"/>'
    )
