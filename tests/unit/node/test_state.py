"""What a node says of itself, read in one exec."""

from __future__ import annotations

from typing import Any, cast

import docker
import pytest

from testbed.node import container

CLIENT = cast(docker.DockerClient, None)
LISTING = {"Id": "1", "State": "running"}


@pytest.mark.parametrize(
    ("printed", "services"),
    [
        ('{"phase": "ready"}\n', {}),
        ('{"phase": "ready"}', {}),
        ('{"phase": "ready"}\n{"serial":7}\n', {"serial": 7}),
        ('{"phase": "ready"}{"serial":7}', {"serial": 7}),
    ],
)
def test_the_agents_state_and_that_of_services(
    monkeypatch: pytest.MonkeyPatch, printed: str, services: dict[str, Any]
) -> None:
    """Of a node that was never told of Services there is only the first."""

    def run(_: object, identity: str, argv: list[str]) -> tuple[int, bytes, bytes]:
        assert argv == ["cat", container.STATE, container.SERVICES]
        return int(not services), printed.encode(), b""

    monkeypatch.setattr(container, "run", run)
    found = container.read_state(CLIENT, LISTING)
    assert found == {"phase": "ready", "services": services}
