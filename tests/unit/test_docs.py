"""The examples of docs/testing.md and docs/services.md are parts of files that a live test runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTING = (ROOT / "docs" / "testing.md").read_text()
SERVICES = (ROOT / "docs" / "services.md").read_text()
BLOCKS = re.findall(r"^```(python|ini)\n(.*?)^```$", TESTING + SERVICES, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("language", "block"), BLOCKS, ids=lambda text: text.split("\n")[0][:40])
def test_every_example_is_run(language: str, block: str) -> None:
    """Each is whole lines of one file."""
    files = (ROOT / "tests" / "docs").glob("*.ini" if language == "ini" else "*.py")
    assert any(f"\n{block}" in f"\n{path.read_text()}" for path in files)


def test_there_are_examples() -> None:
    """And every chapter that the contents name is there."""
    assert len(BLOCKS) > 10
    for text in (TESTING, SERVICES):
        chapters = re.findall(r"^\d+\. \[(.*)\]\(#(.*)\)$", text, re.MULTILINE)
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert [title for title, _ in chapters] == headings
        assert [anchor for _, anchor in chapters] == [
            heading.lower().replace(" ", "-").replace("'", "") for heading in headings
        ]


def test_links_to_files_lead_somewhere() -> None:
    """Those to other documents and pictures."""
    for target in re.findall(r"\]\(([\w-]+\.(?:md|svg))\)", TESTING + SERVICES):
        assert (ROOT / "docs" / target).exists(), target
