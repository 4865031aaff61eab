"""Testbeds that tests share: which one is asked for, what it is called, and who removes it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from testbed import existing
from testbed.api.loading import loaded
from testbed.api.testbed import Testbed, quiet
from testbed.errors import UsageError
from testbed.node import engine, inventory
from testbed.topology.model import Cluster

__all__ = ["Asked", "NotAsPlannedError", "Use", "unique"]

_LONGEST = 40
"""Of a name that a unique part is added to: names of nodes' hosts have at most 63 characters."""


class NotAsPlannedError(AssertionError):
    """A testbed is there, but its check failed; the message has every failure."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A topology, and what a test wants instead of what it says."""

    topology: str
    """The name of one of testbed's own, or a path."""
    overrides: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, topology: str, overrides: Mapping[str, Any]) -> Asked:
        """The same for overrides in another order."""
        return cls(topology, tuple(sorted(overrides.items())))

    def __str__(self) -> str:
        words = [f"{name}={value}" for name, value in self.overrides]
        return ",".join([Path(self.topology).name.partition(".")[0], *words])

    def load(self) -> Cluster:
        """The topology.

        Raises:
            UsageError: it is not there, or wrong.
        """
        return loaded(self.topology, **dict(self.overrides))


@dataclass(slots=True)
class Use:
    """The use of one testbed by some tests, from before it is brought up until it is removed."""

    cluster: Cluster
    reuse: bool = False
    """Take the one of this name that runs, and leave it; else one under a unique name."""
    keep: bool = False
    """Leave it if a test failed."""
    failed: bool = False
    """Set when one does."""

    def __post_init__(self) -> None:
        if not self.reuse:
            self.cluster = replace(self.cluster, name=unique(self.cluster.name))

    @property
    def name(self) -> str:
        """The testbed's name."""
        return self.cluster.name

    @property
    def stays(self) -> bool:
        """Whether it is left running when nobody uses it any more."""
        return self.reuse or (self.keep and self.failed)

    @contextmanager
    def __call__(self) -> Iterator[Testbed]:
        """Bring it up for the block.

        Raises:
            TestbedError: it cannot be brought up.
            NotAsPlannedError: its check failed.
        """
        with closing(engine.connect()) as client:
            try:
                yield self._brought_up(client)
            except Exception:
                self.failed = True
                raise
            finally:
                if not self.stays:
                    existing.down(client, self.name, quiet)

    def _brought_up(self, client: Any) -> Testbed:
        if self.reuse and (found := _running(client, self.cluster)):
            return found
        made = Testbed.up(self.cluster, client=client)
        failures = made.outcome.report.failures
        if failures:
            lines = [
                f"  {each.kind} {each.source} {each.target}: {each.detail}" for each in failures
            ]
            raise NotAsPlannedError("\n".join([f"testbed {self.name} is not as planned:", *lines]))
        return made


def unique(name: str) -> str:
    """A name for a testbed that nobody else makes: other processes, machines and workers may."""
    return f"{name[:_LONGEST].rstrip('-')}-{os.getpid()}-{secrets.token_hex(2)}"


def _running(client: Any, cluster: Cluster) -> Testbed | None:
    """The testbed of this name, if it is there and all of it runs.

    Raises:
        UsageError: it has another topology.
    """
    with existing.locked(cluster.name, quiet):  # somebody may be making it
        listings = inventory.containers(client, cluster.name)
    try:
        there = existing.cluster_of(client, cluster.name, listings)
    except UsageError:  # none, or one whose `up` did not get far
        return None
    ipip = there.ipip if cluster.ipip == "auto" else cluster.ipip
    if there != replace(cluster, ipip=ipip):
        raise UsageError(
            f"testbed {cluster.name!r} is there with another topology than the one asked for. "
            f"`testbed down {cluster.name}`, or run pytest without --testbed-reuse."
        )
    running = {node for node, each in listings.items() if each["State"] == "running"}
    return Testbed(client, there) if running.issuperset(cluster.machines) else None
