"""Both IP-in-IP drivers under the same probes: frames that differ in nothing but ids and time.

Needs a kernel with the ipip driver and with what the eBPF one needs: the full-kernel lane's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from testbed import existing
from testbed.dataplane.features import Features
from testbed.packets.packet import Packet
from tests.live.calico import lines
from tests.live.conftest import Running, quiet
from tests.live.wire import ping

PROBES = {
    "as ping sends them": "",
    "the largest with DF": "-M do -s 1452",
    "without DF": "-M dont -s 100",
    "fragmented inside": "-M dont -s 3000",
    "DSCP and ECT(0)": "-Q 0x2a",
    "CE": "-Q 0x03",
    "a short TTL": "-t 5",
}
_DIFFERS = {"identification", "icmp_identity", "time_ns", "payload", "inner"}
"""Ids, ping's own too, and time; payloads hold a timestamp, and what is inside is compared by
itself."""


def described(frame: Packet) -> list[dict[str, Any]]:
    """Every other field of a frame and of those inside it."""
    fields = {name: value for name, value in frame._asdict().items() if name not in _DIFFERS}
    return [{**fields, "bytes": len(frame.payload)}] + (
        described(frame.inner) if frame.inner else []
    )


def seen_with(make: Callable[..., Running], driver: str) -> dict[str, list[Any]]:
    """Probe → the frames of protocol 4 on node1's uplink, sorted; and node1's routes."""
    live = make("calico", name="drivers", nodes=2, pods_per_node=1, ipip=driver)
    assert live.outcome.report.ok, live.outcome.report.failures
    assert live.outcome.status["ipip"] == driver
    found: dict[str, list[Any]] = {}
    target = live.ip("netexec-node2-1")
    for name, options in PROBES.items():
        with live.capture("node1", filter="ip proto 4") as wire:
            ping(live, "netexec-node1-1", target, options)
        found[name] = sorted((described(frame) for frame in wire), key=str)
        assert found[name], name
    found["ip route"] = lines(live.host("node1").check_output("ip route"))
    existing.down(live.client, live.name, quiet)
    return found


def test_frames_are_equal(make: Callable[..., Running], able: Features) -> None:
    """Same routes, same outer and inner headers, same sizes."""
    missing = [name for name in ("ipip", "ipip_ebpf") if not getattr(able, name)]
    if missing:
        pytest.skip(f"this kernel has no {' and no '.join(missing)}")
    kernel, ebpf = (seen_with(make, driver) for driver in ("kernel", "ebpf"))
    for name in kernel:
        assert ebpf[name] == kernel[name], name
