"""Which container a process is, also when it ends before anybody knows that it has begun."""

from __future__ import annotations

from .pods import Container, Pod

__all__ = ["Processes"]

Owner = tuple[Pod, Container | None]
"""The container, or ``None`` for pause."""


class Processes:
    """Process IDs of containers.

    A worker reports the ID of a container's first process after it has started; the reaper may
    report its end earlier. So while a start is under way, ends of unknown processes are kept.
    """

    def __init__(self) -> None:
        self._owners: dict[int, Owner] = {}
        self._starting = 0
        self._unclaimed: dict[int, int] = {}

    def starting(self) -> None:
        """A start is under way; :meth:`started` or :meth:`failed` must follow."""
        self._starting += 1

    def started(self, pid: int, owner: Owner) -> int | None:
        """``pid`` is ``owner``; if it has ended already, return its exit code and forget it."""
        code = self._unclaimed.pop(pid, None)
        if code is None:
            self._owners[pid] = owner
        self.failed()
        return code

    def failed(self) -> None:
        """A start has come to its end."""
        self._starting -= 1
        if not self._starting:
            self._unclaimed.clear()

    def ended(self, pid: int, code: int) -> Owner | None:
        """Whose process has ended; ``None``: nobody's, or not known yet."""
        owner = self._owners.pop(pid, None)
        if owner is None and self._starting:
            self._unclaimed[pid] = code
        return owner
