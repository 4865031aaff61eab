"""The shipped topologies are Compose files: docker-compose itself reads them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

COMPOSE = Path(__file__).parents[2] / "compose"


@pytest.mark.parametrize("path", sorted(COMPOSE.glob("*.yaml")), ids=lambda path: path.stem)
def test_docker_compose_accepts_it(path: Path) -> None:
    """``docker-compose config`` (Debian's docker-compose, or the docker plugin) finds no fault."""
    argv = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    done = subprocess.run(
        [*argv, "-f", str(path), "config", "--quiet"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
