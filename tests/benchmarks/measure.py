"""What every benchmark is made of: promises, commands, and containers to compare nodes with."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.node import engine, features, image
from testbed.node.container import host_config
from testbed.node.progress import silent
from testbed.node.underlay import OPTIONS

__all__ = ["ROUNDS", "Bare", "Promise", "run", "testbed", "timed"]

ROUNDS = 7
"""Medians are of so many, after one that warms caches."""


@dataclass(frozen=True)
class Promise:
    """One number, what it may be at most (or at least), and what it is compared with."""

    what: str
    value: float
    limit: float
    unit: str
    detail: str = ""
    at_least: bool = False

    @property
    def kept(self) -> bool:
        """Whether the number is within its limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        bound = "at least" if self.at_least else "at most"
        mark = "ok  " if self.kept else "FAIL"
        value = f"{self.value:.2f} {self.unit} ({bound} {self.limit:g})"
        return f"{mark} {self.what}: {value} {self.detail}".rstrip()


def run(argv: Sequence[str]) -> str:
    """Run a command; its standard output. Python may keep its bytecode, as it normally does."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def timed(work: Callable[[], object]) -> float:
    """Seconds of wall time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def testbed(*words: str) -> list[str]:
    """The command line of this environment's testbed."""
    return [str(Path(sys.executable).with_name("testbed")), *words]


class Bare:
    """Containers of the node image that do nothing, on the same kind of network as nodes."""

    def __init__(self, name: str, count: int) -> None:
        client = engine.connect()
        self.image = image.ensure(client, silent)
        able = features.detect(client, self.image)
        config = host_config(client, able, name)
        self._network = name
        self.names = [f"{name}-{index}" for index in range(count)]
        self._create = [
            "docker", "run", "-d", "--network", name, "--entrypoint", "sleep",
            *(["--privileged"] if able.privileged else []),
            *(word for cap in config.get("CapAdd") or () for word in ("--cap-add", cap)),
            *(word for opt in config.get("SecurityOpt") or () for word in ("--security-opt", opt)),
            *(word for dev in config.get("Devices") or ()
              for word in ("--device", dev["PathOnHost"])),
        ]  # fmt: skip
        if not able.privileged:
            self._create += ["--security-opt", "systempaths=unconfined"]

    def network(self) -> None:
        """Make the network."""
        options = [word for key, value in OPTIONS.items() for word in ("-o", f"{key}={value}")]
        run(["docker", "network", "create", *options, self._network])

    def start(self) -> None:
        """Start the containers in parallel."""
        started = [
            subprocess.Popen(
                [*self._create, "--name", name, self.image, "infinity"],
                stdout=subprocess.DEVNULL,
            )
            for name in self.names
        ]
        if any(process.wait() for process in started):
            raise SystemExit("docker run failed")

    def remove(self) -> None:
        """Remove the containers and the network."""
        run(["docker", "rm", "-f", *self.names])
        run(["docker", "network", "rm", self._network])

    def clean_up(self) -> None:
        """The same for what may or may not be there."""
        subprocess.run(["docker", "rm", "-f", *self.names], capture_output=True)
        subprocess.run(["docker", "network", "rm", self._network], capture_output=True)
