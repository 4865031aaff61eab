"""What Services cost, per mode of kube-proxy: to be told to nodes, and to connect through.

``python -m tests.benchmarks.services [--plot FILE]`` brings up three nodes for each mode that the
kernel has. Syncing is measured from a manifest to rules on all nodes: 1,000 Services with 10
endpoints each at once, and then one endpoint more. Connecting is measured inside a pod, to a pod of
the same node: through the Service that kube-proxy's rules have last, and to the pod's own address,
which rules are asked about, too. Both are compared with connecting to a pod of a testbed without
kube-proxy, in turns; the medians' ratios are the curves that everybody knows.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from testbed.api.testbed import Testbed
from testbed.node import engine, features, image
from testbed.node.progress import silent
from testbed.plan import proxies, proxy
from tests.benchmarks.measure import Promise, timed
from tests.benchmarks.plot import curves

__all__ = ["promises"]

SERVICES, ENDPOINTS = 1000, 10
_COUNTS = (1, 100, 1000)
_FULL_SECONDS, _CHANGE_SECONDS = 6.0, 0.5
_CHANGES = 5
_CONNECT = """\
import json, socket, sys, time
def connect(address, port):
    begin = time.perf_counter()
    with socket.socket() as one:
        one.connect((address, port))
        return time.perf_counter() - begin
ways = [(each.split(":")[0], int(each.split(":")[1])) for each in sys.argv[2:]]
print(json.dumps([[connect(*way) for way in ways] for turn in range(int(sys.argv[1]))]))
"""
_CONNECTIONS, _ROUNDS = 200, 8


def objects(count: int, extra: int = 0) -> list[dict[str, Any]]:
    """So many Services with ten endpoints each, of which nobody connects to any; one has more."""
    found: list[dict[str, Any]] = []
    for number in range(count):
        name = f"many-{number:04}"
        endpoints = ENDPOINTS + (extra if number == count // 2 else 0)
        found += [_service(name), _slice(name, number, endpoints)]
    return found


def _service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    metadata = {"name": name}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"ports": ports, **spec},
    }


def _slice(name: str, number: int, count: int) -> dict[str, Any]:
    """Addresses inside the pods' network, but of no node."""
    first = 10 * 256 * 256 + number * 16
    addresses = [
        f"10.244.{(first + each) // 256 % 128 + 100}.{(first + each) % 256}"
        for each in range(count)
    ]
    endpoints = [
        {"addresses": [address], "nodeName": f"node{1 + position % 3}"}
        for position, address in enumerate(addresses)
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": endpoints,
    }


def promises(plot: Path | None = None) -> list[Promise]:
    """Seconds of syncing and ratios of connecting for every mode that this kernel has."""
    client = engine.connect()
    able = features.detect(client, image.ensure(client, silent))
    found: list[Promise] = []
    ratios: dict[str, list[float]] = {}
    with Testbed.up("flannel", name=f"bench-none-{os.getpid()}", nodes=1, proxy="none") as plain:
        for mode in proxies():
            if mode == "none" or proxy(mode).REQUIRES - able.available:
                continue
            with Testbed.up("flannel", name=f"bench-{mode}-{os.getpid()}", proxy=mode) as testbed:
                found += list(_syncing(testbed, mode))
                through, direct = zip(*_connecting(testbed, plain), strict=True)
                ratios |= {f"{mode}: Service": list(through), f"{mode}: pod": list(direct)}
    for name, values in ratios.items():
        words = ", ".join(f"{value:.2f} at {n:,}" for n, value in zip(_COUNTS, values, strict=True))
        print(f"     connecting / without kube-proxy, {name}: {words}")
    if plot:
        plot.write_text(
            curves(
                "Connecting to a pod, by its Service or directly",
                ("Services in the cluster", "time to connect / without kube-proxy"),
                _COUNTS,
                ratios,
            )
        )
    return found


def _syncing(testbed: Testbed, mode: str) -> Iterator[Promise]:
    everything = objects(SERVICES)
    full = timed(lambda: testbed.apply(*everything))
    changes = [_changed(testbed, extra) for extra in range(1, _CHANGES + 1)]
    testbed.delete(*everything)
    what = f"{SERVICES:,} Services x {ENDPOINTS} endpoints to 3 nodes, {mode}"
    yield Promise(what, full, _FULL_SECONDS, "s")
    one = f"one endpoint of them changed, {mode}"
    yield Promise(
        one, statistics.median(changes), _CHANGE_SECONDS, "s", f"worst {max(changes):.2f}"
    )


def _changed(testbed: Testbed, extra: int) -> float:
    """Seconds until all nodes know that a Service in the middle has so many endpoints more."""
    middle = objects(SERVICES, extra)[SERVICES : SERVICES + 2]
    return timed(lambda: testbed.apply(*middle))


def _connecting(testbed: Testbed, plain: Testbed) -> Iterator[tuple[float, float]]:
    """Ratios of medians, through the Service and directly, with so many Services."""
    measured = _service("zz-measured", selector={"measured": "yes"})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "measured", "labels": {"measured": "yes"}},
        "spec": {"nodeName": "node1", "containers": [{"name": "netexec", "image": "netexec"}]},
    }
    testbed.apply(pod, measured)
    address = testbed.services["zz-measured"].cluster_ip
    ways = [f"{address}:80", f"{testbed.pods['measured'].ip}:8080"]
    reference = [f"{plain.pods['netexec-node1-2'].ip}:8080"]
    for count in _COUNTS:
        if count > 1:
            testbed.apply(*objects(count - 1))
        ours: list[list[float]] = []
        theirs: list[float] = []
        for _ in range(_ROUNDS):
            ours += _seconds(testbed, ways)
            theirs += [row[0] for row in _seconds(plain, reference)]
        base = statistics.median(theirs)
        through, direct = (statistics.median(each) / base for each in zip(*ours, strict=True))
        yield through, direct
    testbed.delete(*objects(_COUNTS[-1] - 1), pod, measured)


def _seconds(testbed: Testbed, ways: Sequence[str]) -> list[list[float]]:
    """How long connections took from the first pod of the first node, in turns."""
    words = ["python3", "-c", _CONNECT, str(_CONNECTIONS), *ways]
    said = testbed.pods["netexec-node1-1"].run(*words, seconds=120).stdout
    return list(json.loads(said))


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    plot = Path(argv[1]) if argv[:1] == ["--plot"] else None
    found = promises(plot)
    for promise in found:
        print(promise)
    return 0 if all(promise.kept for promise in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
