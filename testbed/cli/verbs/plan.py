"""``testbed plan``: what each node would hold, in native syntax, without Docker."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "print every node's files in native syntax, without Docker"
EXAMPLE = """\
testbed plan flannel
testbed plan compose/flannel.yaml --node node1
testbed plan flannel -o json"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to plan: the same overrides as ``up``."""
    options.topology(parser)
    parser.add_argument("--node", metavar="NODE", help="only this node")
    options.output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Print the specs as JSON, or as the files that a reader would look for on the node."""
    from testbed.cli.verbs.up import load
    from testbed.dataplane.features import Features
    from testbed.errors import UsageError
    from testbed.plan import assumed_underlay, plan

    cluster = load(args)
    known = cluster.machines
    if args.node and args.node not in known:
        raise UsageError(f"there is no node {args.node!r}; there is {', '.join(known)}")
    specs = [
        spec
        for spec in plan(cluster, assumed_underlay(cluster), Features.full())
        if args.node in (None, spec.node)
    ]
    if args.output == "json":
        console.json([json.loads(spec.to_json()) for spec in specs])
        return 0
    for spec in specs:
        for file in spec.files:
            console.raw(f"### {spec.node}:{file.path}\n{file.content}\n")
        settings = "".join(f"{key} = {value}\n" for key, value in spec.sysctls.items())
        console.raw(f"### {spec.node}: sysctl\n{settings}\n")
        for tunnel in spec.tunnels:
            console.raw(f"### {spec.node}: eBPF tunnel {tunnel.name} over {tunnel.uplink}\n\n")
        for process in spec.processes:
            console.raw(f"### {spec.node}: process\n{' '.join(process.argv)}\n\n")
    return 0
