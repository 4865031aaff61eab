"""Fixtures of the agent's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.agent.fakes import FakePlugins


@pytest.fixture
def plugins(tmp_path: Path) -> FakePlugins:
    """An empty plugin directory."""
    directory = tmp_path / "bin"
    directory.mkdir()
    return FakePlugins(directory)
