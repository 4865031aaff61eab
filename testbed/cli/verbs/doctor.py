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
    """Exit code 3 when nothing can run here; the diagnosis is printed all the same."""
    from testbed.cli import render
    from testbed.errors import MissingCapabilityError
    from testbed.node import doctor, engine

    client, problem = None, ""
    try:
        client = engine.connect()
    except MissingCapabilityError as error:
        problem = str(error)
    diagnosis = doctor.examine(client, problem=problem)
    if args.output == "json":
        console.json(diagnosis.to_json())
    else:
        render.diagnosis(console, diagnosis.to_json())
    return 0 if diagnosis.ok else 3
