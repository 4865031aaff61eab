"""The Python API and the pytest plugin, as a user's tests use them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed import VXLAN, Testbed
from testbed.api.ping import MARK, NoReplyError
from testbed.api.place import CommandError
from testbed.errors import NodeError, UsageError
from testbed.node import labels
from testbed.packets import explanations
from tests.live.conftest import SLOWNESS, Running, owned

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = ("INPUT", "-p", "udp", "--dport", "8472", "-j", "DROP")


def test_assertions_read_like_what_they_prove(live: Running) -> None:
    """Pods of two nodes speak VXLAN, and those of one node do not use the uplink."""
    nodes, pods, capture = live.nodes, live.pods, live.capture
    node1, node2 = nodes["node1"], nodes["node2"]
    pod_a, pod_b, pod_c = pods["netexec-node2-1"], pods["web"], pods["netexec-node2-2"]
    with capture(node1.uplink, node2.uplink, node2["flannel.1"], pod_c.veth) as packets:
        pod_a.ping(pod_b)
        pod_a.ping(pod_c)
    between = packets.between(pod_a, pod_b)
    assert between.encapsulated_in(VXLAN(vni=1, port=8472), outer=(node2, node1))
    assert not between.encapsulated_in(VXLAN(vni=1, port=8472), outer=(node1, node2))
    assert not between.plain()
    assert len(between.on(node2["flannel.1"])) == 2
    assert pod_a.reaches(pod_b, tcp=80)
    assert not packets.between(pod_a, pod_c).on(node2.uplink)
    assert {packet.innermost.payload[16:20] for packet in between} == {MARK}


def test_reaches_tells_refused_from_silence(live: Running) -> None:
    """In the words of the sender's socket, for each protocol."""
    pod, there, node = (
        live.pods["netexec-node1-1"],
        live.pods["netexec-node2-1"],
        live.nodes["node2"],
    )
    assert pod.reaches(there, tcp=8080)
    assert pod.reaches(there, udp=8081)
    assert pod.reaches(there)
    assert pod.reaches(node)
    assert node.reaches(pod, tcp=8080)
    assert pod.reaches(str(there.ip), tcp=8080)
    refused = pod.reaches(there, tcp=81)
    assert not refused
    assert refused.said == "Connection refused (TCP reset)"
    closed = pod.reaches(there, udp=81)
    assert not closed
    assert "port unreachable" in closed.said


def test_a_blocked_path_is_explained(make: Callable[..., Running]) -> None:
    """No answer, by ``reaches`` and by ``ping``; a trace finds the rule."""
    made = make("flannel", nodes=2, pods_per_node=1)
    pod, there, node = *made.pods.values(), made.nodes["node2"]
    node.run("iptables", "-I", *BLOCK)
    found = pod.reaches(there, tcp=8080, timeout=0.3)
    assert not found
    assert found.said == "no answer within 0.3 s"
    assert "traced afterwards (rule): node2 dropped it" in explanations.last()
    with pytest.raises(NoReplyError, match="100% packet loss"):
        pod.ping(there, timeout=0.3)
    assert "traced afterwards (rule): node2 dropped it" in explanations.last()
    node.run("iptables", "-D", *BLOCK)
    assert pod.reaches(there, tcp=8080)


def test_a_pod_that_does_not_run_reaches_nothing_and_says_so(make: Callable[..., Running]) -> None:
    """It is an error, and no proof that something is unreachable."""
    made = make("flannel", nodes=2, pods_per_node=1)
    pod, there = made.pods.values()
    assert pod.ip
    made.client.api.stop(made.container("node1"), timeout=0)
    with pytest.raises(NodeError):
        pod.reaches(there)
    made.refresh()
    with pytest.raises(NodeError, match=r"node1 of testbed .* has no address: it does not run"):
        made.nodes["node1"].ip  # noqa: B018 - asking is what raises
    with pytest.raises(UsageError, match="node1"), made.capture("node1"):
        pass


def test_commands_and_testinfra_in_pods(live: Running) -> None:
    """In the container that is meant, with its output apart."""
    web = live.pods["web"]
    assert web.host.socket("tcp://0.0.0.0:80").is_listening
    assert web.host.interface("eth0").addresses[0] == str(web.ip)
    assert web.run("hostname").stdout == "web\n"
    assert "sleep" in web.container("side").run("cat", "/proc/1/cmdline").stdout
    assert live.nodes["node1"].host.interface(web.veth.device).exists
    with pytest.raises(CommandError, match=r"`ls /no` in default/web failed \(2\)"):
        web.run("ls", "/no")


def test_wrong_captures_are_told_before_they_begin(live: Running) -> None:
    """A device that is not there, a filter that is none."""
    node = live.nodes["node1"]
    with pytest.raises(UsageError, match="nonsense0"), live.capture(node["nonsense0"]):
        pass
    with pytest.raises(UsageError, match="syntax error"), live.capture(node, filter="udp prot 1"):
        pass


def test_attaching_to_a_testbed(live: Running) -> None:
    """It knows the same, checks it when asked, and leaves it running."""
    with Testbed.attach(live.name, client=live.client) as attached:
        assert attached.cluster.pods == live.cluster.pods
        assert attached.pods["web"].ip == live.pods["web"].ip
        assert attached.outcome.report.ok
    assert live.pods["web"].run("true")


def pytest_in(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Begin a pytest of its own in a folder."""
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    return subprocess.Popen(
        [*words, *options], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def left_by(client: Any, process: subprocess.Popen[str]) -> list[str]:
    """Testbeds that have this process's number in their names."""
    names = {str(each["Labels"][labels.NAME]) for each in owned(client)}
    return [name for name in names if str(process.pid) in name.split("-")]


def test_the_examples_of_the_documentation_work(client: Any, tmp_path: Path) -> None:
    """Run as a user would, with warnings as errors; nothing is left."""
    with pytest_in(DOCS, "-q", "-W", "error", f"--flight-dir={tmp_path}") as process:
        output, _ = process.communicate(timeout=170)
    assert process.returncode == 0, output
    assert " passed" in output
    assert not left_by(client, process)


def test_the_script_of_the_documentation_works() -> None:
    """It prints the packets."""
    done = subprocess.run(
        [sys.executable, str(DOCS / "script.py")], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "VXLAN VNI 1: 10.244.0.2 > 10.244.1.2: ICMP echo request" in done.stdout


def test_a_failing_test_is_explained_and_leaves_nothing(client: Any, tmp_path: Path) -> None:
    """As the documentation shows it."""
    options = ("failing.py", "-q", f"--flight-dir={tmp_path}")
    with pytest_in(DOCS, *options) as process:
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 1, output
    assert "traced afterwards (rule): node2 dropped it: rule 1 of INPUT" in output
    folder = tmp_path / "failing.py--test_web"
    assert (folder / "packets.pcapng").exists()
    moved = re.search(r"-j DROP: (\d+) → \d+ packets", output)
    assert moved, output
    saved = (folder / "node2" / "rules.txt").read_text()
    found = re.search(r"\[(\d+):\d+\] -A INPUT -p udp -m udp --dport 8472 -j DROP", saved)
    assert found, saved
    assert found[1] == moved[1], "saved before the explanation sent a packet of its own"
    assert not left_by(client, process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.2, 2.5], ids=["while it comes up", "while a test runs"])
def test_an_interrupted_pytest_leaves_nothing(
    client: Any, tmp_path: Path, number: int, seconds: float
) -> None:
    """However far it had got since its testbed was first seen."""
    code = "import time\ndef test_it(testbed):\n    time.sleep(60)\n"
    (tmp_path / "test_it.py").write_text(code)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestbed_topology = flannel\n")
    with pytest_in(tmp_path) as process:
        deadline = time.monotonic() + 30 * SLOWNESS
        while not left_by(client, process) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(seconds * SLOWNESS)
        assert left_by(client, process)
        os.kill(process.pid, number)
        output, _ = process.communicate(timeout=60 * SLOWNESS)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert not left_by(client, process)
