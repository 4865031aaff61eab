"""Arguments that several verbs share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.errors import UsageError

if TYPE_CHECKING:
    from testbed.topology.load import Objects

__all__ = [
    "count",
    "documents",
    "manifests",
    "name",
    "output",
    "topology",
    "unwritable",
    "wanted_name",
    "within",
]


def name(parser: argparse.ArgumentParser) -> None:
    """``--name N``: which testbed."""
    parser.add_argument(
        "--name",
        metavar="N",
        help="which testbed (default: $TESTBED_NAME, else the only one there is)",
    )


def topology(parser: argparse.ArgumentParser) -> None:
    """What to plan or bring up, and what to override in it."""
    parser.add_argument("topology", metavar="NAME|FILE", help="a shipped topology or a file")
    parser.add_argument("--name", metavar="N", help="the testbed's name (default: the topology's)")
    parser.add_argument("--nodes", type=int, metavar="K", help="how many nodes")
    parser.add_argument(
        "--pods-per-node", type=int, metavar="P", help="how many default pods on each node"
    )
    parser.add_argument(
        "--proxy",
        metavar="iptables|nftables|ipvs|none",
        help="kube-proxy's mode (default: the topology's, else iptables)",
    )
    parser.add_argument(
        "--ipip",
        metavar="kernel|ebpf|auto",
        help="what makes IP-in-IP tunnels: the kernel's module or testbed's own device "
        "(default: the topology's, else the module where there is one)",
    )


def manifests(parser: argparse.ArgumentParser) -> None:
    """``-f FILE``, as often as wanted."""
    parser.add_argument(
        "-f",
        "--filename",
        metavar="FILE",
        action="append",
        required=True,
        help="a file of Kubernetes manifests; - is standard input; may be given several times",
    )


def documents(args: argparse.Namespace) -> Objects:
    """The Kubernetes objects of all files that ``-f`` named.

    Raises:
        TopologyError: a file cannot be read, or is not YAML.
    """
    from testbed.topology.load import objects

    return objects(args.filename)


def output(parser: argparse.ArgumentParser) -> None:
    """``-o json``: the same facts with stable keys."""
    parser.add_argument(
        "-o",
        "--output",
        choices=("text", "json"),
        default="text",
        help="json has stable keys (default: text)",
    )


def count(text: str) -> int:
    """A number from 0, for arguments that count something.

    Raises:
        ValueError: it is none; argparse says so.
    """
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def wanted_name(args: argparse.Namespace) -> str | None:
    """The testbed's name from the arguments, else from the environment.

    Raises:
        UsageError: the name is given, but empty, as when a script's variable is not set.
    """
    if args.name == "":
        raise UsageError("--name is empty: say which testbed is meant")
    return args.name or os.environ.get("TESTBED_NAME") or None


def within(text: str, least: int, most: int) -> bool:
    """Whether it is a whole number, in digits and nothing else, between these two."""
    return text.isascii() and text.isdigit() and len(text) < 9 and least <= int(text) <= most


def unwritable(option: str, path: str, besides: str = "") -> str:
    """Why the file that an option names cannot be written, as far as is seen; empty: it can.

    ``besides`` says what it may be instead of a file.
    """
    if not path or Path(path).is_dir():
        return f"{option} {path or 'is empty'}: it is a file to write{besides}"
    parent = Path(path).parent
    return "" if parent.is_dir() else f"{option} {path}: there is no directory {parent}"
