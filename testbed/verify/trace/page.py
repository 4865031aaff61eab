"""A trace as one HTML page: the drawing, the verdict, every hop, and what was expected.

It holds all that it needs and runs no script, so it can be mailed, or kept with a test's results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from testbed.packets import text
from testbed.packets.packet import Packet
from testbed.verify.trace import drawing, words
from testbed.verify.trace.model import Diagnosis, Trace
from testbed.verify.trace.shapes import clean

__all__ = ["html"]

_STYLE = """\
:root{color-scheme:light dark}
body{margin:0 auto;max-width:1700px;padding:20px;background:#fff;color:#1b1f24;
 font:15px/1.5 system-ui,'Segoe UI',Arial,sans-serif}
h1{font-size:22px;margin:0}h2{font-size:18px;margin:28px 0 8px}
p{margin:4px 0}.dim{color:#59636e}.wide{overflow-x:auto}
svg{display:block;max-width:100%;height:auto}
table{border-collapse:collapse;font-size:13px}
th,td{text-align:left;vertical-align:top;padding:4px 10px;border-bottom:1px solid #d5dbe2}
th{font-weight:600;color:#59636e}td.number{text-align:right}
td.number,td.mono,td.name{white-space:nowrap}
code,pre,td.mono{font-size:12px;
 font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}
td.mono div.inner{margin-left:14px}
tr.odd td{background:#fff4e8}tr.lost td{background:#fdeeee;color:#8f1414}
tr.unseen td{color:#59636e;font-style:italic}
.verdict{border:1px solid;border-radius:8px;padding:10px 16px;margin:16px 0}
.good{border-color:#1a7f37;background:#eaf6ee}.bad{border-color:#c81e1e;background:#fdeeee}
.verdict.odd{border-color:#b35900;background:#fff4e8}
pre{margin:6px 0;white-space:pre-wrap}
@media (prefers-color-scheme:dark){body{background:#14181d;color:#e6e9ed}
.dim,th,tr.unseen td{color:#9aa4af}th,td{border-color:#3f4953}
tr.odd td{background:#33250f}tr.lost td{background:#3a1f20;color:#ff9d96}
.good{background:#17301f}.bad{background:#3a1f20}.verdict.odd{background:#33250f}}"""

_HOPS = ("#", "Time", "Node", "Interface", "Dir", "What happened", "TTL", "Length", "Headers")


def html(trace: Trace) -> str:
    """The whole page."""
    title = " → ".join(words.names(trace))
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8"/>',
            '<meta name="viewport" content="width=device-width"/>',
            f"<title>{clean(title)}: {clean(words.verdict(trace))}</title>",
            f"<style>{_STYLE}</style></head><body>",
            f'<div class="wide">{drawing.svg(trace, verdict=False)}</div>',
            *_verdict(trace),
            *_legs(trace),
            *_entries(trace),
            *_errors(trace),
            f'<p class="dim">{clean(_sent(trace))}</p>',
            "</body></html>",
            "",
        ]
    )


def _sent(trace: Trace) -> str:
    ends = f"from {words.endpoint(trace.source)} to {words.target(trace)}"
    marker = f", marker {trace.probe.marker}" if trace.probe.marker else ""
    return f"testbed {trace.testbed}: {words.probe(trace.probe)}, {ends}{marker}"


def _verdict(trace: Trace) -> Iterator[str]:
    kind = "good" if trace.ok else "odd" if trace.answered else "bad"
    yield f'<div class="verdict {kind}">'
    yield f"<p><strong>{clean(words.verdict(trace))}</strong></p>"
    if trace.diagnosis is not None:
        yield from _reason(trace.diagnosis, diverges=words.diverges(trace))
    elif trace.error:
        yield f"<p>{clean(trace.error)}</p>"
    yield "</div>"


def _reason(found: Diagnosis, *, diverges: bool) -> Iterator[str]:
    yield f"<p>{clean(found.summary)}</p>"
    facts = [("cause", found.cause), ("leg", found.leg), ("at", found.place)]
    if diverges:
        facts += [("last seen", found.last or "nowhere"), ("expected next", found.expected)]
    told = ", ".join(
        f"{clean(name)}: <code>{clean(value)}</code>" for name, value in facts if value
    )
    yield f'<p class="dim">{told}</p>'
    if found.evidence:
        yield "<pre>" + clean("\n".join(found.evidence)) + "</pre>"
    if found.advice:
        yield f"<p>What to do: {clean(found.advice)}</p>"


def _legs(trace: Trace) -> Iterator[str]:
    for name, leg in zip(("Request", "Reply"), words.walked(trace), strict=True):
        never = name == "Reply" and not trace.request.complete
        if not leg.observed and (never or not leg.expected):
            continue
        yield f"<h2>{name}: observed and expected</h2>"
        rows = [_row(row, lost=not leg.complete) for row in words.rows(leg)]
        yield from _table((*_HOPS, "Expected"), rows)


def _row(row: words.Row, *, lost: bool) -> tuple[str, list[tuple[str, str]]]:
    """A class, and classes and contents of its cells, which are escaped."""
    wanted = ""
    if row.wanted is not None:
        wanted = clean(f"{words.hop_name(row.wanted)}: {words.wanted(row.wanted)}")
    if row.seen is None:
        kind = "lost" if row.diverges else "unseen"
        said = ("lost here" if lost else "the walk leaves the path here") if row.diverges else ""
        empty = [("", "")] * 5 + [("", said or "not seen")] + [("", "")] * 3
        return kind, [*empty, ("", wanted)]
    hop, event = row.seen, row.seen.event
    ttl = event.packet.innermost.ttl
    happened = clean(", ".join(hop.happened))
    if hop.fragments > 1:
        happened += f" [{hop.fragments} fragments]"
    place = event.interface if event.place == event.node else f"{event.place}/{event.interface}"
    return "" if hop.expected else "odd", [
        ("number", str(hop.number or "")),
        ("number", words.duration(hop.since_ns)),
        ("", clean(event.node)),
        ("name", clean(place)),
        ("", event.direction),
        ("", happened),
        ("number", "" if ttl is None else str(ttl)),
        ("number", str(event.packet.length)),
        ("mono", _headers(hop.event.packet)),
        ("", wanted or "nothing"),
    ]


def _headers(packet: Packet) -> str:
    """Every layer inside the one that carries it."""
    opened = ""
    for layer in words.layers(packet):
        told = "<br/>".join(clean(each) for each in (layer.macs, str(layer)) if each)
        opened += f'<div class="inner">{told}' if opened else f"<div>{told}"
    return opened + "</div>" * len(words.layers(packet))


def _table(
    heads: Sequence[str], rows: Iterable[tuple[str, Sequence[tuple[str, str]]]]
) -> Iterator[str]:
    yield '<div class="wide"><table><thead><tr>'
    yield "".join(f"<th>{clean(head)}</th>" for head in heads) + "</tr></thead><tbody>"
    for kind, cells in rows:
        yield f'<tr class="{kind}">' if kind else "<tr>"
        yield "".join(
            f'<td class="{style}">{cell}</td>' if style else f"<td>{cell}</td>"
            for style, cell in cells
        )
        yield "</tr>"
    yield "</tbody></table></div>"


def _entries(trace: Trace) -> Iterator[str]:
    if trace.conntrack:
        yield f"<h2>conntrack on {clean(words.tracking(trace))}</h2>"
        yield "<pre>" + clean("\n".join(trace.conntrack)) + "</pre>"


def _errors(trace: Trace) -> Iterator[str]:
    if not trace.errors:
        return
    yield "<h2>ICMP errors about it</h2>"
    began = words.began(trace)
    yield from _table(
        ("Time", "Interface", "Dir", "Packet"),
        [
            (
                "",
                [
                    ("number", words.duration(event.packet.time_ns - began) if began else ""),
                    ("", clean(f"{event.place}/{event.interface}")),
                    ("", event.direction),
                    ("mono", clean(text.line(event.packet))),
                ],
            )
            for event in trace.errors
        ],
    )
