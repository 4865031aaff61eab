"""All output of the command line: results to stdout, progress and messages to stderr.

The only module that imports rich. Where stderr is no terminal there is neither colour nor spinner,
and progress is one plain line per step.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import rich.console
import rich.live
import rich.table
import rich.text

__all__ = ["Console"]

_STYLES = {
    "ready": "green",
    "Running": "green",
    "ok": "green",
    "missing": "red",
    "failed": "red",
    "stopped": "yellow",
    "degraded": "yellow",
}


class Console:
    """Where everything is printed."""

    def __init__(self) -> None:
        self._out = rich.console.Console(highlight=False, soft_wrap=True)
        self._err = rich.console.Console(stderr=True, highlight=False, soft_wrap=True)

    def print(self, text: str = "") -> None:
        """A line of the result."""
        self._out.print(rich.text.Text(text))

    def raw(self, text: str) -> None:
        """Text of the result, exactly as it is."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def json(self, value: object) -> None:
        """The result as JSON."""
        self.raw(json.dumps(value, indent=2) + "\n")

    def error(self, message: str) -> None:
        """A message about what went wrong."""
        self._err.print(rich.text.Text.assemble(("error: ", "bold red"), message))

    def note(self, message: str) -> None:
        """A message that is neither a result nor an error."""
        self._err.print(rich.text.Text(message))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Rows under their headings, in kubectl's manner: no lines, words coloured by meaning."""
        table = rich.table.Table(
            box=None,
            pad_edge=False,
            padding=(0, 3, 0, 0),
            header_style="",
            show_header=any(columns),
        )
        for column in columns:
            table.add_column(column, no_wrap=True, overflow="ignore")
        for row in rows:
            table.add_row(*(_styled(str(cell)) for cell in row))
        width = None if self._out.is_terminal else 10_000
        with self._out.capture() as captured:
            self._out.print(table, width=width, crop=False)
        lines = (line.rstrip() for line in captured.get().splitlines())
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Show what each node is doing until the block ends."""
        shown = Progress(self._err)
        if not self._err.is_terminal:
            yield shown
            return
        with rich.live.Live(shown, console=self._err, refresh_per_second=12, transient=True):
            yield shown


class Progress:
    """The last step of every node: a live table on a terminal, plain lines elsewhere."""

    def __init__(self, console: rich.console.Console) -> None:
        self._console = console
        self._steps: dict[str, tuple[str, str]] = {}
        self._guard = threading.Lock()

    def __call__(self, node: str, step: str, message: str) -> None:
        """A narrator (:data:`testbed.lifecycle.Narrator`)."""
        with self._guard:
            self._steps[node] = (step, message)
            if not self._console.is_terminal:
                place = f"{node}: " if node else ""
                self._console.print(rich.text.Text(f"{place}{step}: {message}"))

    def __rich__(self) -> rich.table.Table:
        table = rich.table.Table(box=None, pad_edge=False, show_header=False)
        with self._guard:
            steps = dict(self._steps)
        for node, (step, message) in steps.items():
            table.add_row(
                rich.text.Text(node or "testbed", "bold"),
                _styled(step),
                rich.text.Text(message.splitlines()[0] if message else "", "dim"),
            )
        return table


def _styled(cell: str) -> rich.text.Text:
    return rich.text.Text(cell, _STYLES.get(cell, ""))
