"""Loading a topology by the name of one of testbed's own, or by its path."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from testbed.errors import UsageError
from testbed.plan import cnis
from testbed.topology.load import Overrides, find, load
from testbed.topology.model import Cluster

__all__ = ["loaded"]


def loaded(topology: str | Path, **overrides: Any) -> Cluster:
    """Load a topology: the name of one of testbed's own, or a path.

    Raises:
        UsageError: there is none, or it is wrong, or an override has a name that there is not.
    """
    known = [field.name for field in fields(Overrides)]
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise UsageError(f"{', '.join(unknown)}: there is {', '.join(known)} to override")
    path = topology if isinstance(topology, Path) else find(topology)
    return load(path, Overrides(**overrides), cnis=cnis())
