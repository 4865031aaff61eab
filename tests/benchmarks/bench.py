"""The numbers that testbed promises, measured: ``make bench``.

Whole commands are timed from outside, alternating within one run, and compared as ratios of
medians, since machines differ and are noisy. Nothing but this run's own containers and networks is
made or removed. Exit code 1 when a promise is not kept.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from operator import truediv
from pathlib import Path

from testbed import Testbed
from tests.benchmarks import decoding, services, throughput
from tests.benchmarks.measure import ROUNDS, Bare, Promise, run, testbed, timed

NODES = 3
NAME = f"bench-{os.getpid()}"
BARE = f"testbed-{NAME}-bare"
MIB = 2**20


def bring_up_and_down() -> tuple[list[Promise], dict[str, float]]:
    """``up`` against bare containers, ``down`` against docker's own removal, alternating."""
    bare = Bare(BARE, NODES)
    keys = ("network", "bare", "rm", "up", "down", "calico")
    times: dict[str, list[float]] = {key: [] for key in keys}
    phases: dict[str, list[float]] = {}
    for number in range(ROUNDS + 1):
        taken = {"network": timed(bare.network), "bare": timed(bare.start)}
        bare.remove()
        start = time.perf_counter()
        outcome = json.loads(run(testbed("up", "flannel", "--name", NAME, "-o", "json")))
        taken["up"] = time.perf_counter() - start
        taken["down"] = timed(lambda: run(testbed("down", NAME)))
        taken["calico"] = timed(lambda: run(testbed("up", "calico", "--name", NAME)))
        taken["rm"] = timed(remove_by_docker)
        if number == 0:
            continue  # the first round warms caches
        for key, value in taken.items():
            times[key].append(value)
        for phase, value in outcome["seconds"].items():
            phases.setdefault(phase, []).append(value)
    median = {key: statistics.median(values) for key, values in times.items()}
    promises = [
        Promise(
            "testbed up / 3 bare containers",
            statistics.median(map(truediv, times["up"], times["bare"])),
            2.5,
            "x",
            f"{median['up']:.3f} s / {median['bare']:.3f} s; making the network, which only the "
            f"first does, takes {median['network']:.3f} s",
        ),
        Promise(
            "testbed down / docker rm -f and network rm of the same",
            statistics.median(map(truediv, times["down"], times["rm"])),
            1.5,
            "x",
            f"{median['down']:.3f} s / {median['rm']:.3f} s",
        ),
        Promise(
            "testbed up calico, BGP converged / testbed up flannel",
            statistics.median(map(truediv, times["calico"], times["up"])),
            1.3,
            "x",
            f"{median['calico']:.3f} s / {median['up']:.3f} s",
        ),
    ]
    return promises, {phase: statistics.median(values) for phase, values in phases.items()}


def remove_by_docker() -> None:
    """What ``testbed down`` does, typed by hand."""
    run(["docker", "rm", "-f", *(f"{NAME}-node{index + 1}" for index in range(NODES))])
    run(["docker", "network", "rm", f"testbed-{NAME}"])


def answers_and_memory() -> list[Promise]:
    """``status``, ``--help``, and what a node and a pod cost, on a running testbed."""
    run(testbed("up", "flannel", "--name", NAME))
    try:
        status = [timed(lambda: run(testbed("status", "--name", NAME))) for _ in range(ROUNDS)]
        usage = [timed(lambda: run(testbed("--help"))) for _ in range(ROUNDS)]
        node, pod = memory(f"{NAME}-node1")
        words = ("trace", "netexec-node1-1", "netexec-node2-1", "--name", NAME)
        trace = [timed(lambda: run(testbed(*words))) for _ in range(ROUNDS)]
        ready = [until_ready(Testbed.attach(NAME)) for _ in range(ROUNDS)]
    finally:
        run(testbed("down", NAME))
    return [
        Promise("testbed status", statistics.median(status) * 1000, 300, "ms"),
        Promise("testbed --help", statistics.median(usage) * 1000, 150, "ms"),
        Promise("node, agent included, resident", node / MIB, 25, "MiB"),
        Promise("pod (pause and netexec), resident", pod / MIB, 1.5, "MiB"),
        Promise("testbed trace, to a pod of another node", statistics.median(trace), 1.0, "s"),
        Promise("capture ready on 20 interfaces", statistics.median(ready) * 1000, 250, "ms"),
    ]


def until_ready(live: Testbed) -> float:
    """Seconds until 20 interfaces of 3 nodes and their pods are captured."""
    own = [
        node[device]
        for node in live.nodes.values()
        for device in ("eth0", "flannel.1", "cni0", "lo")
    ]
    pods = list(live.pods.values())
    where = [*own, *(pod.eth0 for pod in pods), *(pod.veth for pod in pods[:2])]
    assert len(where) == 20
    start = time.perf_counter()
    with live.capture(*where):
        return time.perf_counter() - start


def memory(container: str) -> tuple[float, float]:
    """Resident bytes of the node's own processes, and the median of its pods'."""
    top = run(["docker", "top", container, "-eo", "pid"]).split()[1:]
    pods: dict[str, int] = {}
    for pid in top:
        rss = resident(int(pid))
        netns = Path(f"/proc/{pid}/ns/net").readlink().name
        pods[netns] = pods.get(netns, 0) + rss
    first = run(["docker", "inspect", "-f", "{{.State.Pid}}", container]).strip()
    own = pods.pop(Path(f"/proc/{first}/ns/net").readlink().name)
    return own, statistics.median(pods.values())


def resident(pid: int) -> int:
    """Resident set size in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def clean_up() -> None:
    """Remove what an interrupted or failed round left; only names of this process are used."""
    Bare(BARE, NODES).clean_up()
    run(testbed("down", NAME))


def main() -> int:
    """Measure, print, and say whether every promise is kept."""
    if shutil.which("docker") is None:
        raise SystemExit("the docker command is needed for the comparison")
    try:
        promises, phases = bring_up_and_down()
        promises += answers_and_memory()
        promises += decoding.promises()
        promises += throughput.promises()
        promises += services.promises()
    finally:
        clean_up()
    for promise in promises:
        print(promise)
    print("phases of up: " + ", ".join(f"{name} {value:.3f} s" for name, value in phases.items()))
    return 0 if all(promise.kept for promise in promises) else 1


if __name__ == "__main__":
    sys.exit(main())
