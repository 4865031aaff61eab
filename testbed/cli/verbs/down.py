"""``testbed down``: remove everything of a testbed, found by label."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "remove a testbed with all its nodes and its network"
EXAMPLE = """\
testbed down
testbed down flannel
testbed down --all"""


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

    client = engine.connect()
    for name in _names(args, client):
        with console.progress() as tell:
            removed = existing.down(client, name, tell)
        console.print(f"testbed {name} removed: {removed} node{'s' * (removed != 1)}")
    return 0


def _names(args: argparse.Namespace, client: object) -> list[str]:
    from testbed import existing

    name = args.testbed or args.name or os.environ.get("TESTBED_NAME")
    if name and not args.all:
        return [name]
    found = list(existing.names(client))  # type: ignore[arg-type]  # typed without the SDK
    return found if args.all or not found else [existing.choose(client, None)]  # type: ignore[arg-type]
