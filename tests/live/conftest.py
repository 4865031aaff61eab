"""Running testbeds for the live tests, and proof that nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from testbed import existing
from testbed.api.place import Place
from testbed.api.testbed import Testbed
from testbed.api.testbed import quiet as quiet  # for the tests
from testbed.dataplane.features import Features
from testbed.node import engine, features, image, labels
from testbed.node.progress import silent
from testbed.pytest_recorder import Recorder

SLOWNESS = float(os.environ.get("TESTBED_TEST_SLOWNESS", "1"))
"""What deadlines are multiplied by: an emulated machine is about ten times as slow."""
TOPOLOGIES = Path(__file__).parent / "topologies"


class Running(Testbed):
    """A testbed that is up; what tests ask of it by name besides its nodes and pods."""

    def host(self, target: str) -> Host:
        """testinfra inside a node or a pod: ``node1``, ``web``, ``web?container=nginx``."""
        place, _, container = target.partition("?container=")
        if container:
            return self.pods[place].container(container).host
        known: Mapping[str, Place] = {**self.routers, **self.clients, **self.nodes}
        return known[place].host if place in known else self.pods[place].host

    def container(self, node: str) -> str:
        """The Docker container of a node."""
        return f"{self.name}-{node}"

    def pod(self, name: str, namespace: str = "default") -> dict[str, Any]:
        """A pod's entry of ``status -o json``."""
        pods = existing.status(self.client, self.name)["pods"]
        return next(p for p in pods if (p["namespace"], p["name"]) == (namespace, name))

    def ip(self, name: str) -> str:
        """A pod's address, as it is now."""
        return str(self.pod(name)["ip"])


Lasting = Callable[..., AbstractContextManager[Running]]


def bring_up(client: Any, topology: str, **overrides: Any) -> Running:
    """``testbed up`` of a file below tests/live/topologies, or of a shipped topology."""
    own = TOPOLOGIES / f"{topology}.yaml"
    return Running.up(own if own.exists() else topology, client=client, **overrides)


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """The engine."""
    found = engine.connect()
    yield found
    found.close()


@pytest.fixture(scope="session")
def able(client: Any) -> Features:
    """What the engine and its kernel can do."""
    return features.detect(client, image.ensure(client, silent))


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(client: Any) -> Iterator[None]:
    """Every container and network that these tests made is gone at the end.

    Their testbeds have the test process's PID in their names: others may run on the same engine.
    """
    yield
    names = {each["Labels"][labels.NAME] for each in owned(client)}
    left = {name for name in names if str(os.getpid()) in name.split("-")}
    assert not left, f"left behind: {left}"


def owned(client: Any) -> list[dict[str, Any]]:
    """Containers and networks of every testbed."""
    chosen = labels.selecting()
    return [
        *client.api.containers(all=True, filters=chosen),
        *client.api.networks(filters=chosen),
    ]


@pytest.fixture(scope="session")
def lasting(client: Any, flight_recorder: Recorder) -> Lasting:
    """What brings up a testbed for a block: a topology, a name, and what to override."""

    @contextmanager
    def up(topology: str, name: str, **overrides: Any) -> Iterator[Running]:
        own = f"{name}-{os.getpid()}"
        try:
            found = bring_up(client, topology, name=own, **overrides)
            flight_recorder.watch(found)
            yield found
        finally:
            flight_recorder.unwatch(own)
            existing.down(client, own, quiet)

    return up


@pytest.fixture(scope="session")
def live(lasting: Lasting) -> Iterator[Running]:
    """Three nodes with VXLAN and every kind of pod; tests that break it make their own."""
    with lasting("pods", name="live") as found:
        yield found


@pytest.fixture
def make(client: Any, flight_recorder: Recorder) -> Iterator[Callable[..., Running]]:
    """Bring up testbeds that end with the test: ``make("flannel", nodes=2)``."""
    made: list[str] = []

    def up(topology: str, **overrides: Any) -> Running:
        name = overrides.pop("name", f"made-{os.getpid()}-{len(made)}")
        made.append(name)
        found = bring_up(client, topology, name=name, **overrides)
        flight_recorder.watch(found)
        return found

    try:
        yield up
    finally:
        for name in made:
            flight_recorder.unwatch(name)
            existing.down(client, name, quiet)


@dataclass(frozen=True)
class Cli:
    """The command line, as a user runs it."""

    environment: dict[str, str]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "testbed.cli.main", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def __call__(self, *words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run ``testbed`` with this environment's interpreter."""
    kept = {key: value for key, value in os.environ.items() if key != "TESTBED_NAME"}
    return Cli(kept)
