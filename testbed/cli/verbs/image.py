"""``testbed image build``: make the node image."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "build the node image"
EXAMPLE = """\
testbed image build
testbed image build --force
testbed image build --prune"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to do with the image."""
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    build = actions.add_parser("build", help="build it, if it is not there")
    build.add_argument("--force", action="store_true", help="build even if it is there")
    build.add_argument("--prune", action="store_true", help="remove older node images afterwards")


def run(args: argparse.Namespace, console: Console) -> int:
    """Print the image's reference."""
    from testbed.node import engine, image

    client = engine.connect()
    with console.progress() as tell:
        report = partial(tell, "")
        make = partial(image.build, force=True) if args.force else image.ensure
        reference = make(client, report)
        removed = image.prune(client, report) if args.prune else []
    console.print(reference)
    for old in removed:
        console.note(f"removed {old}")
    return 0
