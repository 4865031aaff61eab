"""BIRD on the nodes: sessions, graceful restart, dead peers, and how long all of it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.calico import eventually, lines, sessions, uplink
from tests.live.conftest import SLOWNESS, Lasting, Running
from tests.live.wire import ping

RESTART_TIME = 5
"""Seconds for which the others keep a dead BIRD's routes, in the topology of this file."""
POD, REMOTE = "netexec-node1-1", "netexec-node2-1"
TOPOLOGY = Path(__file__).parent / "topologies" / "calico-restart.yaml"


@pytest.fixture(scope="module")
def calico(lasting: Lasting) -> Iterator[Running]:
    """Two nodes whose graceful restart is over after 5 s."""
    with lasting("calico-restart", name="bgp") as found:
        yield found


def bird_pid(live: Running, node: str) -> str:
    """The process that the agent supervises."""
    return str(live.host(node).check_output("pidof bird"))


def learned(live: Running, node: str = "node1", peer: str = "node2") -> bool:
    """Whether a node has the route to its peer's block from BIRD."""
    cidr = live.cluster.node(peer).pod_cidr
    return bool(live.host(node).check_output(f"ip route show {cidr} proto bird").strip())


def established(live: Running) -> bool:
    """Whether both ends of the session say so."""
    return all(set(sessions(live, node).values()) == {"Established"} for node in ("node1", "node2"))


def seconds_until(condition: Callable[[], Any], seconds: float = 30) -> float:
    """How long it takes until the condition holds."""
    began = time.monotonic()
    eventually(condition, seconds)
    return time.monotonic() - began


@pytest.fixture(autouse=True)
def whole(calico: Running) -> None:
    """Every test begins with BIRD running everywhere and the mesh established."""
    for node in ("node1", "node2"):
        calico.host(node).check_output("testbed-agent process start bird")
    eventually(lambda: established(calico) and learned(calico), 60)


def test_sessions_have_calico_s_names(calico: Running) -> None:
    """One protocol a peer, named by its address; port 179."""
    for node, peer in (("node1", "node2"), ("node2", "node1")):
        name = f"Mesh_{uplink(calico, peer).ip}".replace(".", "_")
        assert sessions(calico, node) == {name: "Established"}
        assert ":179" in calico.host(node).check_output("ss -Htln sport = :179")


def test_the_lower_address_waits(calico: Running) -> None:
    """Section 6: passive towards peers whose address is the greater string, so one session."""
    ours, theirs = (str(uplink(calico, node).ip) for node in ("node1", "node2"))
    low, high = ("node1", "node2") if ours < theirs else ("node2", "node1")
    config = "/etc/calico/confd/config/bird.cfg"
    assert "passive on" in calico.host(low).file(config).content_string
    assert "passive on" not in calico.host(high).file(config).content_string


def test_only_aggregates_are_announced(calico: Running) -> None:
    """The other side's table holds the block and no pod's /32."""
    shown = calico.host("node1").check_output(
        "birdc -s /var/run/calico/bird.ctl show route protocol "
        + next(iter(sessions(calico, "node1")))
    )
    prefixes = [line.split()[0] for line in lines(shown) if "/" in line.split()[0]]
    assert prefixes == [str(cidr) for cidr in calico.cluster.node("node2").pod_cidrs]


def test_a_crash_loses_no_route(calico: Running, record_property: Any) -> None:
    """Killed, BIRD is back after a second; graceful restart keeps every route meanwhile."""
    pid = bird_pid(calico, "node2")
    host = calico.host("node1")
    log = "/tmp/route-monitor"
    host.check_output(f"(ip monitor route >{log} 2>&1 & echo $! >{log}.pid); sleep 0.1")
    try:
        calico.host("node2").check_output(f"kill -9 {pid}")
        assert learned(calico)
        assert learned(calico, "node2", "node1"), "its own kernel routes persist"
        ping(calico, POD, calico.ip(REMOTE))
        back = seconds_until(
            lambda: (
                calico.host("node2").run("pidof bird").stdout.strip() not in ("", pid)
                and established(calico)
            )
        )
        record_property("seconds until established again", round(back, 2))
        ping(calico, POD, calico.ip(REMOTE))
    finally:
        host.check_output(f"kill $(cat {log}.pid)")
    block = str(calico.cluster.node("node2").pod_cidr)
    changes = [line for line in lines(host.file(log).content_string) if block in line]
    assert not [line for line in changes if line.startswith("Deleted")], changes


def test_a_stopped_bird_withdraws_its_routes(calico: Running, record_property: Any) -> None:
    """SIGTERM says goodbye: the peer drops the block at once; the own kernel routes stay."""
    calico.host("node2").check_output("testbed-agent process stop bird")
    gone = seconds_until(lambda: not learned(calico), 10)
    record_property("seconds until withdrawn", round(gone, 2))
    assert learned(calico, "node2", "node1")
    lost = calico.host(POD).run(f"ping -n -c 1 -W 1 {calico.ip(REMOTE)}")
    assert lost.rc == 1
    calico.host("node2").check_output("testbed-agent process start bird")
    back = seconds_until(lambda: learned(calico))
    record_property("seconds until learned again", round(back, 2))
    ping(calico, POD, calico.ip(REMOTE))


def test_a_dead_peer_is_withdrawn_after_its_restart_time(
    calico: Running, record_property: Any
) -> None:
    """Killed and not restarted: its routes are kept as stale, then they go."""
    calico.host("node2").check_output(
        f"kill -9 {bird_pid(calico, 'node2')}; testbed-agent process stop bird"
    )
    began = time.monotonic()
    assert learned(calico)
    ping(calico, POD, calico.ip(REMOTE))
    eventually(lambda: not learned(calico), RESTART_TIME + 10)
    kept = time.monotonic() - began
    record_property("seconds kept", round(kept, 2))
    assert kept > RESTART_TIME - 2
    if SLOWNESS == 1:
        assert kept < RESTART_TIME + 5
