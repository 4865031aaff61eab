"""A trace as a picture: nodes, their pods and interfaces, the packet's way there and back.

The picture is one SVG file that needs nothing else; it is readable on light and dark ground.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from testbed.verify.trace import shapes, words
from testbed.verify.trace.lane import lane
from testbed.verify.trace.model import Diagnosis, Trace
from testbed.verify.trace.stations import MARGIN, Layout, arrange

__all__ = ["svg"]

_NARROWEST = 980.0
_TOP = 84.0
_PORTS = _TOP + 112
_PORT_WIDTH, _PORT_HEIGHT = 114.0, 28.0


def svg(trace: Trace, *, verdict: bool = True) -> str:
    """The whole file; without its verdict where a page says that beside it."""
    legs = words.walked(trace)
    layout = arrange(*legs)
    width = ceil(max(layout.width, _NARROWEST))
    parts: list[str] = []
    y = _PORTS + _PORT_HEIGHT + 8 if layout.stations else _TOP
    for name, leg in zip(("request", "reply"), legs, strict=True):
        never = name == "reply" and not trace.request.complete
        if leg.observed or (leg.expected and not never):
            lost = not leg.complete and not trace.answered
            drawn = lane(name, leg, layout, y, lost=lost)
            parts += drawn.parts
            y = drawn.bottom
    ground = [*_boxes(trace, layout, y), *_ports(layout)] if layout.stations else []
    said, bottom = _verdict(trace, y + 18, width) if verdict else ([], y)
    legend = list(_legend(trace, bottom + 22)) if layout.stations else []
    height = ceil(bottom) + (44 if legend else 16)
    whole = [*_heading(trace, width), *ground, *parts, *said, *legend]
    title = f"{' to '.join(words.names(trace))}: {words.verdict(trace)}"
    about = trace.diagnosis.summary if trace.diagnosis else words.probe(trace.probe)
    return shapes.document(width, height, title, about, whole)


def _heading(trace: Trace, width: float) -> Iterator[str]:
    title = " → ".join(words.names(trace))
    yield shapes.words(MARGIN, 38, shapes.cut(title, width - 320, 22), 22, "bold f-text")
    about = f"testbed {trace.testbed} · {words.probe(trace.probe)}"
    yield shapes.words(MARGIN, 62, about, 14, "f-dim")
    text, colour = ("answered", "good") if trace.ok else ("not answered", "dead")
    if trace.answered and not trace.ok:
        text, colour = "off the expected path", "odd"
    wide = len(text) * 15 * shapes.SANS + 32
    x = width - MARGIN - wide
    yield shapes.box(x, 20, wide, 32, f"f-{colour}", radius=16)
    yield shapes.words(x + wide / 2, 41, text, 15, "bold f-on", "middle")


def _boxes(trace: Trace, layout: Layout, bottom: float) -> Iterator[str]:
    """Nodes with the pods inside them, as wide as their interfaces and as high as the lanes."""
    ips = {end.place: end.ip for end in (trace.source, trace.target)}
    named: set[str] = set()
    for node in layout.nodes:
        wide = node.right - node.left
        yield shapes.box(node.left, _TOP, wide, bottom - _TOP, "f-node s-edge", radius=12)
        middle = (node.left + node.right) / 2
        about = "again" if node.name in named else ips.get(node.name, "")
        named.add(node.name)
        text = f"{node.name} {about}".strip()
        size = 16 if len(text) * 16 * 0.62 < wide else 13
        fitting = shapes.cut(text, wide, size, 0.62)
        yield shapes.words(middle, _TOP + 23, fitting, size, "bold f-text", "middle")
    for pod in layout.pods:
        wide, top = pod.right - pod.left, _TOP + 36
        yield shapes.box(pod.left, top, wide, bottom - top - 8, "f-pod s-pod-edge", radius=9)
        middle = (pod.left + pod.right) / 2
        namespace, _, name = pod.name.partition("/")
        for row, (text, size, style) in enumerate(
            (
                (f"pod in {namespace}", 11, "f-dim"),
                (name, 13 if len(name) * 13 * 0.68 < wide else 11, "bold f-text"),
            )
        ):
            fitting = shapes.cut(text, wide - 8, size, 0.6)
            yield shapes.words(middle, top + 17 + row * 17, fitting, size, style, "middle")
        yield shapes.words(middle, top + 50, ips.get(pod.name, ""), 11, "mono f-dim", "middle")


def _ports(layout: Layout) -> Iterator[str]:
    """Interfaces, and what links those between which the packet goes or should."""
    y = _PORTS + _PORT_HEIGHT / 2
    for column, (here, following) in enumerate(
        zip(layout.stations, layout.stations[1:], strict=False)
    ):
        if column not in layout.links:
            continue
        x1 = layout.centers[column] + _PORT_WIDTH / 2
        x2 = layout.centers[column + 1] - _PORT_WIDTH / 2
        wire = here.node != following.node
        yield shapes.line(x1, y, x2, y, "s-text" if wire else "s-dim", 4 if wire else 1.5)
        link = "wire" if wire else "veth" if here.place != following.place else ""
        size = 13 if wire else 9
        if link:
            style = f"{'bold ' if wire else ''}f-dim"
            yield shapes.words((x1 + x2) / 2, y - 7, link, size, style, "middle")
    for x, station in zip(layout.centers, layout.stations, strict=True):
        left = x - _PORT_WIDTH / 2
        yield shapes.box(left, _PORTS, _PORT_WIDTH, _PORT_HEIGHT, "f-port s-dim", radius=6)
        text = shapes.cut(station.interface, _PORT_WIDTH - 6, 11.5, shapes.MONO)
        yield shapes.words(x, y + 4, text, 11.5, "mono bold f-text", "middle")


def _verdict(trace: Trace, top: float, width: float) -> tuple[list[str], float]:
    """The outcome and, where the packet died, the diagnosis; elements, and where they end."""
    found = trace.diagnosis
    colour = "good" if trace.ok else "odd" if trace.answered else "dead"
    room = width - 2 * MARGIN - 36
    rows: list[tuple[float, str, str]] = []
    said = words.verdict(trace)
    rows += [(14.0, f"bold f-{colour}", each) for each in shapes.wrapped(said, room, 14)]
    if found is not None:
        rows += _reason(found, room, diverges=words.diverges(trace))
    elif trace.error:
        rows += [(12.0, "f-text", each) for each in shapes.wrapped(trace.error, room, 12)]
    for entry in trace.conntrack:
        line = f"conntrack on {words.tracking(trace)}: {entry}"
        rows += [
            (11.0, "mono f-text", each) for each in shapes.wrapped(line, room, 11, shapes.MONO)
        ]
    height = 22 + sum(size * 1.45 for size, _, _ in rows)
    parts = [
        shapes.box(
            MARGIN, top, width - 2 * MARGIN, height, f"f-{colour}-back s-{colour}", radius=9
        ),
    ]
    y = top + 10
    for size, style, text in rows:
        y += size * 1.45
        parts.append(shapes.words(MARGIN + 18, y - 2, text, size, style))
    return parts, top + height


def _reason(found: Diagnosis, room: float, *, diverges: bool) -> Iterator[tuple[float, str, str]]:
    """Size, style and text of each line."""
    for text in shapes.wrapped(found.summary, room, 15):
        yield 15.0, "bold f-text", text
    facts = [f"cause: {found.cause}"]
    if diverges:
        facts += [
            f"last seen: {found.last or 'nowhere'}",
            f"expected next: {found.expected or '?'}",
        ]
    for text in shapes.wrapped(" · ".join(facts), room, 12):
        yield 12.0, "f-dim", text
    for line in found.evidence:
        for text in shapes.wrapped(line, room, 11, shapes.MONO):
            yield 11.0, "mono f-text", text
    advice = f"What to do: {found.advice}" if found.advice else ""
    for text in shapes.wrapped(advice, room, 12.5):
        yield 12.5, "f-text", text


def _legend(trace: Trace, y: float) -> Iterator[str]:
    """What the circles and boxes mean, as far as there are any."""
    hops = [hop for leg in words.walked(trace) for hop in leg.observed]
    circles = (
        (bool(trace.request.observed), "f-request s-request", "request, as expected"),
        (bool(trace.reply.observed), "f-reply s-reply", "reply, as expected"),
        (
            not all(hop.expected for hop in hops),
            "f-odd s-odd",
            "seen, but not on the expected path",
        ),
        (words.diverges(trace), "f-background s-dim dash", "expected, but not seen"),
    )
    carried = any(hop.event.packet.inner for hop in hops)
    boxes = (
        (carried, "f-carrier s-carrier-edge", "what carries it"),
        (bool(hops), "f-packet s-packet-edge", "the endpoints' packet"),
    )
    x = MARGIN + 8
    for there, style, text in (*circles, *boxes):
        if there:
            if "edge" in style:
                yield shapes.box(x - 7, y - 11, 14, 14, style, radius=3)
            else:
                yield shapes.circle(x, y - 4, 6, style)
            yield shapes.words(x + 13, y, text, 12, "f-dim")
            x += len(text) * 12 * shapes.SANS + 44
