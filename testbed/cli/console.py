"""All output of the command line: results to stdout, progress and messages to stderr.

The only module that imports rich, and only for a terminal: elsewhere there is neither colour nor
spinner, and progress is one plain line per step.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import rich.console
    import rich.table

__all__ = ["Console", "Progress"]

_STYLES = {
    "ready": "green",
    "Running": "green",
    "ok": "green",
    "missing": "red",
    "failed": "red",
    "Failed": "red",
    "CrashLoopBackOff": "red",
    "stopped": "yellow",
    "degraded": "yellow",
    "Pending": "yellow",
    "error:": "bold red",
    "FAIL": "bold red",
    "✓": "green",
    "✗": "bold red",
}
"""Words by whose meaning a terminal shows them in colour."""
_GAP = "   "


class Console:
    """Where everything is printed."""

    def print(self, text: str = "") -> None:
        """A line of the result."""
        _write(sys.stdout, text)

    def raw(self, text: str) -> None:
        """Text of the result, exactly as it is."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def json(self, value: object) -> None:
        """The result as JSON."""
        self.raw(json.dumps(value, indent=2) + "\n")

    def error(self, message: str) -> None:
        """A message about what went wrong."""
        _write(sys.stderr, f"error: {message}")

    def note(self, message: str) -> None:
        """A message that is neither a result nor an error."""
        _write(sys.stderr, message)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Rows under their headings, in kubectl's manner; empty headings are left out."""
        cells = [[str(cell) for cell in row] for row in rows]
        if any(columns):
            cells.insert(0, list(columns))
        widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            _write(sys.stdout, _GAP.join(padded).rstrip())

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Show what each node is doing until the block ends."""
        if not sys.stderr.isatty():
            yield Progress(plain=True)
            return
        import rich.console
        import rich.live

        shown = Progress(plain=False)
        console = rich.console.Console(stderr=True)
        with rich.live.Live(shown, console=console, refresh_per_second=12, transient=True):
            yield shown


class Progress:
    """The last step of every node: a live table on a terminal, plain lines elsewhere."""

    def __init__(self, *, plain: bool) -> None:
        self._plain = plain
        self._steps: dict[str, tuple[str, str]] = {}
        self._guard = threading.Lock()

    def __call__(self, node: str, step: str, message: str) -> None:
        """A narrator (:data:`testbed.existing.Narrator`)."""
        with self._guard:
            self._steps[node] = (step, message)
            if self._plain:
                place = f"{node}: " if node else ""
                _write(sys.stderr, f"{place}{step}: {message}")

    def __rich__(self) -> rich.table.Table:
        import rich.table
        import rich.text

        table = rich.table.Table(box=None, pad_edge=False, show_header=False)
        with self._guard:
            steps = dict(self._steps)
        for node, (step, message) in steps.items():
            table.add_row(
                rich.text.Text(node or "testbed", "bold"),
                rich.text.Text(step, _STYLES.get(step, "")),
                rich.text.Text(message.splitlines()[0] if message else "", "dim"),
            )
        return table


def _write(stream: TextIO, line: str) -> None:
    """A line as it is; on a terminal, words that mean something are coloured."""
    if stream.isatty():
        _coloured(stream, line)
        return
    stream.write(line + "\n")
    stream.flush()


def _coloured(stream: TextIO, line: str) -> None:
    import rich.console
    import rich.text

    text = rich.text.Text(line)
    for word, style in _STYLES.items():
        text.highlight_words([word], style, case_sensitive=True)
    rich.console.Console(file=stream, highlight=False, soft_wrap=True).print(text)
