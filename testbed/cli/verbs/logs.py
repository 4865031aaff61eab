"""``testbed logs``: what a node's agent or a pod's container printed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "show the log of a node's agent or of a pod's container"
EXAMPLE = """\
testbed logs node1
testbed logs netexec-node1-1 --follow
testbed logs default/web:nginx --tail 20"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Whose log, and how much of it."""
    parser.add_argument(
        "target", metavar="TARGET", help="a node, router or client, or [NAMESPACE/]POD[:CONTAINER]"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on until interrupted")
    parser.add_argument("--tail", type=options.count, metavar="N", help="only the last N lines")
    options.name(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Print the log."""
    from testbed import target

    for line in target.logs(options.wanted_name(args), args.target, args.follow, args.tail):
        console.raw(line)
    return 0
