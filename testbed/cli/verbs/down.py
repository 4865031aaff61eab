"""``testbed down``: remove everything of a testbed, found by label."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "remove a testbed with all its nodes, routers, clients and networks"
EXAMPLE = """\
testbed down
testbed down flannel
testbed down --all"""
INTERRUPTED = "The same command removes the rest."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which testbed."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("testbed", metavar="NAME", nargs="?", help="default: the only one there is")
    which.add_argument("--name", metavar="N", help="the same as NAME")
    which.add_argument("--all", action="store_true", help="every testbed of this engine")


def run(args: argparse.Namespace, console: Console) -> int:
    """Removing what is not there is a success."""
    from testbed import existing
    from testbed.node import engine

    if args.testbed is not None:
        args.name = args.testbed
    name = options.wanted_name(args)
    client = engine.connect()
    if name and not args.all:
        names = [name]
    else:
        names = list(existing.names(client))
        if len(names) > 1 and not args.all:
            existing.choose(client, None)
    for each in names:
        with console.progress() as tell:
            removed = existing.down(client, each, tell)
        roles = ["node", *(role for role in ("router", "client") if removed[role])]
        counts = (f"{removed[role]} {role}{'s' * (removed[role] != 1)}" for role in roles)
        console.print(f"testbed {each} removed: {', '.join(counts)}")
    return 0
