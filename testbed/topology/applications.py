"""What a container's ``image:`` may name: the applications of the node image.

Nothing is pulled. The last component of an image name, without tag and digest, is looked up here:
``docker.io/library/nginx:1.27`` is ``nginx``. Every container sees the node image's own root file
system, so any tool of it can be a ``command``.

``command`` and ``args`` replace the image's entrypoint and arguments as `Kubernetes defines
<https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/>`_.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from testbed.topology.source import quote

__all__ = ["APPLICATIONS", "Application", "resolve"]

_NETEXEC = "/usr/local/bin/netexec"
_PAUSE = "/pause"


@dataclass(frozen=True, slots=True)
class Application:
    """One application of the node image and how it is started."""

    entrypoint: tuple[str, ...]
    args: tuple[str, ...]
    """What runs after the entrypoint when a container gives neither command nor args."""
    description: str
    program: str = ""
    """Set where the real image's entrypoint is a script: it runs this program for args that begin
    with its name or with an option, and runs any other args as they are."""

    def argv(self, command: Sequence[str], args: Sequence[str]) -> tuple[str, ...]:
        """Merge a container's ``command`` and ``args``; empty is the same as absent."""
        if command:
            return (*command, *args)
        if not args:
            return self.entrypoint + self.args
        if self.program and args[0] == self.program:
            return (*self.entrypoint, *args[1:])
        if self.program and not args[0].startswith("-"):
            return tuple(args)
        return (*self.entrypoint, *args)


APPLICATIONS: Mapping[str, Application] = {
    "netexec": Application(
        (_NETEXEC,),
        (),
        "answers over HTTP (8080) and UDP (8081) as agnhost's netexec does; the default",
        program="netexec",
    ),
    "agnhost": Application(
        ("/agnhost",),
        ("pause",),
        "Kubernetes' test image; its subcommands netexec and pause are here",
    ),
    "busybox": Application(
        (),
        ("sleep", "infinity"),
        "a shell and its tools; sleeps unless given a command",
    ),
    "nginx": Application(
        ("/usr/sbin/nginx",),
        ("-g", "daemon off;"),
        "a web server on port 80",
        program="nginx",
    ),
    "redis": Application(
        # Every address of the pod's own network namespace, as the real image listens.
        ("/usr/bin/redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""),  # noqa: S104
        (),
        "a key-value store on port 6379 that keeps nothing on disk",
        program="redis-server",
    ),
    "iperf3": Application(
        ("/usr/bin/iperf3",),
        ("-s",),
        "a throughput server on port 5201",
    ),
    "pause": Application(
        (_PAUSE,),
        (),
        "does nothing, in a few kilobytes of memory",
    ),
}

_AGNHOST = {"netexec": _NETEXEC, "pause": _PAUSE}


def resolve(image: str, command: Sequence[str], args: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The application that ``image`` names, and the argv that runs it.

    Raises:
        ValueError: the node image has no such application; the message lists what it has.
    """
    name = PurePosixPath(image.partition("@")[0]).name.partition(":")[0]
    if name not in APPLICATIONS:
        raise ValueError(
            f"{quote(image)} is not an application of the node image, and nothing is pulled; "
            f"use one of {', '.join(APPLICATIONS)} (any tool of the node image can be its command)"
        )
    argv = APPLICATIONS[name].argv(command, args)
    return _agnhost(argv) if name == "agnhost" else (name, argv)


def _agnhost(argv: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    if PurePosixPath(argv[0]).name != "agnhost":
        return "agnhost", argv
    subcommand = argv[1] if len(argv) > 1 else ""
    if subcommand not in _AGNHOST:
        wanted = f"asked to run {quote(subcommand)}" if subcommand else "given no subcommand"
        raise ValueError(
            f"agnhost is {wanted}; only its {' and '.join(_AGNHOST)} are here: begin args with one"
        )
    return subcommand, (_AGNHOST[subcommand], *argv[2:])
