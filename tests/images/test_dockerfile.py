"""The node image's recipe, as far as it can be judged without building it."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = ROOT / "images" / "node"
DOCKERFILE = (NODE / "Dockerfile").read_text()


def test_every_stage_is_built_on_the_given_base() -> None:
    """Nothing is pulled but BASE, so that a machine without a registry can build it."""
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE}", "${BASE}"]


def test_names_no_host() -> None:
    """Packages come from where BASE's apt says: no mirror, registry or URL is named."""
    assert not re.findall(
        r"\w+://|\b[\w-]+\.(?:com|org|net|io|dev|sh)\b(?!/node)", DOCKERFILE.lower()
    )


def test_copies_what_exists() -> None:
    """Every COPY from the build context names files of this folder, or the agent."""
    copied = [
        source
        for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for source in sources.split()
    ]

    assert sorted(copied) == [
        "agent",
        "calico",
        "calico-ipam",
        "flannel",
        "ipip.bpf.c",
        "ipip.bpf.h",
        "netexec",
        "pause.c",
        "testbed-agent",
        "testbed-init",
    ]
    assert all((NODE / source).exists() for source in copied if source != "agent")


def test_runs_without_buildkit() -> None:
    """The SDK's builder is the classic one: no mounts, no here-documents, no COPY --chmod."""
    assert not re.findall(r"--mount|--chmod|--chown|<<", DOCKERFILE)


@pytest.mark.parametrize("name", ["testbed-agent", "calico", "calico-ipam", "flannel"])
def test_entry_script(name: str) -> None:
    """It starts isolated, without site, and calls a function that the agent has."""
    script = NODE / name
    lines = script.read_text().splitlines()
    (imported,) = (
        node for node in ast.parse(script.read_text()).body if isinstance(node, ast.ImportFrom)
    )
    assert imported.module is not None
    module = ROOT / "testbed" / Path(*imported.module.split(".")).with_suffix(".py")
    functions = {
        node.name
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }

    assert lines[0] == "#!/usr/bin/python3 -IS"
    assert os.access(script, os.X_OK)
    assert {alias.name for alias in imported.names} == {"main"} <= functions
