"""SVG elements as text, and what they look like in light and dark.

Only what every viewer knows: no scripts, no CSS variables, nothing that is loaded from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

__all__ = [
    "MONO",
    "SANS",
    "arc",
    "arrow",
    "box",
    "circle",
    "clean",
    "cut",
    "document",
    "line",
    "lines",
    "words",
    "wrapped",
]

MONO, SANS = 0.61, 0.56
"""Width of a character, in font sizes; of sans, on average."""
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (section 2.2) does not allow, not even escaped."""

_LIGHT = {
    "background": "#ffffff",
    "text": "#1b1f24",
    "dim": "#59636e",
    "node": "#f4f6f9",
    "edge": "#c2cad4",
    "pod": "#e6effc",
    "pod-edge": "#8fb0e0",
    "port": "#ffffff",
    "request": "#0b5cc0",
    "reply": "#6b3fb5",
    "odd": "#b35900",
    "odd-back": "#fff4e8",
    "dead": "#c81e1e",
    "dead-back": "#fdeeee",
    "good": "#1a7f37",
    "good-back": "#eaf6ee",
    "carrier": "#fff1cc",
    "carrier-edge": "#c48a00",
    "packet": "#dff3e6",
    "packet-edge": "#4f9e6c",
    "on": "#ffffff",
}
_DARK = {
    "background": "#14181d",
    "text": "#e6e9ed",
    "dim": "#9aa4af",
    "node": "#1c2229",
    "edge": "#3f4953",
    "pod": "#1b2b42",
    "pod-edge": "#466a9c",
    "port": "#262d35",
    "request": "#6cb0ff",
    "reply": "#c29bff",
    "odd": "#f0a04b",
    "odd-back": "#33250f",
    "dead": "#ff7b72",
    "dead-back": "#3a1f20",
    "good": "#5fd07f",
    "good-back": "#17301f",
    "carrier": "#3d3215",
    "carrier-edge": "#b98a1c",
    "packet": "#183324",
    "packet-edge": "#4f9e6c",
    "on": "#14181d",
}


def _style() -> str:
    base = [
        ".tb text{font-family:system-ui,'Segoe UI','Helvetica Neue',Arial,sans-serif}",
        ".tb text.mono{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}",
        ".tb .bold{font-weight:600}",
        ".tb .dash{stroke-dasharray:5 5}",
        ".tb .bare{fill:none}",
    ]
    dark = "".join(_rules(_DARK))
    return "\n".join([*base, *_rules(_LIGHT), f"@media (prefers-color-scheme:dark){{{dark}}}"])


def _rules(colours: dict[str, str]) -> list[str]:
    return [
        f".tb .f-{name}{{fill:{value}}}.tb .s-{name}{{stroke:{value}}}"
        for name, value in colours.items()
    ]


def clean(text: str) -> str:
    """Escaped, and without what may stand in no XML document."""
    return escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text))


def document(width: float, height: float, title: str, about: str, parts: Iterable[str]) -> str:
    """A whole file; it scales to wherever it is shown."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tb" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" role="img">'
    )
    return "\n".join(
        [
            head,
            f"<title>{clean(title)}</title>",
            f"<desc>{clean(about)}</desc>",
            f"<style>{_style()}</style>",
            box(0, 0, width, height, "f-background", radius=0),
            *parts,
            "</svg>",
            "",
        ]
    )


def box(x: float, y: float, width: float, height: float, style: str, *, radius: float = 8) -> str:
    """A rectangle with round corners."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'rx="{radius:g}" class="{style}"/>'
    )


def circle(x: float, y: float, radius: float, style: str, about: str = "") -> str:
    """A circle; ``about`` is shown when it is pointed at."""
    told = f"<title>{clean(about)}</title>" if about else ""
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" stroke-width="2" '
        f'class="{style}">{told}</circle>'
    )


def line(x1: float, y1: float, x2: float, y2: float, style: str, thick: float = 1.5) -> str:
    """A straight line."""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke-width="{thick:g}" class="{style}"/>'
    )


def arrow(x1: float, x2: float, y: float, colour: str, style: str = "") -> str:
    """A horizontal arrow, in either direction."""
    back = 8 if x2 > x1 else -8
    shaft = line(x1, y, x2 - back / 2, y, f"s-{colour} {style}".strip(), 2.5)
    return shaft + _head(x2, y, back, colour)


def arc(x1: float, x2: float, y: float, colour: str, style: str = "") -> str:
    """An arrow over what is between its ends."""
    top = y - 22 - min(abs(x2 - x1) / 12, 20)
    style = f"bare s-{colour} {style}".strip()
    way = f"M{x1:.1f} {y:.1f}Q{(x1 + x2) / 2:.1f} {top:.1f} {x2:.1f} {y:.1f}"
    tip = f"{x2:.1f},{y:.1f} {x2 - 4:.1f},{y - 8:.1f} {x2 + 4:.1f},{y - 8:.1f}"
    return (
        f'<path d="{way}" stroke-width="2" class="{style}"/>'
        f'<polygon points="{tip}" class="f-{colour}"/>'
    )


def _head(x: float, y: float, back: float, colour: str) -> str:
    tip = f"{x:.1f},{y:.1f} {x - back:.1f},{y - 5:.1f} {x - back:.1f},{y + 5:.1f}"
    return f'<polygon points="{tip}" class="f-{colour}"/>'


def words(
    x: float, y: float, text: str, size: float, style: str = "f-text", anchor: str = "start"
) -> str:
    """One line of text on its baseline."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" '
        f'class="{style}">{clean(text)}</text>'
    )


def lines(
    x: float,
    y: float,
    texts: Sequence[str],
    size: float,
    style: str = "f-text",
    anchor: str = "start",
) -> list[str]:
    """Several lines, the first one's baseline at ``y``."""
    return [
        words(x, y + number * size * 1.25, text, size, style, anchor)
        for number, text in enumerate(texts)
    ]


def cut(text: str, width: float, size: float, share: float = SANS) -> str:
    """As much of a text as there is room for."""
    room = int(width / (size * share))
    return text if len(text) <= room else text[: max(room - 1, 1)] + "…"


def wrapped(text: str, width: float, size: float, share: float = SANS) -> list[str]:
    """A text in lines that there is room for; words that are too long are broken."""
    room = max(int(width / (size * share)), 4)
    found = [""]
    for word in text.replace("→ ", "→\xa0").split(" "):
        while len(word) > room:  # an address, a file or a rule without blanks
            found.append(word[:room])
            word = word[room:]
        if len(found[-1]) + 1 + len(word) <= room:
            found[-1] = f"{found[-1]} {word}".strip()
        else:
            found.append(word)
    return [each for each in found if each]
