"""What ``import testbed`` offers, and that it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import testbed


@pytest.mark.parametrize("name", testbed.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """Each in the module that has it, loaded when it is asked for."""
    assert getattr(testbed, name) is not None
    assert name in dir(testbed)


def test_another_name_is_not() -> None:
    """As in any module."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        testbed.nonsense  # noqa: B018 - asking is what raises


def test_importing_loads_nothing_else() -> None:
    """The command line starts with this import."""
    code = "import sys, testbed; print(*[n for n in sys.modules if n.startswith('testbed')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["testbed"]
