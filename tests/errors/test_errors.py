"""Every ``NAME.yaml`` here is a wrong topology; ``NAME.txt`` is what testbed says about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.errors import TopologyError
from testbed.topology.load import load
from tests.unit.topology.strategies import CNIS

DIRECTORY = Path(__file__).parent


@pytest.mark.parametrize("name", sorted(path.stem for path in DIRECTORY.glob("*.yaml")))
def test_message(
    name: str, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is exactly the one beside the input, every problem at once."""
    monkeypatch.chdir(DIRECTORY)
    with pytest.raises(TopologyError) as raised:
        load(Path(f"{name}.yaml"), cnis=CNIS)
    golden(DIRECTORY / f"{name}.txt", f"{raised.value}\n")


def test_every_message_has_its_input() -> None:
    """No message stays behind when its input is renamed."""
    inputs = {path.stem for path in DIRECTORY.glob("*.yaml")}
    assert {path.stem for path in DIRECTORY.glob("*.txt")} == inputs
