"""The node's log and its errors."""

from __future__ import annotations

import json
import re
import time

import pytest

from testbed.agent import journal
from testbed.agent.command import run
from testbed.agent.errors import CommandError, describe


def test_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    """One JSON object per line, keys in a fixed order."""
    journal.emit("pod", "attached", pod="default/a", since=time.monotonic() - 0.5, extra=1)
    text = capfd.readouterr().out
    assert text.endswith("\n")
    line = json.loads(text)
    assert list(line) == ["ts", "level", "step", "pod", "message", "ms", "extra"]
    assert 500 <= line["ms"] < 5000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["ts"])


def test_time_is_utc() -> None:
    """Seconds since the epoch."""
    assert journal.timestamp(0.25) == "1970-01-01T00:00:00.250000Z"


def test_listeners_hear_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync passes them on."""
    heard: list[dict[str, object]] = []
    monkeypatch.setattr(journal, "listeners", [heard.append])
    line = journal.emit("boot", "x")
    assert heard == [line]


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["sh", "-c", "echo oops >&2; exit 3"], "oops"),
        (["sh", "-c", "exit 3"], "exit status 3, no output"),
        (["/nonexistent/tool"], "No such file or directory: '/nonexistent/tool'"),
    ],
)
def test_tools_that_fail(argv: list[str], why: str) -> None:
    """The error has the argument list and the tool's own words."""
    with pytest.raises(CommandError) as caught:
        run(argv)
    assert caught.value.where == " ".join(argv)
    assert caught.value.why.endswith(why)


def test_tools_that_hang() -> None:
    """They are killed."""
    with pytest.raises(CommandError, match=r"killed after 0.05 s"):
        run(["sleep", "5"], timeout=0.05)
    assert run(["cat"], stdin=b"x") == b"x"


def test_a_defect_names_its_line() -> None:
    """The innermost frame."""
    try:
        json.loads("{")
    except ValueError as error:
        described = describe(error)
    assert described["what"] == "the agent failed"
    assert "decoder.py:" in described["where"]
    assert describe(KeyError("x"))["where"] == ""
