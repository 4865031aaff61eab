"""The verdict of a check, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["KINDS", "Finding", "Report"]

KINDS = ("node", "pod", "bgp", "icmp", "tcp", "wire")
"""It runs, it runs, a BGP session, a ping, a TCP connection, captured frames."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    kind: str
    """One of :data:`KINDS`."""
    source: str
    target: str
    ok: bool
    detail: str = ""
    """For a failure: what was expected and what was seen instead."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one check found."""

    findings: tuple[Finding, ...]
    encapsulation: str
    """What the oracle expected between nodes, in words."""
    unproven: tuple[str, ...] = ()
    """Pairs of nodes whose frames were not captured, because one of them has no pod to send."""

    @property
    def ok(self) -> bool:
        """Whether everything is as it must be; a check of nothing is no proof."""
        return bool(self.findings) and all(finding.ok for finding in self.findings)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """What is not as it must be."""
        return tuple(finding for finding in self.findings if not finding.ok)

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """Kind → (passed, all), always in the same order."""
        counted = dict.fromkeys(KINDS, (0, 0))
        for finding in self.findings:
            passed, total = counted[finding.kind]
            counted[finding.kind] = (passed + finding.ok, total + 1)
        return counted

    def to_json(self) -> dict[str, Any]:
        """Stable keys, for ``testbed check -o json``."""
        return {
            "ok": self.ok,
            "encapsulation": self.encapsulation,
            "counts": {
                kind: {"passed": passed, "total": total}
                for kind, (passed, total) in self.counts().items()
            },
            "unproven": list(self.unproven),
            "findings": [asdict(finding) for finding in self.findings],
        }
