"""``testbed up``: make a testbed what its topology says, and prove that it works."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console
    from testbed.topology.model import Cluster

HELP = "create a testbed, or bring an existing one to its topology, and check it"
EXAMPLE = """\
testbed up flannel
testbed up flannel --nodes 5 --pods-per-node 4 --name wide
testbed up my-topology.yaml -o json"""
INTERRUPTED = "`testbed down` removes what was made so far."


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to bring up, and what to override in it."""
    options.topology(parser)
    options.output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Load, plan, create, boot, check."""
    from testbed import lifecycle
    from testbed.cli import render
    from testbed.node import engine

    cluster = load(args)
    client = engine.connect()
    with console.progress() as tell:
        outcome = lifecycle.up(cluster, client, tell)
    if args.output == "json":
        console.json(
            {**outcome.status, "check": outcome.report.to_json(), "seconds": outcome.seconds}
        )
    else:
        render.status(console, outcome.status)
        console.print()
        render.report(console, outcome.report)
        render.seconds(console, outcome.seconds)
    if not outcome.report.ok:
        console.error(f"the check failed. Testbed {cluster.name!r} stays for inspection.")
        return 1
    return 0


def load(args: argparse.Namespace) -> Cluster:
    """The topology with the overrides of the command line."""
    from testbed.plan import cnis, proxies
    from testbed.topology.load import Overrides, find
    from testbed.topology.load import load as load_topology

    overrides = Overrides(
        name=options.wanted_name(args),
        nodes=args.nodes,
        pods_per_node=args.pods_per_node,
        ipip=args.ipip,
        proxy=args.proxy,
    )
    return load_topology(find(args.topology), overrides, cnis=cnis(), proxies=proxies())
