"""A command in a node that is talked to while it runs: standard input and output of one exec.

The engine closes the command's standard input when the connection to it ends, also when this
process is killed. A command that ends at the end of its input therefore never outlives us.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from testbed.errors import NodeError
from testbed.node import streams

if TYPE_CHECKING:
    import docker

__all__ = ["Session"]


class Session:
    """One exec; use as a context manager, whose end hangs up and thereby ends the command.

    Only one thread may read from it.

    Raises:
        NodeError: the engine refused, for example because the node does not run.
    """

    def __init__(self, client: docker.DockerClient, container: str, argv: list[str]) -> None:
        from docker.errors import APIError

        self.what = f"`{' '.join(argv[:2])}` on {container}"  # more words may be whole documents
        self._client = client
        self._pending = b""
        self._complaints: list[bytes] = []
        try:
            self._identity = client.api.exec_create(container, argv, stdin=True)["Id"]
            self._stream: Any = client.api.exec_start(self._identity, socket=True)
        except APIError as error:
            raise NodeError(f"{self.what}: {error.explanation}") from error
        self._held = ExitStack()
        self._held.enter_context(streams.released(self._stream))
        self._output = self._read()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.hang_up()
        self._held.close()

    @property
    def errors(self) -> str:
        """What the command has printed on standard error so far, as far as it was read."""
        return b"".join(self._complaints).decode(errors="replace")

    def chunks(self) -> Iterator[bytes]:
        """Standard output as it comes, until the command ends."""
        if self._pending:
            pending, self._pending = self._pending, b""
            yield pending
        yield from self._output

    def line(self, seconds: float) -> bytes:
        """The next line of standard output, without its end.

        Raises:
            NodeError: there is none within ``seconds``, or the command ended before; the message
                has its words.
        """
        with streams.deadline(seconds, self.hang_up) as late:
            while b"\n" not in self._pending:
                chunk = next(self._output, b"")
                if not chunk:
                    break
                self._pending += chunk
        line, end, self._pending = self._pending.partition(b"\n")
        if end:
            return line
        if late.is_set():
            raise NodeError(f"{self.what} did not answer within {seconds:g} s")
        raise NodeError(f"{self.what} ended: {self.errors.strip() or 'without a word'}")

    def send(self, line: str) -> None:
        """Write a line to standard input.

        Raises:
            NodeError: the connection is gone.
        """
        end = self._end
        if end is None:
            raise NodeError(f"{self.what} cannot be told anything: it has ended")
        try:
            end.sendall(line.encode() + b"\n")
        except OSError as error:
            raise NodeError(f"{self.what} cannot be told anything: {error.strerror}") from error

    def hang_up(self) -> None:
        """End the connection, also for a thread that reads from it."""
        streams.hang_up(self._stream)

    def finish(self, seconds: float) -> int:
        """Read to the command's end and return its exit code.

        Raises:
            NodeError: it did not end within ``seconds``, or the node stopped meanwhile.
        """
        with streams.deadline(seconds, self.hang_up) as late:
            for chunk in self._output:
                self._pending += chunk
        code = self._client.api.exec_inspect(self._identity)["ExitCode"]
        if late.is_set():
            raise NodeError(f"{self.what} did not end within {seconds:g} s")
        if code is None:
            raise NodeError(f"{self.what} was cut off: the node stopped meanwhile")
        return int(code)

    @property
    def _end(self) -> Any:
        """Our end of the connection; ``None`` once the SDK has closed it, at the end of output."""
        return getattr(self._stream, "_sock", self._stream)

    def _read(self) -> Iterator[bytes]:
        with suppress(OSError, ValueError):  # hung up
            for which, text in streams.frames(self._stream):
                if which == streams.STDOUT:
                    yield text
                else:
                    self._complaints.append(text)
