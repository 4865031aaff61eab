"""The script that becomes PID 1 of a node keeps the spec of a new node, and only of a new one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "images" / "node" / "testbed-init"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script with its paths below ``tmp_path``, and an agent that prints its arguments."""
    agent = tmp_path / "testbed-agent"
    agent.write_text('#!/bin/sh\necho agent "$@"\n')
    agent.chmod(0o755)
    text = SCRIPT.read_text()
    text = text.replace("/etc/testbed", str(tmp_path / "etc"))
    path = tmp_path / "testbed-init"
    path.write_text(text.replace("/usr/local/bin", str(tmp_path)))
    path.chmod(0o755)
    return path


def run(script: Path, *words: str) -> str:
    """What the agent was started with."""
    return subprocess.run([script, *words], check=True, capture_output=True, text=True).stdout


def test_a_new_node_keeps_its_spec(script: Path, tmp_path: Path) -> None:
    """Every byte of it; the agent's arguments do not show it."""
    spec = '{"a": "back\\\\slash %s $HOME `id`\\n"}\n'
    assert run(script, spec) == "agent init\n"
    assert (tmp_path / "etc" / "spec.json").read_text() == spec


def test_a_restarted_node_keeps_the_newer_spec(script: Path, tmp_path: Path) -> None:
    """The argument is that of the node's creation; a sync may have replaced it since."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "spec.json").write_text("newer")
    run(script, "older")
    assert (tmp_path / "etc" / "spec.json").read_text() == "newer"


def test_without_a_spec_the_agent_says_so(script: Path, tmp_path: Path) -> None:
    """A spec too long for an argument was copied in instead."""
    assert run(script) == "agent init\n"
    assert not (tmp_path / "etc").exists()
