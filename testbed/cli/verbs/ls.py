"""``testbed ls``: the testbeds of this engine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "list the testbeds of this engine"
EXAMPLE = """\
testbed ls
testbed ls -o json"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing but the output's form."""
    options.output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """One row per testbed."""
    from testbed import existing
    from testbed.node import engine, inventory

    found = {
        name: [each for each in containers if inventory.role(each) == "node"]
        for name, containers in existing.names(engine.connect()).items()
    }
    rows = [
        {
            "name": name,
            "nodes": len(nodes),
            "running": sum(each["State"] == "running" for each in nodes),
        }
        for name, nodes in found.items()
    ]
    if args.output == "json":
        console.json(rows)
    elif rows:
        console.table(("NAME", "NODES", "RUNNING"), [list(row.values()) for row in rows])
    else:
        console.note("no testbed is there. `testbed up flannel` makes one.")
    return 0
