"""``testbed shell``: an interactive shell in a node or a pod."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "open a shell in a node or a pod"
EXAMPLE = """\
testbed shell node1
testbed shell netexec-node1-1"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where."""
    parser.add_argument(
        "target", metavar="TARGET", help="a node, router or client, or [NAMESPACE/]POD[:CONTAINER]"
    )
    options.name(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Become the shell; without a terminal it reads commands from standard input."""
    del console
    from testbed import target

    name = options.wanted_name(args)
    return target.become(name, args.target, ["bash"], stdin=True, tty=sys.stdin.isatty())
