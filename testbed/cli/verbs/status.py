"""``testbed status``: nodes and pods with their addresses and states."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "show nodes and pods with their addresses and states"
EXAMPLE = """\
testbed status
testbed status --name flannel -o json"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which testbed."""
    options.name(parser)
    options.output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Exit code 0 as long as there is a status to show."""
    from testbed import existing
    from testbed.cli import render
    from testbed.node import engine

    client = engine.connect()
    status = existing.status(client, existing.choose(client, options.wanted_name(args)))
    if args.output == "json":
        console.json(status)
    else:
        render.status(console, status)
    return 0
