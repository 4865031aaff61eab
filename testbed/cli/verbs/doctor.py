"""``testbed doctor``: what this engine and kernel can do, and what testbed can do with it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "show what engine and kernel can do, with a verdict per feature"
EXAMPLE = """\
testbed doctor
testbed doctor -o json"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing but the output's form."""
    options.output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Exit code 3 when not even `testbed up flannel` can run."""
    from testbed.cli import render
    from testbed.node import doctor, engine

    try:
        client = engine.connect()
    except engine.NoEngineError:
        client = None
    diagnosis = doctor.examine(client)
    if args.output == "json":
        console.json(diagnosis.to_json())
    else:
        render.diagnosis(console, diagnosis.to_json())
    return 0
