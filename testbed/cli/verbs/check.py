"""``testbed check``: prove with probes and captured frames that the network does what it must."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "probe all pod pairs and decode one captured packet per node pair"
EXAMPLE = """\
testbed check
testbed check -o json"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which testbed."""
    options.name(parser)
    options.output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Exit code 1 when anything is not as it must be."""
    from testbed import existing, lifecycle
    from testbed.cli import render
    from testbed.node import engine

    client = engine.connect()
    name = existing.choose(client, options.wanted_name(args))
    report = lifecycle.check(client, name).report
    if args.output == "json":
        console.json(report.to_json())
    else:
        render.report(console, report)
    return 0 if report.ok else 1
