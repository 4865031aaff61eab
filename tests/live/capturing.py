"""Captures that tests begin and interrupt, and what they leave behind on nodes."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from testbed import existing
from testbed.node import inventory
from testbed.verify.capture import Source, sources
from testbed.verify.observed import Observed
from tests.live.conftest import SLOWNESS, Cli, Running

MARK = "7e57bed1"
PINGER, ANSWERER = "netexec-node1-1", "netexec-node2-1"
OURS = r"tcpdump .*-w -( |$)"
"""The flight recorder's writes to files."""


def ping(live: Running, *flags: str) -> None:
    """Marked pings between pods of two nodes, all answered."""
    words = ["ping", "-n", "-q", "-p", MARK, *flags, live.ip(ANSWERER)]
    assert " 0% packet loss" in live.host(PINGER).check_output(" ".join(words))


def running(live: Running) -> dict[str, str]:
    """Node → its processes of captures."""
    listings = inventory.containers(live.client, live.name)
    found = {node: live.host(node).run(f"pgrep -a -f '{OURS}'").stdout for node in listings}
    return {node: lines for node, lines in found.items() if lines}


def nothing_runs(live: Running) -> bool:
    """Whether no capture is left, soon."""
    deadline = time.monotonic() + 5 * SLOWNESS
    while left := running(live):
        if time.monotonic() >= deadline:
            raise AssertionError(f"left running: {left}")
        time.sleep(0.05)
    return True


@contextmanager
def begun(cli: Cli, live: Running, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A ``testbed capture`` that has said that it captures."""
    process = cli.start("capture", "--name", live.name, *words)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        assert said.startswith("capturing on "), said + process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Press Ctrl-C; exit code, output and messages."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20 * SLOWNESS)
    return process.returncode, out, err


def wanted(live: Running, *words: str) -> tuple[Source, ...]:
    """The interfaces that these words mean."""
    listings = inventory.containers(live.client, live.name)
    addresses = {node: inventory.address(listing) for node, listing in listings.items()}
    cluster = existing.cluster_of(live.client, live.name, listings)
    return sources(cluster, Observed.of(addresses, {}), words)
