"""``testbed exec``: run a command in a node or in a pod's container."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "run a command in a node or a pod"
EXAMPLE = """\
testbed exec node1 -- ip route
testbed exec netexec-node1-1 -- ping -c1 10.244.1.2
testbed exec default/web:nginx -- cat /etc/hosts
echo hello | testbed exec -i node1 -- wc -c"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where and what."""
    parser.usage = "testbed exec [-h] [-i] [-t] [--name N] TARGET -- CMD [ARG ...]"
    parser.add_argument(
        "target", metavar="TARGET", help="a node, router or client, or [NAMESPACE/]POD[:CONTAINER]"
    )
    parser.add_argument("-i", "--stdin", action="store_true", help="pass standard input on")
    parser.add_argument("-t", "--tty", action="store_true", help="give the command a terminal")
    options.name(parser)
    parser.add_argument("command", metavar="CMD", nargs="+", help="the command, after --")


def run(args: argparse.Namespace, console: Console) -> int:
    """Become the command: its exit code is ours."""
    del console
    from testbed import target

    return target.become(
        options.wanted_name(args), args.target, args.command, stdin=args.stdin, tty=args.tty
    )
