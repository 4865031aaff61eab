"""``testbed apply``: create or change pods, Deployments, Services and EndpointSlices."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from testbed.cli import options

if TYPE_CHECKING:
    from testbed.cli.console import Console

HELP = "create or change what Kubernetes manifests describe, in a testbed that runs"
EXAMPLE = """\
testbed apply -f web.yaml
testbed apply -f pods.yaml -f service.yaml --name flannel
sed s/replicas:.3/replicas:.5/ web.yaml | testbed apply -f -"""
INTERRUPTED = "The same command completes it."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which manifests, and which testbed."""
    options.manifests(parser)
    options.name(parser)
    options.output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Exit code 0 when every node holds what the manifests say."""
    from testbed import applying, existing
    from testbed.cli import render
    from testbed.node import engine

    documents = options.documents(args)
    client = engine.connect()
    name = existing.choose(client, options.wanted_name(args))
    with console.progress() as tell:
        done = applying.apply(client, name, documents, tell)
    render.change(console, done, args.output == "json")
    return 0
