"""``testbed-agent``: PID 1 of a node, and the commands that are run on it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from . import documents
from .errors import AgentError, describe

__all__ = ["main"]

USAGE = """\
usage: testbed-agent init                 run as PID 1 of a node
       testbed-agent sync SPEC            make the node hold SPEC (a path, or inline)
       testbed-agent services DOCUMENT    change what the node holds for Services
       testbed-agent status               print the node's state as JSON
       testbed-agent check                CNI CHECK of every pod, as JSON lines
       testbed-agent exec [--tty] [NAMESPACE/]POD[:CONTAINER] -- COMMAND [ARG]...
       testbed-agent logs [NAMESPACE/]POD[:CONTAINER] [--follow] [--tail N]
       testbed-agent probe REQUEST        probe the network (a path, or inline)
       testbed-agent capture REQUEST      packets of several interfaces, as one pcapng
       testbed-agent trace REQUEST        a probe and every sight of it, as JSON lines
       testbed-agent record REQUEST       take a time out of the flight recorder's ring
       testbed-agent process [list | start NAME | stop NAME | restart NAME]
       testbed-agent ipip [-o json]       the IP-in-IP driver and its counters
"""


def _init(arguments: list[str]) -> int:
    if arguments:
        return _usage("init takes no argument")
    from . import init

    return init.main()


def _sync(arguments: list[str]) -> int:
    from . import client

    if len(arguments) != 1:
        return _usage("sync takes the path of one spec")
    reply = client.request(
        {"command": "sync", "path": documents.received(arguments[0])}, client.print_json
    )
    client.print_json(reply)
    return 0 if reply["ok"] else 1


def _services(arguments: list[str]) -> int:
    if len(arguments) != 1:
        return _usage("services takes the path of one document")
    from . import services

    return services.main(arguments)


def _status(arguments: list[str]) -> int:
    from . import client

    if arguments:
        return _usage("status takes no argument")
    reply = client.request({"command": "status"}, lambda _: None)
    client.print_json(reply["state"] if reply["ok"] else reply)
    return 0 if reply["ok"] else 1


def _check(arguments: list[str]) -> int:
    from . import client

    if arguments:
        return _usage("check takes no argument")
    reply = client.request({"command": "check"}, lambda _: None)
    for line in reply["pods"] if reply["ok"] else [reply]:
        client.print_json(line)
    return 0 if reply["ok"] and not any(pod["error"] for pod in reply["pods"]) else 1


def _exec(arguments: list[str]) -> int:
    from . import execute

    return execute.main(arguments)


def _logs(arguments: list[str]) -> int:
    from . import logs

    return logs.main(arguments)


def _probe(arguments: list[str]) -> int:
    from . import mesh

    return mesh.main(arguments)


def _capture(arguments: list[str]) -> int:
    from . import captures

    return captures.main(arguments)


def _trace(arguments: list[str]) -> int:
    from . import trace

    return trace.main(arguments)


def _record(arguments: list[str]) -> int:
    from . import recorder

    return recorder.main(arguments)


def _process(arguments: list[str]) -> int:
    from . import client

    action, *names = arguments or ["list"]
    if len(names) != (action != "list"):
        return _usage("process takes list, or start, stop or restart and a name")
    request = {"command": "process", "action": action, "name": "".join(names)}
    reply = client.request(request, lambda _: None)
    for line in reply["processes"] if reply["ok"] else [reply]:
        client.print_json(line)
    return 0 if reply["ok"] else 1


def _ipip(arguments: list[str]) -> int:
    from . import ipip

    return ipip.main(arguments)


VERBS: dict[str, Callable[[list[str]], int]] = {
    "init": _init,
    "sync": _sync,
    "services": _services,
    "status": _status,
    "check": _check,
    "exec": _exec,
    "logs": _logs,
    "probe": _probe,
    "capture": _capture,
    "trace": _trace,
    "record": _record,
    "process": _process,
    "ipip": _ipip,
}


def _usage(problem: str) -> int:
    sys.stderr.write(f"testbed-agent: {problem}\n{USAGE}")
    return 2


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the return value is the exit status (0, 1 failed, 2 wrong usage)."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(USAGE)
        return 0
    verb = VERBS.get(arguments[0]) if arguments else None
    if verb is None:
        return _usage(f"unknown verb {arguments[0]!r}" if arguments else "which verb?")
    try:
        return verb(arguments[1:])
    except AgentError as error:
        sys.stderr.write(f"testbed-agent: {error}\n")
        return 1
    except Exception as error:  # a defect: one line that says where, no traceback
        found = describe(error)
        sys.stderr.write(f"testbed-agent: {found['what']}: {found['where']}: {found['why']}\n")
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        return 130
