"""``testbed service``: Services, and the chains that packets to one walk on a node."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.cli import options
from testbed.errors import TestbedError, UsageError

if TYPE_CHECKING:
    from testbed.cli.console import Console
    from testbed.verify.service.tree import View

HELP = "list Services, or show the chains that packets to one walk on a node"
EXAMPLE = """\
testbed service
testbed service web
testbed service kube-system/dns --node node2 -o json
testbed service web --svg chains.svg
testbed service web --dot chains.dot"""

_FILES = ("dot", "svg")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which Service, on which node, and what to write."""
    parser.add_argument(
        "service", nargs="?", metavar="[NAMESPACE/]NAME", help="a Service (default: list them all)"
    )
    parser.add_argument("--node", metavar="NODE", help="on which node (default: the first one)")
    parser.add_argument("--dot", metavar="FILE", help="write a graph for Graphviz; -: print it")
    parser.add_argument("--svg", metavar="FILE", help="draw the chains; -: print the drawing")
    options.name(parser)
    options.output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Exit code 0 as long as there is something to show."""
    _checked(args)
    from testbed import existing
    from testbed.node import engine

    client = engine.connect()
    name = existing.choose(client, options.wanted_name(args))
    services = existing.status(client, name)["services"]
    if args.service is None:
        _list(console, services, args.output)
        return 0
    entry = _chosen(services, args.service, name)
    cluster = existing.cluster_of(client, name)
    node = _node([each.name for each in cluster.nodes], args.node)
    from testbed.cli import chains
    from testbed.verify.service import reading, tree
    from testbed.verify.service.facts import facts

    if cluster.proxy not in reading.MODES:
        raise UsageError(
            f"testbed {name!r} has no kube-proxy (proxy: {cluster.proxy}): no chains are there"
        )
    view = reading.read(client, name, node, cluster.proxy, facts(entry))
    if "-" not in (args.dot, args.svg):
        if args.output == "json":
            console.json({**tree.to_json(view), "service": entry})
        else:
            chains.render(console, view, entry)
    _write(args, view, console)
    return 0


def _checked(args: argparse.Namespace) -> None:
    """Find what is wrong before the testbed is asked.

    Raises:
        UsageError: the message lists every problem.
    """
    problems = []
    for option in _FILES:
        path = getattr(args, option)
        if path is None:
            continue
        if args.service is None:
            problems.append(f"--{option}: it draws one Service; say which one")
        if path != "-" and (problem := options.unwritable(f"--{option}", path, ", or -")):
            problems.append(problem)
    if args.dot == args.svg == "-":
        problems.append("--dot - and --svg -: only one of them can be printed")
    if args.node is not None and args.service is None:
        problems.append("--node: all nodes have the same Services; say which Service is meant")
    if args.output == "json" and "-" in (args.dot, args.svg):
        problems.append("-o json: a drawing is printed instead; write it to a file")
    if problems:
        raise UsageError("\n".join(problems))


def _list(console: Console, services: Sequence[Mapping[str, Any]], output: str) -> None:
    from testbed.cli import chains

    if output == "json":
        console.json({"services": list(services)})
    elif services:
        console.table(chains.COLUMNS, [chains.row(each) for each in services])
    else:
        console.print("no Services. `testbed apply -f FILE` makes some.")


def _chosen(services: Sequence[Mapping[str, Any]], text: str, testbed: str) -> Mapping[str, Any]:
    """The entry that a name means.

    Raises:
        UsageError: there is none; the message lists those that there are.
    """
    key = text if "/" in text else f"default/{text}"
    known = {f"{each['namespace']}/{each['name']}": each for each in services}
    if key in known:
        return known[key]
    raise UsageError(
        f"testbed {testbed!r} has no Service {key!r}; there is {', '.join(known) or 'none'}."
    )


def _node(nodes: Sequence[str], wanted: str | None) -> str:
    if wanted is None:
        return nodes[0]
    if wanted in nodes:
        return wanted
    raise UsageError(f"--node {wanted}: there is no such node; there is {', '.join(nodes)}.")


def _write(args: argparse.Namespace, view: View, console: Console) -> None:
    """Write the files that were asked for.

    Raises:
        TestbedError: one could not be written.
    """
    from testbed.verify.service import drawing, svg

    for option, draw in (("dot", drawing.dot), ("svg", svg.svg)):
        path = getattr(args, option)
        if path == "-":
            console.raw(draw(view))
        elif path is not None:
            try:
                Path(path).write_text(draw(view), encoding="utf-8")
            except OSError as error:
                raise TestbedError(f"--{option} {path}: {error.strerror}") from error
