"""``testbed setup``: engine, node image and kernel facts; nothing is done twice."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "install and start what is missing: Docker engine, node image"
EXAMPLE = "testbed setup"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to choose."""
    del parser


def run(args: argparse.Namespace, console: Console) -> int:
    """Exit code 3 where it may not do it, with what to run instead."""
    del args
    from testbed.node.setup import setup

    with console.progress() as tell:
        setup(partial(tell, ""))
    return 0
