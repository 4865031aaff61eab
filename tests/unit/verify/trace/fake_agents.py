"""Agents that have their answers to a trace ready."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from testbed.errors import NodeError

__all__ = ["FakeLine", "collected", "ready"]


class FakeLine:
    """An agent that has its answers ready; after the last one it is gone."""

    def __init__(self, *answers: Mapping[str, Any] | bytes) -> None:
        self._answers = list(answers)
        self.heard: list[dict[str, Any]] = []

    def send(self, line: str) -> None:
        """Note the question."""
        self.heard.append(json.loads(line))

    def line(self, seconds: float) -> bytes:
        """The next answer."""
        assert seconds > 0
        if not self._answers:
            raise NodeError("`testbed-agent trace` on t-node1 ended: killed")
        answer = self._answers.pop(0)
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


def ready(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A greeting."""
    return {"ready": True, "missing": [], "facts": facts}


def collected(data: bytes, facts: Mapping[str, Any], dropped: int = 0) -> dict[str, Any]:
    """What an agent saw."""
    encoded = base64.b64encode(data).decode()
    return {"pcapng": encoded, "dropped": dropped, "facts": facts}
