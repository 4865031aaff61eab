"""A Service's chains as text: one tree for each stage, with counters, shares and plain words."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from testbed.verify.service import tree

if TYPE_CHECKING:
    from testbed.cli.console import Console
    from testbed.verify.service.tree import Line, Rule, View

__all__ = ["COLUMNS", "heading", "lines", "render", "row"]

_ASCII = str.maketrans({"├": "|", "└": "`", "─": "-", "│": "|", "→": "->"})
_HEAD = ("PACKETS", "BYTES", "SHARE", "RULE", "MEANING")
COLUMNS = (
    *("NAMESPACE", "SERVICE", "TYPE", "CLUSTER IP", "EXTERNAL IP", "PORTS", "ENDPOINTS", "POLICY"),
)
"""Of the list of Services: kubectl's, then how many endpoints are ready, and what is not usual."""


def row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """One Service in the list."""
    return (
        entry["namespace"],
        entry["name"],
        entry["type"],
        entry["cluster_ip"] or "None",
        ",".join(_outside(entry)) or "-",
        ",".join(map(_port, entry["ports"])) or "-",
        "{}/{}".format(*_endpoints(entry)),
        ",".join(_policies(entry)) or "-",
    )


def render(console: Console, view: View, entry: Mapping[str, Any]) -> None:
    """Print the chains; in ASCII where the terminal or file cannot hold more."""
    encoding = (sys.stdout.encoding or "ascii").lower()
    for line in (*heading(view, entry), *lines(view)):
        plain = line if encoding.startswith("utf") else line.translate(_ASCII)
        console.print(plain)


def heading(view: View, entry: Mapping[str, Any]) -> Iterator[str]:
    """What Service and what node it is, before the chains."""
    yield f"service {view.service} on node {view.node}, kube-proxy in mode {view.mode}"
    outside = "".join(f", {address}" for address in _outside(entry))
    ports = ", ".join(map(_port, entry["ports"]))
    yield f"  {entry['type']} {entry['cluster_ip'] or 'None'}{outside}; ports {ports or 'none'}"
    policies = ", ".join(_policies(entry))
    ready, there = _endpoints(entry)
    yield f"  {ready} of {there} endpoints ready{f'; {policies}' if policies else ''}"
    if view.empty:
        yield ""
        headless = entry["cluster_ip"] in (None, "", "None")
        why = ": it is headless, clients ask DNS for its pods" if headless else " (yet)"
        yield f"no rule on node {view.node} is about it{why}"


def _endpoints(entry: Mapping[str, Any]) -> tuple[int, int]:
    """How many addresses are ready, and how many there are; one may have several ports."""
    ready = {each["address"] for each in entry["endpoints"] if each["ready"]}
    return len(ready), len({each["address"] for each in entry["endpoints"]})


def _outside(entry: Mapping[str, Any]) -> list[str]:
    balancer = entry.get("load_balancer_ip")
    return [*([balancer] if balancer else []), *(entry.get("external_ips") or ())]


def _port(port: Mapping[str, Any]) -> str:
    node_port = f":{port['node_port']}" if port.get("node_port") else ""
    return f"{port['port']}{node_port}/{port['protocol']}"


def _policies(entry: Mapping[str, Any]) -> Iterator[str]:
    if entry.get("external_traffic_policy") == "Local":
        yield "external Local"
    if entry.get("internal_traffic_policy") == "Local":
        yield "internal Local"
    if entry.get("session_affinity_seconds"):
        yield f"affinity {entry['session_affinity_seconds']} s"


def lines(view: View) -> Iterator[str]:
    """The whole text, line by line."""
    for section in view.sections:
        yield ""
        yield section.title
        yield from _aligned([_HEAD, *(_cells(line) for line in tree.lines(view, section))])
    if view.note:
        yield ""
        yield view.note


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        padded = (
            cell.rjust(width) if column < 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(("", *padded)).rstrip()


def _cells(line: Line) -> tuple[str, ...]:
    rule = line.rule
    if rule is None:
        return ("", "", "", f"{line.chain.name} ({line.chain.key[0]})", line.chain.gloss)
    above = "".join("│  " if more else "   " for more in line.guides[:-1])
    branch = "├─ " if line.guides[-1] else "└─ "
    again = " (as above)" if line.again else ""
    share = "" if rule.share is None else str(rule.share)
    counts = ("-" if each is None else str(each) for each in (rule.packets, rule.bytes))
    return (*counts, share, above + branch + _said(rule) + again, rule.gloss)


def _said(rule: Rule) -> str:
    """``-d 10.96.0.41/32 → KUBE-SVC-…``."""
    return " → ".join(part for part in (rule.match, rule.action) if part) or "(any packet)"
