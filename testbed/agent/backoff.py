"""When a container that ended runs again: kubelet's CrashLoopBackOff. Pure."""

from __future__ import annotations

__all__ = ["Backoff", "restarts"]

INITIAL = 10.0
MAXIMUM = 300.0
RESET_AFTER = 600.0


class Backoff:
    """Delays in seconds: 0, 10, 20, 40, 80, 160, 300, 300, ….

    kubelet (``doBackOff``, client-go ``flowcontrol.Backoff``) restarts at once when there was no
    restart in the last 2 * 300 s, else ``delay`` after the container ended.
    """

    __slots__ = ("_delay", "_last")

    def __init__(self) -> None:
        self._delay = 0.0
        self._last = 0.0

    def next(self, now: float) -> float:
        """Seconds to wait after an end at ``now`` (monotonic); counts as a restart then."""
        if self._delay and now - self._last > RESET_AFTER:
            self._delay = 0.0
        wait = self._delay
        self._delay = min(MAXIMUM, wait * 2) if wait else INITIAL
        self._last = now + wait
        return wait


def restarts(policy: str, exit_code: int) -> bool:
    """Whether ``restartPolicy`` starts a container again that ended with ``exit_code``."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)
