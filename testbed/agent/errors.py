"""What can go wrong on a node, always as *what*, *where* and *why*.

::

    AgentError              what failed, where (file, object, pod), why (the tool's own words)
    ├── CommandError        a native tool ended with an error: its argument list and output
    └── CniError            a CNI plugin answered with an error: its code, message and details
"""

from __future__ import annotations

__all__ = ["AgentError", "CniError", "CommandError"]


class AgentError(Exception):
    """Something failed on this node: ``what`` failed, ``where``, and ``why``."""

    def __init__(self, what: str, where: str = "", why: str = "") -> None:
        self.what = what
        self.where = where
        self.why = why
        super().__init__(": ".join(part for part in (where, what, why) if part))

    def as_dict(self) -> dict[str, str]:
        """The error as log lines, ``state.json`` and the control socket carry it."""
        return {"what": self.what, "where": self.where, "why": self.why}


class CommandError(AgentError):
    """A native tool failed; ``argv`` can be pasted into a shell, ``output`` is what it printed."""

    def __init__(self, argv: tuple[str, ...], output: str, status: int | None) -> None:
        self.argv = argv
        self.output = output.strip()
        self.status = status
        reason = "did not end in time" if status is None else f"exit status {status}"
        super().__init__(
            f"{argv[0]} failed", where=" ".join(argv), why=self.output or f"{reason}, no output"
        )


class CniError(AgentError):
    """A CNI plugin reported an error (CNI specification, section 5 "Error").

    ``code`` is the specification's (100 and above: the plugin's own, 999: internal).
    """

    def __init__(
        self, plugin: str, command: str, code: int, msg: str, details: str = "", stderr: str = ""
    ) -> None:
        self.plugin = plugin
        self.command = command
        self.code = code
        self.msg = msg
        self.details = details
        self.stderr = stderr
        why = f"{msg} ({details})" if details else msg
        super().__init__(
            f"CNI {command} failed with code {code}", where=f"plugin {plugin}", why=why
        )

    def as_dict(self) -> dict[str, str]:
        """As :meth:`AgentError.as_dict`, with the plugin's code, message, details and stderr."""
        own = {
            "plugin": self.plugin,
            "command": self.command,
            "code": str(self.code),
            "msg": self.msg,
            "details": self.details,
            "stderr": self.stderr,
        }
        return {**super().as_dict(), **{key: value for key, value in own.items() if value}}


def describe(error: BaseException) -> dict[str, str]:
    """Any exception as :meth:`AgentError.as_dict`; a defect of the agent names its source line."""
    if isinstance(error, AgentError):
        return error.as_dict()
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = "" if frame is None else f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
    return {"what": "the agent failed", "where": where, "why": f"{type(error).__name__}: {error}"}
