"""A Service's chains as a picture that tutorials draw: boxes from left to right, rules as rows.

Each rule is a row of its chain's box, with its share and counters; an arrow leads from it to the
chain that it goes on in. Jumps to the chain that sets the mark are words only: arrows from
everywhere to it would hide the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from testbed.verify.service.tree import Chain, Key, Rule, Section, View
from testbed.verify.trace import shapes

__all__ = ["svg"]

_MARGIN, _TOP = 28.0, 84.0
_GAP_X, _GAP_Y = 74.0, 22.0
_WIDTH = 350.0
_HEAD, _ROW = 44.0, 36.0
_LANE = 8.0
_MARKS = frozenset({"KUBE-MARK-MASQ", "mark-for-masquerade"})
_FATAL = ("DROP", "REJECT", "drop", "reject")


@dataclass(frozen=True, slots=True)
class _Box:
    chain: Chain
    x: float
    y: float

    @property
    def height(self) -> float:
        return _tall(self.chain)


def svg(view: View) -> str:
    """The whole file."""
    parts: list[str] = []
    y, width = _TOP, 700.0
    for section in view.sections:
        drawn, right, y = _section(view, section, y)
        parts += drawn
        width = max(width, right + _MARGIN)
    title = f"{view.service} on {view.node}"
    heading = [
        shapes.words(_MARGIN, 38, title, 22, "bold f-text"),
        shapes.words(_MARGIN, 62, f"kube-proxy in mode {view.mode}", 14, "f-dim"),
    ]
    if view.empty:
        heading.append(shapes.words(_MARGIN, y + 10, "no rule is about it", 14, "f-odd"))
        y += 30
    said = shapes.wrapped(view.note, width - 2 * _MARGIN, 12)
    notes = shapes.lines(_MARGIN, y + 12, said, 12, "f-dim")
    height = y + 12 + 15 * len(notes) + 16
    return shapes.document(width, height, title, view.note, [*heading, *parts, *notes])


def _section(view: View, section: Section, top: float) -> tuple[list[str], float, float]:
    """Its elements, its right end and its bottom.

    Arrows past a column run in lanes of their own, above the boxes.
    """
    depths = _depths(view, section)
    columns: dict[int, list[Key]] = {}
    for key, depth in depths.items():
        columns.setdefault(depth, []).append(key)
    ways = [(key, target) for key in depths for target in _targets(view.chains[key], view.chains)]
    lanes = _LANE * sum(depths[there] - depths[here] > 1 for here, there in ways)
    start = top + 30 + lanes
    tallest = max(_stacked(view, column) for column in columns.values())
    boxes: dict[Key, _Box] = {}
    for depth, column in columns.items():
        y = start + (tallest - _stacked(view, column)) / 2
        for key in column:
            boxes[key] = _Box(view.chains[key], _MARGIN + depth * (_WIDTH + _GAP_X), y)
            y += _tall(view.chains[key]) + _GAP_Y
    parts = [shapes.words(_MARGIN, top + 14, section.title, 14, "bold f-dim")]
    parts += _arrows(boxes, start - 4)
    for box in boxes.values():
        parts += _drawn(box, boxes)
    right = max(box.x for box in boxes.values()) + _WIDTH
    return parts, right, start + tallest + 34


def _stacked(view: View, column: Sequence[Key]) -> float:
    """The height of a column."""
    return sum(_tall(view.chains[key]) + _GAP_Y for key in column) - _GAP_Y


def _arrows(boxes: Mapping[Key, _Box], lane: float) -> Iterator[str]:
    """From each rule to the chain that it goes on in; ``lane`` is the lowest one."""
    turn = _GAP_X / 2 - 22
    for box in boxes.values():
        for number, rule in enumerate(box.chain.rules):
            there = boxes.get(rule.target) if rule.target else None
            if there is None:
                continue
            x, y = box.x + _WIDTH, box.y + _HEAD + _ROW * (number + 0.5)
            if there.x - x < _WIDTH:
                yield _arrow(x, y, there.x, there.y + 22)
                continue
            yield _detour(x, y, there.x, there.y + 22, lane, x + 14 + turn % 30)
            lane, turn = lane - _LANE, turn + 7


def _depths(view: View, section: Section) -> dict[Key, int]:
    """The column of each chain, right of all that lead to it; in the order of a packet's way."""
    found: dict[Key, int] = {}

    def visit(key: Key, depth: int) -> None:
        if found.get(key, -1) >= depth:
            return
        found[key] = depth
        for target in _targets(view.chains[key], view.chains):
            visit(target, depth + 1)

    for root in section.roots:
        visit(root, 0)
    return found


def _targets(chain: Chain, chains: Mapping[Key, Chain]) -> Iterator[Key]:
    for rule in chain.rules:
        if rule.target in chains and rule.target and rule.target[1] not in _MARKS:
            yield rule.target


def _tall(chain: Chain) -> float:
    return _HEAD + _ROW * len(chain.rules) + 6


def _drawn(box: _Box, boxes: Mapping[Key, _Box]) -> Iterator[str]:
    kind = "f-pod s-pod-edge" if _ends(box.chain.rules) else "f-node s-edge"
    yield shapes.box(box.x, box.y, _WIDTH, box.height, kind)
    name = shapes.cut(box.chain.name, _WIDTH - 20, 13, 0.62)
    yield shapes.words(box.x + 10, box.y + 19, name, 13, "bold f-text")
    about = shapes.cut(box.chain.gloss, _WIDTH - 20, 11)
    yield shapes.words(box.x + 10, box.y + 35, about, 11, "f-dim")
    y = box.y + _HEAD
    for rule in box.chain.rules:
        yield shapes.line(box.x, y, box.x + _WIDTH, y, "s-edge", 0.7)
        yield from _row(box.x, y, rule, leads=rule.target in boxes)
        y += _ROW


def _ends(rules: Sequence[Rule]) -> bool:
    return any(rule.endpoint for rule in rules)


def _row(x: float, y: float, rule: Rule, *, leads: bool) -> Iterator[str]:
    """What it matches and does, its counters at the right; below, in plain words."""
    count = "" if rule.packets is None else f"{rule.packets} pkts, {rule.bytes} B"
    room = _WIDTH - 24 - len(count) * 11 * shapes.SANS
    whole = " → ".join(part for part in (rule.match, rule.action) if part) or "any packet"
    said = rule.match or "any packet" if leads else rule.action if rule.endpoint else whole
    fatal = rule.action.startswith(_FATAL)
    style = f"mono {'f-dead' if fatal else 'f-text'}"
    about = shapes.words(x + 10, y + 15, shapes.cut(said, room, 10.5, shapes.MONO), 10.5, style)
    yield about.replace("</text>", f"<title>{shapes.clean(whole)}</title></text>")
    yield shapes.words(x + _WIDTH - 10, y + 15, count, 11, "f-dim", "end")
    share = "" if rule.share is None else f"{rule.share} · "
    gloss = f"{share}{rule.gloss}"
    colour = "bold f-request" if share else "f-dim"
    if rule.endpoint is not None:
        colour = "f-good"
    yield shapes.words(x + 10, y + 30, shapes.cut(gloss, _WIDTH - 20, 11), 11, colour)


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """A curve that ends level."""
    bend = max((x2 - x1) / 2, 30)
    return _path(f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} ", x2, y2)


def _detour(x1: float, y1: float, x2: float, y2: float, lane: float, up: float) -> str:
    """Up, along a lane, and down again between the columns."""
    down = x2 - 2 * _GAP_X / 5 + (up - x1) / 4
    way = f"M{x1:.1f} {y1:.1f}L{up:.1f} {y1:.1f} {up:.1f} {lane:.1f} "
    return _path(f"{way}{down:.1f} {lane:.1f} {down:.1f} {y2:.1f} ", x2, y2)


def _path(way: str, x: float, y: float) -> str:
    tip = f"{x:.1f},{y:.1f} {x - 8:.1f},{y - 4.5:.1f} {x - 8:.1f},{y + 4.5:.1f}"
    return (
        f'<path d="{way}{x - 7:.1f} {y:.1f}" stroke-width="1.5" class="bare s-request"/>'
        f'<polygon points="{tip}" class="f-request"/>'
    )
