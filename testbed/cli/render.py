"""What the verbs show, as tables: from data to calls of the console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from testbed.cli import chains

if TYPE_CHECKING:
    from testbed.applying import Change
    from testbed.cli.console import Console
    from testbed.verify.report import Report

__all__ = ["change", "details", "diagnosis", "report", "seconds", "status"]

_KINDS = {
    "node": "nodes are ready",
    "pod": "pods run",
    "icmp": "pairs answer ping",
    "tcp": "TCP connections, pods seen by their own addresses",
    "bgp": "BGP sessions are established",
    "wire": "node pairs captured on the uplink",
}
_PRIVILEGES = {
    "privileged": "privileged",
    "capabilities": "with a capability set (the engine starts no privileged container)",
}
_MOST_FAILURES = 20


def status(console: Console, value: Mapping[str, Any]) -> None:
    """Networks and routers where there are several, nodes, pods."""
    driver = f", IPIP driver {value['ipip']}" if value["ipip"] else ""
    console.print(
        f"testbed {value['name']}: {value['cni']} {value['backend']}{driver}, {value['state']}"
    )
    _section(
        console,
        ("NODE", "CONTAINER", "ADDRESS", "POD CIDR", "STATE"),
        [
            (each["name"], each["container"], each["ip"], each["pod_cidr"], each["state"])
            for each in value["nodes"]
        ],
    )
    _section(
        console,
        ("ROUTER", "CONTAINER", "ADDRESSES", "STATE"),
        [
            (each["name"], each["container"], ",".join(each["ips"]), each["state"])
            for each in value["routers"]
        ],
    )
    _section(
        console,
        ("CLIENT", "CONTAINER", "ADDRESS", "STATE"),
        [(each["name"], each["container"], each["ip"], each["state"]) for each in value["clients"]],
    )
    if len(value["networks"]) > 1:
        networks = [(each["name"], each["subnet"] or "-") for each in value["networks"]]
        _section(console, ("NETWORK", "SUBNET"), networks)
    _section(
        console,
        ("NAMESPACE", "POD", "NODE", "ADDRESS", "STATE", "RESTARTS"),
        [
            (
                each["namespace"],
                each["name"],
                each["node"],
                each["ip"] or "-",
                each["state"],
                each["restarts"],
            )
            for each in value["pods"]
        ],
    )
    _section(console, chains.COLUMNS, [chains.row(each) for each in value["services"]])


def change(console: Console, value: Change, as_json: bool) -> None:
    """What a change came to, in kubectl's words."""
    words = {
        "created": value.created,
        "configured": value.configured,
        "deleted": value.deleted,
    }
    if as_json:
        console.json({word: list(names) for word, names in words.items()})
        return
    for word, names in words.items():
        for name in names:
            console.print(f"{name} {word}")
    if value.is_empty:
        console.note("nothing to change")


def details(console: Console, value: Mapping[str, Any]) -> None:
    """What ``status -v`` adds: daemons, BGP sessions, counters, and who did not answer."""
    _section(
        console,
        ("NODE", "PROCESS", "STATE", "PID", "RESTARTS"),
        [
            (node, each["name"], each["state"], each["pid"] or "-", each["restarts"])
            for node, processes in value["processes"].items()
            for each in processes
        ],
    )
    _section(
        console,
        ("NODE", "SESSION", "PROTO", "TABLE", "STATE", "SINCE", "INFO"),
        [(node, *each.values()) for node, rows in value["bgp"].items() for each in rows],
    )
    _section(
        console,
        ("NODE", "IPIP COUNTERS"),
        [
            (node, ", ".join(f"{name} {count}" for name, count in counters.items()))
            for node, counters in value["ipip_counters"].items()
        ],
    )
    for problem in value["errors"]:
        console.note(problem)


def _section(console: Console, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table after an empty line; nothing at all where there are no rows."""
    if rows:
        console.print()
        console.table(columns, rows)


def report(console: Console, value: Report) -> None:
    """One line per kind of check; every failure with what was seen instead."""
    for kind, (passed, total) in value.counts().items():
        if not total:
            continue
        words = _KINDS[kind] + (f", encapsulation {value.encapsulation}" if kind == "wire" else "")
        console.print(f"{'ok' if passed == total else 'FAIL':<5}{passed}/{total} {words}")
    for finding in value.failures[:_MOST_FAILURES]:
        console.print(
            f"     {finding.kind}: {finding.source} -> {finding.target}: {finding.detail}"
        )
    rest = len(value.failures) - _MOST_FAILURES
    if rest > 0:
        console.print(f"     and {rest} more; `testbed check -o json` has all of them")
    if value.unproven:
        pairs = ", ".join(value.unproven[:_MOST_FAILURES])
        console.print(f"     not captured, for want of a pod on both nodes: {pairs}")


def seconds(console: Console, value: Mapping[str, float]) -> None:
    """How long each phase took."""
    phases = ", ".join(f"{name} {spent:.2f} s" for name, spent in value.items())
    console.note(f"done in {sum(value.values()):.2f} s ({phases})")


def diagnosis(console: Console, value: Mapping[str, Any]) -> None:
    """Facts first, then a verdict per feature with what to do about those that do not work."""
    console.table(("", ""), [row for row in _facts(value) if row[1]])
    if value["problem"]:
        console.error(value["problem"])
        return
    console.print()
    console.table(
        ("FEATURE", "STATE", ""),
        [(each["feature"], each["state"], each["reason"]) for each in value["verdicts"]],
    )
    remedies = dict.fromkeys(each["remedy"] for each in value["verdicts"] if each["remedy"])
    if remedies:
        console.print()
    for remedy in remedies:
        console.print(remedy)


def _facts(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    engine, image, kernel = value["engine"], value["image"], value["kernel"]
    if engine:
        yield "engine", f"Docker {engine['version']}, API {engine['api_version']}"
        yield "", f"at {engine['endpoint']}, {engine['operating_system']}"
        yield (
            "",
            f"cgroup version {engine['cgroup_version']} ({engine['cgroup_driver']}), "
            f"storage {engine['storage_driver']}, runtime {engine['runtime']}, "
            f"{engine['architecture']}",
        )
    yield "nodes run", _PRIVILEGES.get(value["privileges"] or "", "")
    if image:
        size = f"{image['size'] / 1e6:.0f} MB" if image["present"] else "not built yet"
        yield "node image", f"{image['reference']} ({size})"
    yield "kernel", value["kernel_release"] or ""
    if kernel:
        yield "  has", " ".join(name for name, there in kernel.items() if there)
        yield "  lacks", " ".join(name for name, there in kernel.items() if not there)
    yield (
        "iptables",
        ", ".join(f"{place} {kind}" for place, kind in value["iptables"].items() if kind),
    )
    yield (
        "tools",
        ", ".join(
            f"{each['name']} {each['version'] or 'missing'}".strip() for each in value["tools"]
        ),
    )
