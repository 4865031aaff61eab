"""What the verbs show, as tables: from data to calls of the console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.cli.console import Console
    from testbed.verify.report import Report

__all__ = ["diagnosis", "report", "seconds", "status"]

_KINDS = {
    "node": "nodes are ready",
    "pod": "pods run",
    "icmp": "pairs answer ping",
    "tcp": "TCP connections, pods seen by their own addresses",
    "wire": "node pairs captured on the uplink",
}
_PRIVILEGES = {
    "privileged": "privileged",
    "capabilities": "with a capability set (the engine starts no privileged container)",
}
_MOST_FAILURES = 20


def status(console: Console, value: Mapping[str, Any]) -> None:
    """Nodes, then pods."""
    console.print(f"testbed {value['name']}: {value['cni']} {value['backend']}, {value['state']}")
    console.print()
    console.table(
        ("NODE", "CONTAINER", "ADDRESS", "POD CIDR", "STATE"),
        [
            (each["name"], each["container"], each["ip"], each["pod_cidr"], each["state"])
            for each in value["nodes"]
        ],
    )
    if value["pods"]:
        console.print()
        console.table(
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
