"""What the verbs print, on a terminal and elsewhere."""

from __future__ import annotations

import pytest

from testbed.cli import render
from testbed.cli.console import Console
from testbed.verify.report import Finding, Report

STATUS = {
    "name": "flannel",
    "cni": "flannel",
    "backend": "vxlan",
    "ipip": "",
    "state": "ready",
    "networks": [{"name": "default", "subnet": "172.18.0.0/16"}],
    "nodes": [
        {
            "name": "node1",
            "container": "flannel-node1",
            "ip": "172.18.0.2",
            "pod_cidr": "10.244.0.0/24",
            "state": "ready",
        }
    ],
    "routers": [],
    "clients": [],
    "pods": [
        {
            "namespace": "default",
            "name": "web",
            "node": "node1",
            "ip": "",
            "state": "Pending",
            "restarts": 0,
        }
    ],
    "services": [],
}


def test_status_is_a_plain_table(capsys: pytest.CaptureFixture[str]) -> None:
    """No escapes and no trailing blanks where stdout is no terminal."""
    render.status(Console(), STATUS)
    assert capsys.readouterr().out == (
        "testbed flannel: flannel vxlan, ready\n"
        "\n"
        "NODE    CONTAINER       ADDRESS      POD CIDR        STATE\n"
        "node1   flannel-node1   172.18.0.2   10.244.0.0/24   ready\n"
        "\n"
        "NAMESPACE   POD   NODE    ADDRESS   STATE     RESTARTS\n"
        "default     web   node1   -         Pending   0\n"
    )


def test_status_shows_driver_routers_and_networks(capsys: pytest.CaptureFixture[str]) -> None:
    """Only where there are any."""
    router = {
        "name": "tor",
        "container": "racks-tor",
        "ips": ["172.18.255.254", "172.19.255.254"],
        "state": "stopped",
    }
    client = {"name": "out", "container": "racks-out", "ip": "172.18.255.253", "state": "ready"}
    networks = [{"name": "rack1", "subnet": "172.18.0.0/16"}, {"name": "rack2", "subnet": ""}]
    more = {"cni": "calico", "backend": "ipip", "ipip": "ebpf", "state": "degraded", "pods": []}
    machines = {"routers": [router], "clients": [client]}
    render.status(Console(), {**STATUS, **more, **machines, "networks": networks})
    assert capsys.readouterr().out == (
        "testbed flannel: calico ipip, IPIP driver ebpf, degraded\n"
        "\n"
        "NODE    CONTAINER       ADDRESS      POD CIDR        STATE\n"
        "node1   flannel-node1   172.18.0.2   10.244.0.0/24   ready\n"
        "\n"
        "ROUTER   CONTAINER   ADDRESSES                       STATE\n"
        "tor      racks-tor   172.18.255.254,172.19.255.254   stopped\n"
        "\n"
        "CLIENT   CONTAINER   ADDRESS          STATE\n"
        "out      racks-out   172.18.255.253   ready\n"
        "\n"
        "NETWORK   SUBNET\n"
        "rack1     172.18.0.0/16\n"
        "rack2     -\n"
    )


def test_details_are_tables_of_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Daemons, sessions and counters; who did not answer is told on standard error."""
    session = {
        "name": "Mesh_172_18_0_3",
        "proto": "BGP",
        "table": "---",
        "state": "up",
        "since": "12:00:01.000",
        "info": "Established",
    }
    value = {
        "processes": {
            "node1": [{"name": "bird", "state": "Running", "pid": 42, "restarts": 0}],
            "node2": [{"name": "bird", "state": "Waiting", "pid": None, "restarts": 3}],
        },
        "bgp": {"node1": [session]},
        "ipip_counters": {"node1": {"encapsulated": 3, "decapsulated": 4}},
        "errors": ["node2: `birdc` failed (1): no socket"],
    }
    render.details(Console(), value)
    captured = capsys.readouterr()
    assert captured.out == (
        "\n"
        "NODE    PROCESS   STATE     PID   RESTARTS\n"
        "node1   bird      Running   42    0\n"
        "node2   bird      Waiting   -     3\n"
        "\n"
        "NODE    SESSION           PROTO   TABLE   STATE   SINCE          INFO\n"
        "node1   Mesh_172_18_0_3   BGP     ---     up      12:00:01.000   Established\n"
        "\n"
        "NODE    IPIP COUNTERS\n"
        "node1   encapsulated 3, decapsulated 4\n"
    )
    assert captured.err == "node2: `birdc` failed (1): no socket\n"


def test_details_of_a_testbed_without_any(capsys: pytest.CaptureFixture[str]) -> None:
    """No empty tables."""
    render.details(Console(), {"processes": {}, "bgp": {}, "ipip_counters": {}, "errors": []})
    assert capsys.readouterr().out == ""


def test_a_good_report_is_a_line_per_kind(capsys: pytest.CaptureFixture[str]) -> None:
    """With what was expected on the wire."""
    findings = (
        Finding("icmp", "a", "b", ok=True),
        Finding("icmp", "b", "a", ok=True),
        Finding("wire", "a", "b", ok=True),
    )
    render.report(Console(), Report(findings, "VXLAN VNI 1, UDP 8472"))
    assert capsys.readouterr().out == (
        "ok   2/2 pairs answer ping\n"
        "ok   1/1 node pairs captured on the uplink, encapsulation VXLAN VNI 1, UDP 8472\n"
    )


def test_failures_say_what_was_seen_instead(capsys: pytest.CaptureFixture[str]) -> None:
    """At most twenty, then how to see the rest."""
    findings = tuple(
        Finding("tcp", "a", f"b{number}", ok=False, detail="refused") for number in range(25)
    )
    render.report(Console(), Report(findings, "none"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "FAIL 0/25 TCP connections, pods seen by their own addresses"
    assert lines[1] == "     tcp: a -> b0: refused"
    assert lines[-1] == "     and 5 more; `testbed check -o json` has all of them"


def test_progress_is_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Node, step, message, on standard error."""
    with Console().progress() as tell:
        tell("node1", "boot", "the node boots")
        tell("", "check", "probing")
    captured = capsys.readouterr()
    assert captured.err == "node1: boot: the node boots\ncheck: probing\n"
    assert captured.out == ""


def test_markup_in_messages_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Square brackets of an error are not rich's markup."""
    Console().error("plugin [bold]x[/bold] failed")
    assert capsys.readouterr().err == "error: plugin [bold]x[/bold] failed\n"
