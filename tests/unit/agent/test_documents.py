"""Documents from the host: inside the argument, or a file."""

from __future__ import annotations

from pathlib import Path

from testbed.agent.documents import received
from testbed.node.archive import fits


def test_a_path_is_a_path() -> None:
    """The file was copied in."""
    assert received("/var/lib/testbed/x") == "/var/lib/testbed/x"


def test_inline_text_becomes_a_file(tmp_path: Path) -> None:
    """Every character of it."""
    text = '{"a": "inline: ä\\n"}\n'
    assert Path(received(f"inline:{text}", str(tmp_path))).read_text(encoding="utf-8") == text


def test_what_fits_is_counted_in_bytes() -> None:
    """The kernel's limit for one argument is 128 KiB, with its final zero."""
    assert fits("x" * 120_000)
    assert not fits("x" * 120_001)
    assert not fits("ä" * 60_001)
