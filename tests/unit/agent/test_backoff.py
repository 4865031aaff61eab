"""When a container runs again."""

from __future__ import annotations

import pytest

from testbed.agent.backoff import Backoff, restarts


def test_delays_are_kubelets() -> None:
    """The first restart is immediate, then 10 s doubling up to 300 s."""
    backoff, now, waits = Backoff(), 1000.0, []
    for _ in range(9):
        wait = backoff.next(now)
        waits.append(wait)
        now += wait
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300, 300]


def test_ten_minutes_of_running_reset_the_delay() -> None:
    """Only more than 600 s after the last restart the next one is immediate again."""
    backoff = Backoff()
    assert [backoff.next(0), backoff.next(0)] == [0, 10]
    assert backoff.next(10 + 600) == 20
    assert backoff.next(10 + 600 + 20 + 601) == 0


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_restart_policy(policy: str, code: int, again: bool) -> None:
    """RestartPolicy decides by the exit code."""
    assert restarts(policy, code) is again
