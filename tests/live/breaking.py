"""Ways to break a testbed on purpose, and to judge what traces say of it.

Each fault is made, traced and undone, and then the same packet must pass: the cause named is the
fault that was made, not one that was there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from testbed import tracing
from testbed.verify.trace.model import Trace
from tests.live.conftest import SLOWNESS, Running

HERE, NEAR, THERE = "netexec-node1-1", "netexec-node1-2", "netexec-node2-1"
ICMP: dict[str, Any] = {}
TCP: dict[str, Any] = {"protocol": "tcp", "port": 8080}

Steps = tuple[tuple[str, str], ...]
"""Commands, each with the node or pod where it is run."""


@dataclass(frozen=True)
class Fault:
    """How to make and undo it; what the diagnosis must say, and the words that prove it."""

    name: str
    steps: tuple[Steps, Steps]
    cause: str
    place: str
    words: str = ""
    target: str = THERE
    probe: dict[str, Any] = field(default_factory=dict)
    leg: str = "request"
    answered: bool = False
    source: str = HERE
    whole: dict[str, Any] | None = None
    """The probe that passes without the fault; ``None``: the same."""


def trace(live: Running, source: str, target: str, **probe: Any) -> Trace:
    """The trace alone."""
    return tracing.trace(live.client, live.name, source, target, **probe)[0]


def seen(trace: Trace) -> list[str]:
    """Where the packet was seen, there and back."""
    hops = (*trace.request.observed, *trace.reply.observed)
    return [f"{hop.event.place}/{hop.event.interface} {hop.event.direction}" for hop in hops]


class World:
    """A cluster's own words for what is to be broken."""

    def __init__(self, live: Running) -> None:
        self.live = live
        self.cni = live.cluster.cni
        self.overlay = {"flannel": "flannel.1", "calico": "tunl0"}.get(self.cni, "eth0")
        if live.cluster.backend.type == "host-gw":
            self.overlay = "eth0"
        self.bridged = self.cni == "flannel"
        self.here, self.near, self.there = live.ip(HERE), live.ip(NEAR), live.ip(THERE)
        self.remote = str(live.cluster.node("node2").pod_cidr)
        self.node1, self.node2, self.node3 = (
            live.host(node).interface("eth0").addresses[0] for node in ("node1", "node2", "node3")
        )
        self.veth, self.netns = self.port(THERE), str(self._pods[THERE]["netns"])

    @cached_property
    def _pods(self) -> dict[str, dict[str, Any]]:
        """What their nodes say of the pods."""
        nodes = [each.name for each in self.live.cluster.nodes]
        told = [json.loads(self.run(node, "testbed-agent status"))["pods"] for node in nodes]
        return {str(pod["name"]): pod for pods in told for pod in pods}

    def run(self, where: str, command: str) -> str:
        """What a command prints."""
        return str(self.live.host(where).check_output(command))

    def node_of(self, pod: str) -> str:
        """Where a pod runs."""
        return next(each.node for each in self.live.cluster.pods if each.name == pod)

    def port(self, pod: str) -> str:
        """The node's end of a pod's veth pair."""
        return str(self._pods[pod]["host_interface"])

    def inside(self, pod: str) -> str:
        """A pod's network namespace, as ``ip netns`` on its node calls it."""
        return str(self._pods[pod]["netns"]).rpartition("/")[2]


def both(where: str, make: str, undo: str) -> tuple[Steps, Steps]:
    """One command each, in the same place."""
    return ((where, make),), ((where, undo),)


def rule(where: str, words: str) -> tuple[Steps, Steps]:
    """A netfilter rule."""
    return both(where, f"iptables -I {words}", f"iptables -D {words}")


def nft(where: str, body: str, family: str = "inet") -> tuple[Steps, Steps]:
    """A table of one's own."""
    return both(
        where,
        f"echo 'table {family} broken {{ {body}; }}' | nft -f -",
        f"nft delete table {family} broken",
    )


def within(world: World, pod: str, steps: tuple[Steps, Steps]) -> tuple[Steps, Steps]:
    """Steps in a pod's network namespace, with its node's rights: pods have none to do so."""
    node, inside = world.node_of(pod), f"ip netns exec {world.inside(pod)} sh -ec"
    make, undo = (
        tuple((node, f'{inside} "{command}"') for _, command in commands) for commands in steps
    )
    return make, undo


def judged(live: Running, faults: Iterable[Fault]) -> None:
    """Make, trace and undo them one by one; all that were not named rightly are told at the end.

    One that cannot be undone is the last.
    """
    world, wrong = World(live), list[str]()
    for fault in faults:
        wrong += _judged(world, fault)
        if still := _still_broken(world.live, fault):
            wrong.append(still)
            break
    assert not wrong, "\n".join(wrong)


def _judged(world: World, fault: Fault) -> Iterator[str]:
    make, undo = fault.steps
    try:
        for where, command in make:
            world.run(where, command)
        found = trace(world.live, fault.source, fault.target, **fault.probe)
    finally:
        for where, command in undo:
            world.run(where, command)
    verdict = found.diagnosis
    said = (verdict.cause, verdict.place, verdict.leg) if verdict else None
    told = "\n".join((verdict.summary, *verdict.evidence, verdict.advice)) if verdict else ""
    right = said == (fault.cause, fault.place, fault.leg) and fault.words in told
    if found.ok or found.answered is not fault.answered or not right:
        wanted = f"{fault.cause} ({fault.leg}, at {fault.place}) {fault.words}"
        yield f"{fault.name}: {verdict}\n  wanted: {wanted}\n  seen: {seen(found)}"


def _still_broken(live: Running, fault: Fault) -> str:
    """The control: without the fault the same packet arrives; empty: so it is."""
    probe = fault.probe if fault.whole is None else fault.whole
    deadline = time.monotonic() + 15 * SLOWNESS
    while not (found := trace(live, fault.source, fault.target, **probe)).ok:
        if time.monotonic() > deadline:
            return f"after {fault.name}: {found.diagnosis}, {seen(found)}"
        time.sleep(0.1)
    return ""
