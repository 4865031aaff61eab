"""The command line from outside: exit codes, JSON, and what may happen at any moment."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import Cli, Running, owned

NAME = f"cli-{os.getpid()}"


@pytest.fixture
def removed(cli: Cli) -> Iterator[None]:
    """The testbeds of these tests are gone afterwards, even if the test failed."""
    yield
    for name in (NAME, f"{NAME}-b"):
        assert cli("down", name).returncode == 0


def mine(client: Any, name: str = NAME) -> list[dict[str, Any]]:
    """Containers and networks of one testbed."""
    return [each for each in owned(client) if each["Labels"].get("testbed.name") == name]


@pytest.mark.usefixtures("removed")
def test_up_status_check_down(cli: Cli, client: Any) -> None:
    """The whole way of a user; ``status`` has the keys that the design promises."""
    done = cli("up", "flannel", "--name", NAME, "--nodes", "2", "-o", "json")
    assert done.returncode == 0, done.stderr
    up = json.loads(done.stdout)
    assert up["check"]["ok"] is True
    assert set(up["seconds"]) == {"prepare", "network", "nodes", "services", "check"}
    assert "node1: ready: " in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    status = json.loads(cli("status", "--name", NAME, "-o", "json").stdout)
    assert {"name", "cni", "state", "nodes", "pods", "services"} <= set(status)
    assert set(status["nodes"][0]) == {"name", "container", "ip", "pod_cidr", "state"}
    assert {"namespace", "name", "node", "ip", "state"} <= set(status["pods"][0])
    assert (status["name"], status["cni"], status["state"]) == (NAME, "flannel", "ready")
    assert any(row["name"] == NAME for row in json.loads(cli("ls", "-o", "json").stdout))
    check = cli("check", "--name", NAME)
    assert check.returncode == 0
    assert "2/2 node pairs captured on the uplink" in check.stdout
    down = cli("down", NAME)
    assert (down.returncode, down.stdout) == (0, f"testbed {NAME} removed: 2 nodes\n")
    assert mine(client) == []


@pytest.mark.usefixtures("removed")
def test_a_second_up_converges(cli: Cli, client: Any) -> None:
    """The same containers, nothing to change."""
    assert cli("up", "flannel", "--name", NAME, "--nodes", "2").returncode == 0
    before = sorted(each["Id"] for each in mine(client))
    again = cli("up", "flannel", "--name", NAME, "--nodes", "2")
    assert again.returncode == 0
    assert again.stderr.count("ready: nothing to change") == 2
    assert sorted(each["Id"] for each in mine(client)) == before


@pytest.mark.usefixtures("removed")
def test_up_repairs_a_stopped_and_a_removed_node(cli: Cli, client: Any) -> None:
    """A second ``up`` starts what stopped and makes what is missing."""
    assert cli("up", "flannel", "--name", NAME, "--nodes", "3").returncode == 0
    client.api.stop(f"{NAME}-node1", timeout=5)
    client.api.remove_container(f"{NAME}-node2", force=True, v=True)
    status = json.loads(cli("status", "--name", NAME, "-o", "json").stdout)
    assert [node["state"] for node in status["nodes"]] == ["stopped", "missing", "ready"]
    assert status["state"] == "degraded"
    check = cli("check", "--name", NAME)
    assert check.returncode == 1
    assert "FAIL 1/3 nodes are ready" in check.stdout
    assert "FAIL 0/6 node pairs captured" in check.stdout
    gone = cli("exec", "--name", NAME, "node1", "--", "true")
    assert gone.returncode == 1
    assert "does not run (it is exited)" in gone.stderr
    assert "ready: " in cli("logs", "--name", NAME, "node1").stdout
    assert cli("up", "flannel", "--name", NAME, "--nodes", "3").returncode == 0


@pytest.mark.usefixtures("removed")
def test_two_testbeds_at_once(cli: Cli) -> None:
    """Different names share nothing, though their pods have the same addresses."""
    first = cli.start("up", "flannel", "--name", NAME, "--nodes", "2")
    second = cli.start("up", "flannel", "--name", f"{NAME}-b", "--nodes", "2")
    for process in (first, second):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert cli("check", "--name", NAME).returncode == 0
    ambiguous = cli("status")
    assert ambiguous.returncode == 2
    assert "say which one with --name" in ambiguous.stderr
    assert cli("down", f"{NAME}-b").returncode == 0
    assert cli("check", "--name", NAME).returncode == 0


@pytest.mark.usefixtures("removed")
def test_two_simultaneous_ups_of_one_name(cli: Cli, client: Any) -> None:
    """One waits for the other; both succeed and there is one testbed."""
    both = [cli.start("up", "flannel", "--name", NAME, "--nodes", "2") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert len(mine(client)) == 3


@pytest.mark.usefixtures("removed")
@pytest.mark.parametrize("delay", [0.15, 0.3, 0.45, 0.6, 0.8, 1.0])
def test_ctrl_c_at_any_point_leaves_what_down_removes(cli: Cli, client: Any, delay: float) -> None:
    """Exit code 130 (or a finished ``up``), no traceback, and ``down`` removes everything."""
    process = cli.start("up", "flannel", "--name", NAME)
    time.sleep(delay)  # the moment is what is tested
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if not err.startswith("Fatal Python error: init"):  # so early on a busy machine: not ours
        assert process.returncode in (130, 0), err
        assert "Traceback" not in err
    assert cli("down", NAME).returncode == 0
    assert mine(client) == []


def test_down_of_nothing_is_a_success(cli: Cli) -> None:
    """Also twice."""
    for _ in range(2):
        done = cli("down", f"{NAME}-never-was")
        assert (done.returncode, done.stderr) == (0, "")


def test_bad_input_creates_nothing(cli: Cli, client: Any, tmp_path: Path) -> None:
    """Every problem with its place, exit code 2."""
    path = tmp_path / "bad.yaml"
    path.write_text("x-testbed:\n  cni: flanel\n  cluster_cidr: 10.244.0.0/33\nservices: {a: {}}\n")
    done = cli("up", str(path), "--name", NAME)
    assert done.returncode == 2
    assert f"{path}:2:" in done.stderr
    assert f"{path}:3:" in done.stderr
    assert mine(client) == []


def test_a_foreign_container_is_not_touched(cli: Cli, client: Any, live: Running) -> None:
    """A container of a node's name that testbed did not make: an error, and it is still there."""
    image = client.api.inspect_container(live.container("node1"))["Config"]["Image"]
    made = client.api.create_container(image, name=f"{NAME}-node1", labels={})
    try:
        done = cli("up", "flannel", "--name", NAME, "--nodes", "1")
        assert done.returncode == 1
        assert "does not belong to testbed" in done.stderr
        assert client.api.inspect_container(made["Id"])["Id"] == made["Id"]
    finally:
        assert cli("down", NAME).returncode == 0
        client.api.remove_container(made["Id"], force=True)


def test_exec_and_logs(cli: Cli, live: Running) -> None:
    """Exit codes, standard output and error pass through; logs of node and pod."""
    node = cli("exec", "--name", live.name, "node1", "--", "sh", "-c", "echo out; exit 7")
    assert (node.returncode, node.stdout) == (7, "out\n")
    pod = cli("exec", "--name", live.name, "web:side", "--", "hostname")
    assert (pod.returncode, pod.stdout) == (0, "web\n")
    unknown = cli("exec", "--name", live.name, "nope", "--", "true")
    assert unknown.returncode == 2
    assert "nodes: node1, node2, node3" in unknown.stderr
    assert "ready: " in cli("logs", "--name", live.name, "node1").stdout
    cli("exec", "--name", live.name, "netexec-node1-1", "--", "curl", "-s", "localhost:8080/")
    assert "GET /" in cli("logs", "--name", live.name, "netexec-node1-1").stdout


def test_plan_is_what_the_node_got(cli: Cli, live: Running) -> None:
    """``testbed plan`` needs no engine, and prints what is then found on the node."""
    planned = cli("plan", "flannel", "--name", live.name, "--node", "node1").stdout
    routes = live.host("node1").file("/etc/testbed/native/05-route.ip").content_string
    assert routes in planned


def test_doctor(cli: Cli) -> None:
    """A verdict per feature, as JSON with stable keys."""
    done = cli("doctor", "-o", "json")
    assert done.returncode == 0, done.stderr
    verdicts = {each["feature"]: each for each in json.loads(done.stdout)["verdicts"]}
    assert verdicts["flannel vxlan"]["state"] == "ok"
