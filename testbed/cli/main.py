"""``testbed``: parse, run one verb, turn errors into messages and exit codes.

Exit codes: 0 done, 1 a check or command failed, 2 wrong usage or bad input, 3 the environment
cannot do it, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, NoReturn

from testbed.errors import TestbedError

if TYPE_CHECKING:
    from testbed.cli.console import Console

__all__ = ["main", "parser", "run"]

VERBS = (
    "up",
    "down",
    "ls",
    "status",
    "apply",
    "delete",
    "check",
    "capture",
    "trace",
    "service",
    "exec",
    "shell",
    "logs",
    "plan",
    "setup",
    "doctor",
    "image",
)
"""In the order in which ``--help`` lists them."""

_INTERRUPTED = 130


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    words = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(words)
    from testbed.cli.console import Console

    console = Console()
    interrupted = _watch_interrupts()
    try:
        sys.exit(args.run(args, console))
    except KeyboardInterrupt:
        console.error(f"interrupted. {args.interrupted}".rstrip())
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away: nothing more to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # the last resort: no traceback reaches a user unasked
        if interrupted:  # a library turned the interrupt into an error of its own
            console.error(f"interrupted. {args.interrupted}".rstrip())
            sys.exit(_INTERRUPTED)
        sys.exit(_explain(error, console))


def _watch_interrupts() -> list[int]:
    """A list that has an entry once Ctrl-C was pressed; the interrupt itself is raised as ever."""
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        seen.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    return seen


def run() -> NoReturn:
    """Be the whole process: :func:`main`, and then end without taking the interpreter apart.

    Freeing what the Docker SDK has loaded, object by object, takes 25 ms of every command.
    """
    code: object = 1
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us, as with `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - until the end
    try:
        main()
    except SystemExit as end:
        code = end.code
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the reader is gone: it has what it wanted
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    whole = argparse.ArgumentParser(
        prog="testbed",
        description="Real multi-node Kubernetes pod networking in Docker, without Kubernetes.",
        epilog="`testbed COMMAND --help` shows examples. Start with: testbed up flannel",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in VERBS:
        add(verbs, name, import_module(f"testbed.cli.verbs.{name}"))
    return whole


def add(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, module: ModuleType
) -> None:
    """Add one verb with its help, its examples and its arguments."""
    examples = "\n".join(f"  {line}" for line in module.EXAMPLE.splitlines())
    verb = verbs.add_parser(
        name,
        help=module.HELP,
        description=module.HELP[0].upper() + module.HELP[1:] + ".",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.arguments(verb)
    verb.set_defaults(run=module.run, interrupted=getattr(module, "INTERRUPTED", ""))


def _explain(error: Exception, console: Console) -> int:
    if isinstance(error, ExceptionGroup):
        return max(_explain(each, console) for each in error.exceptions)
    if isinstance(error, TestbedError):
        console.error(str(error))
        return error.exit_code
    if os.environ.get("TESTBED_DEBUG"):
        raise error
    origin = type(error).__module__.partition(".")[0]
    if origin in ("docker", "requests", "urllib3"):
        console.error(f"the Docker engine: {getattr(error, 'explanation', None) or error}")
        return 1
    console.error(
        f"{type(error).__name__}: {error}\nThis is a fault of testbed's own. With TESTBED_DEBUG=1 "
        "the same command shows where it happened; please report that."
    )
    return 1


if __name__ == "__main__":
    run()
