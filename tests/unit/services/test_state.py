"""What nodes keep of Services."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from testbed.services import state
from testbed.topology.portals import Seen
from tests.unit.services.cluster import DNS, WEB, cluster, pod, running, written


def test_who_is_seen_ready() -> None:
    """A pod that runs and has an address, unless a readiness gate holds it back."""
    gated = cluster(pods=(pod("a", "node1"), pod("b", "node2", gated=True), pod("c", "node2")))
    states = {
        "node1": {
            "pods": [{"namespace": "default", "name": "a", "ip": "10.0.0.1", "state": "Running"}]
        },
        "node2": {
            "pods": [
                {"namespace": "default", "name": "b", "ip": "10.0.0.2", "state": "Running"},
                {
                    "namespace": "default",
                    "name": "c",
                    "ip": "10.0.0.3",
                    "state": "CrashLoopBackOff",
                },
                {"namespace": "default", "name": "other", "ip": "10.0.0.4", "state": "Running"},
            ]
        },
    }
    assert state.seen(gated, states) == {
        "default/a": Seen(IPv4Address("10.0.0.1"), True),
        "default/b": Seen(IPv4Address("10.0.0.2"), False),
        "default/c": Seen(IPv4Address("10.0.0.3"), False),
    }


def test_what_is_kept_is_read_back() -> None:
    """Services and the slices of manifests; those of selectors are made anew each time."""
    full = cluster(services=(DNS, WEB), slices=(written("dns", "10.244.0.9"),))
    kept, portals = state.kept(full, running("a", "b"))
    empty = replace(full, services=(), slices=())
    back = state.held(empty, kept.inputs)
    assert back.services == (WEB, DNS)
    assert back.slices == full.slices
    assert portals == state.joined(kept.inputs)
    assert [str(each) for each in portals["default/web"][0].targets] == [
        "10.244.0.2:8080",
        "10.244.1.2:8080",
    ]


def test_slices_without_their_service_are_kept() -> None:
    """It may come later."""
    kept, portals = state.kept(cluster(services=(), slices=(written("dns", "10.1.1.1"),)), {})
    assert kept.inputs["kube-system/dns"]["service"] is None
    assert portals == {}
    assert len(state.held(cluster(services=()), kept.inputs).slices) == 1


def test_a_generation_names_one_state() -> None:
    """Whatever the order of things; another mode or endpoint is another."""
    one, _ = state.kept(cluster(services=(WEB, DNS)), running("a"))
    same, _ = state.kept(cluster(services=(DNS, WEB)), running("a"))
    more, _ = state.kept(cluster(services=(DNS, WEB)), running("a", "b"))
    mode, _ = state.kept(cluster(services=(DNS, WEB), proxy="nftables"), running("a"))
    assert one.generation == same.generation
    assert len({one.generation, more.generation, mode.generation}) == 3
