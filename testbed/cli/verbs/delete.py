"""``testbed delete``: remove pods, Deployments, Services and EndpointSlices."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "remove what Kubernetes manifests describe from a testbed that runs"
EXAMPLE = """\
testbed delete -f web.yaml
testbed delete -f web.yaml --ignore-not-found"""
INTERRUPTED = "The same command completes it."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which manifests, and which testbed."""
    options.manifests(parser)
    parser.add_argument(
        "--ignore-not-found", action="store_true", help="what is not there is no error"
    )
    options.name(parser)
    options.output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Exit code 0 when it is gone from every node."""
    from testbed import applying, existing
    from testbed.cli import render
    from testbed.node import engine

    documents = options.documents(args)
    client = engine.connect()
    name = existing.choose(client, options.wanted_name(args))
    with console.progress() as tell:
        done = applying.delete(client, name, documents, tell, missing_ok=args.ignore_not_found)
    render.change(console, done, args.output == "json")
    return 0
