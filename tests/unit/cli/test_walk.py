"""A trace as text."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.cli import walk
from testbed.cli.console import Console
from testbed.verify.trace.model import Trace
from tests.unit.verify.trace import traces

GOLDEN = Path(__file__).parents[2] / "golden" / "trace"
ALL: dict[str, Callable[[], Trace]] = {name: getattr(traces, name) for name in traces.__all__}


def text(trace: Trace) -> str:
    """The whole walk."""
    return "\n".join(walk.lines(trace)) + "\n"


@pytest.mark.parametrize(
    "name", ["answered", "astray", "dropped", "refused", "too_large", "translated"]
)
def test_the_walk_is_golden(name: str, golden: Callable[[Path, str], None]) -> None:
    """Hops with their headers wherever those change, what was expected, and why it died."""
    golden(GOLDEN / f"{name}.txt", text(ALL[name]()))


@pytest.mark.parametrize("name", ALL)
def test_lines_fit_120_columns_and_have_no_blanks_at_their_ends(name: str) -> None:
    """Whatever happened."""
    for line in walk.lines(ALL[name]()):
        assert len(line) <= 120
        assert line == line.rstrip()


def test_the_first_divergence_is_marked_where_it_is() -> None:
    """Behind the last hop that was right, before whatever else was seen."""
    rows = text(traces.astray()).splitlines()
    marked = next(number for number, row in enumerate(rows) if row.startswith("✗"))
    assert rows[marked].split() == ["✗", "node2", "cni0", "out", "expected", "next:", "routed"]
    assert " 7 " in rows[marked - 2]
    assert rows[marked + 1].startswith("!   8 ")
    assert sum(row.startswith("✗") for row in rows) == 2  # here, and the verdict


def test_all_hops_that_are_missing_are_named() -> None:
    """The next one, and then the rest of the way."""
    rows = text(traces.dropped()).splitlines()
    at = next(number for number, row in enumerate(rows) if row.startswith("✗"))
    assert [row.split()[-2:] for row in rows[at : at + 4]] == [
        ["next:", "decapsulated"],
        ["then:", "routed"],
        ["then:", "bridged"],
        ["crossing,", "delivered"],
    ]
    assert "reply:" not in text(traces.dropped())


def test_a_reply_that_was_never_sent_is_expected_all_the_same() -> None:
    """Where the request arrived."""
    whole = text(traces.unanswered())
    assert "reply: not seen; 10 hops are expected" in whole
    assert "✗ not answered: the request arrived, and no reply was sent" in whole


def test_a_loop_is_shortened() -> None:
    """Its middle is counted; JSON has it."""
    whole = text(traces.looping(200))
    assert len(whole.splitlines()) < 90
    assert "more hops (all of them: -o json)" in whole


def test_what_happened_goes_on_below_itself() -> None:
    """NAT of a TCP connection with long addresses, in a pod with a long name."""
    good = traces.answered()
    nat = ("routed", "SNAT reversed 172.130.100.100:32000 to 10.244.100.200:48000")
    hops = [replace(good.request.observed[0], happened=nat)]
    place = "default/" + "a" * 63
    hops.append(replace(hops[0], event=replace(hops[0].event, place=place)))
    rows = text(replace(good, request=replace(good.request, observed=(hops[0],)))).splitlines()
    assert max(map(len, rows)) <= 120
    assert rows[6].endswith("  routed, SNAT reversed 172.130.100.100:32000 to")
    assert rows[7] == " " * rows[6].index("routed") + "10.244.100.200:48000"
    assert place in text(replace(good, request=replace(good.request, observed=(hops[1],))))


def test_an_unknown_error_is_told() -> None:
    """Where no diagnosis has it already."""
    told = replace(traces.answered(), error="3 frames found no room in the taps")
    assert "  error          3 frames found no room in the taps\n" in text(told)
    assert text(traces.nowhere()).count("pod-gone") == 1


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", "✗"), ("ascii", "x"), ("latin-1", "x")])
def test_marks_fit_the_encoding(encoding: str, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal or file fails because of a sign that it does not know."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding, newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    walk.render(Console(), traces.dropped())
    stream.flush()
    assert f"\n{mark} not answered" in written.getvalue().decode(encoding)
