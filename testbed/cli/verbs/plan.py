"""``testbed plan``: what each node would hold, in native syntax, without Docker."""

from __future__ import annotations

import argparse
import json
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "print every node's files in native syntax, without Docker"
EXAMPLE = """\
testbed plan flannel
testbed plan compose/flannel.yaml --node node1
testbed plan flannel -o json"""

_UNDERLAY = IPv4Network("172.18.0.0/16")
"""What Docker gives the first network, where the topology does not say."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to plan: the same overrides as ``up``."""
    options.topology(parser)
    parser.add_argument("--node", metavar="NODE", help="only this node")
    options.output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Print the specs as JSON, or as the files that a reader would look for on the node."""
    from testbed.cli.verbs.up import load
    from testbed.dataplane.features import Features
    from testbed.dataplane.underlay import Underlay
    from testbed.errors import UsageError
    from testbed.plan import plan

    cluster = load(args)
    known = [node.name for node in cluster.nodes]
    if args.node and args.node not in known:
        raise UsageError(f"there is no node {args.node!r}; there is {', '.join(known)}")
    specs = [
        spec
        for spec in plan(cluster, Underlay(cluster.underlay or _UNDERLAY), Features.full())
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
    return 0
