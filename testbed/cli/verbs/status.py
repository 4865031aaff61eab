"""``testbed status``: nodes, routers and pods with their addresses and states."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "show nodes, routers and pods with their addresses and states"
EXAMPLE = """\
testbed status
testbed status -v
testbed status --name flannel -o json"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which testbed, and how much of it."""
    options.name(parser)
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="also daemons, BGP sessions and the counters of eBPF tunnels",
    )
    options.output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Exit code 0 as long as there is a status to show."""
    from testbed import existing
    from testbed.cli import render
    from testbed.node import engine

    client = engine.connect()
    name = existing.choose(client, options.wanted_name(args))
    status = existing.status(client, name, verbose=args.verbose)
    if args.output == "json":
        console.json(status)
        return 0
    render.status(console, status)
    if args.verbose:
        render.details(console, status)
    return 0
