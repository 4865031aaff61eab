"""Every error that testbed raises on purpose.

::

    TestbedError                    exit 1
    ├── UsageError                  exit 2  wrong arguments, an unknown name
    │   ├── TopologyError           exit 2  every problem of a topology, at once
    │   └── PlanError               exit 2  a valid topology that no planner can realise
    ├── MissingCapabilityError      exit 3  the machine or the engine cannot do it
    │   └── NoEngineError           exit 3  no Docker engine answers (testbed.node.engine)
    ├── NodeError                   exit 1  a node container failed
    │   └── ApplyError              exit 1  a native tool refused a line on a node
    └── SandboxError                exit 1  a pod could not be set up (CNI code, message, details)

Parallel failures travel as an :class:`ExceptionGroup` of these. Only the command line exits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "ApplyError",
    "MissingCapabilityError",
    "NodeError",
    "PlanError",
    "Problem",
    "SandboxError",
    "TestbedError",
    "TopologyError",
    "UsageError",
]


class TestbedError(Exception):
    """Something that testbed can explain: the message says what, where, why and what to do."""

    __test__ = False  # pytest would otherwise collect a class of this name
    exit_code: ClassVar[int] = 1


class UsageError(TestbedError):
    """The command line or an input names something that is wrong or does not exist."""

    exit_code = 2


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One problem of an input file, printed as compilers do: ``file:line: what and why``.

    ``line`` counts from 1; 0 means the whole file.
    """

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}"


class TopologyError(UsageError):
    """A topology or manifest is wrong; ``problems`` holds every problem, in file order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PlanError(UsageError):
    """The topology is well formed, but no planner can realise it."""


class MissingCapabilityError(TestbedError):
    """The machine or the engine lacks something; the message says how to get it."""

    exit_code = 3


class NodeError(TestbedError):
    """A node container could not be created, started or reached."""


class ApplyError(NodeError):
    """A native tool refused what the plan says: node, file, line and the tool's own words."""


class SandboxError(TestbedError):
    """A pod's sandbox could not be set up, with the CNI plugin's code, message and details."""
