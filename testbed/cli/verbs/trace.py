"""``testbed trace``: one marked packet, followed through every interface that it crosses."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli import options
from testbed.errors import TestbedError, UsageError

if TYPE_CHECKING:
    from testbed.cli.console import Console
    from testbed.verify.trace.model import Trace

HELP = "send one packet and show every hop there and back; say why where it dies"
EXAMPLE = """\
testbed trace netexec-node1-1 netexec-node2-1
testbed trace node1 kube-system/web --proto tcp --port 80
testbed trace netexec-node1-1 netexec-node2-1 --size 1472 --df
testbed trace netexec-node1-1 svc/web
testbed trace client 172.18.255.200
testbed trace client node1 --proto tcp --port 30080
testbed trace netexec-node1-1 node2 --html walk.html --pcap walk.pcapng"""

_SIZE = 56
_LARGEST = 65535 - 20 - 8
"""An IPv4 packet's length, without its header and that of ICMP or UDP."""
_FILES = ("pcap", "svg", "html")


def arguments(parser: argparse.ArgumentParser) -> None:
    """From where to where, what to send, and what to write."""
    where = "a node, a router, a client or [NAMESPACE/]POD"
    parser.add_argument("source", metavar="SRC", help=f"who sends: {where}")
    parser.add_argument(
        "target",
        metavar="DST",
        help=f"who is to answer: {where}; svc/[NAMESPACE/]SERVICE, of which clients and routers "
        "ask the load balancer's address; or the address of any of them",
    )
    # Values are read by _wanted, which names all wrong ones at once.
    parser.add_argument(
        "--proto",
        metavar="icmp|tcp|udp",
        help="what to send (default: icmp; to a Service, what its port is)",
    )
    parser.add_argument(
        "--port",
        metavar="N",
        help="the target's port (default: those of netexec, which the default pods run: "
        "tcp 8080, udp 8081, where what begins with `echo ` is answered; a Service's first)",
    )
    parser.add_argument(
        "--size",
        metavar="N",
        help=f"bytes of payload, as ping -s counts them; icmp and udp only (default: {_SIZE})",
    )
    parser.add_argument(
        "--df", action="store_true", help="don't fragment: whatever is too large is an error"
    )
    parser.add_argument("--pcap", metavar="FILE", help="write all frames as pcapng")
    parser.add_argument("--svg", metavar="FILE", help="draw the path")
    parser.add_argument("--html", metavar="FILE", help="drawing, hops and diagnosis on one page")
    options.name(parser)
    options.output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Exit code 0 if the packet was answered, on the path that the topology demands."""
    protocol, port, size = _wanted(args)
    from testbed import existing, tracing
    from testbed.cli import walk
    from testbed.node import engine
    from testbed.verify.trace import serialize

    client = engine.connect()
    found, capture = tracing.trace(
        client,
        existing.choose(client, options.wanted_name(args)),
        args.source,
        args.target,
        protocol=protocol,
        port=port,
        size=size,
        dont_fragment=args.df,
    )
    if args.output == "json":
        console.json(serialize.to_json(found))
    else:
        walk.render(console, found)
    _write(args, found, capture)
    return 0 if found.ok else 1


def _wanted(args: argparse.Namespace) -> tuple[str | None, int | None, int]:
    """The protocol and the port, ``None`` where a Service is to say them, and the size.

    Raises:
        UsageError: something is wrong; the message lists every problem.
    """
    from testbed.verify.trace.destination import PORTS

    problems = list(_problems(args, PORTS))
    if problems:
        raise UsageError("\n".join(problems))
    open_ = _is_open(args.target)
    protocol = args.proto or (None if open_ else "icmp")
    default = None if open_ else PORTS[protocol or "icmp"]
    port = default if args.port is None else int(args.port)
    size = {"tcp": 0}.get(args.proto, _SIZE) if args.size is None else int(args.size)
    return protocol, port, size


def _problems(args: argparse.Namespace, protocols: Collection[str]) -> Iterator[str]:
    proto = args.proto or ("" if _is_open(args.target) else "icmp")
    if args.proto is not None and args.proto not in protocols:
        yield f"--proto {args.proto}: it is icmp, tcp or udp"
    if args.port is not None and not options.within(args.port, 1, 65535):
        yield f"--port {args.port}: it is a number from 1 to 65535"
    if args.port is not None and proto == "icmp":
        yield "--port: ICMP has no ports; it is for tcp and udp"
    if args.size is not None and not options.within(args.size, 0, _LARGEST):
        yield f"--size {args.size}: it is a number from 0 to {_LARGEST}"
    if args.size is not None and args.proto == "tcp":
        yield "--size: the first packet of a TCP connection is empty; it is for icmp and udp"
    for option in _FILES:
        path = getattr(args, option)
        if path is not None and (problem := options.unwritable(f"--{option}", path)):
            yield problem


def _is_open(target: str) -> bool:
    """Whether it may be a Service's name or address, whose port then says what is to be sent."""
    from testbed.verify.trace.destination import address

    return bool(target.startswith(("svc/", "service/", "services/")) or address(target))


def _write(args: argparse.Namespace, found: Trace, capture: bytes) -> None:
    """Write the files that were asked for.

    Raises:
        TestbedError: one could not be written.
    """
    from testbed.verify.trace import drawing, page

    made = {
        "pcap": lambda: capture,
        "svg": lambda: drawing.svg(found).encode(),
        "html": lambda: page.html(found).encode(),
    }
    for option in _FILES:
        path = getattr(args, option)
        if path is not None:
            try:
                Path(path).write_bytes(made[option]())
            except OSError as error:
                raise TestbedError(f"--{option} {path}: {error.strerror}") from error
