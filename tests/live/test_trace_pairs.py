"""Every kind of pair is broken: pods of one node, node to pod, pod to node, a pod and itself.

Two pods of two nodes are in :mod:`tests.live.test_trace`, and all are traced whole there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.live.breaking import HERE, NEAR, Fault, World, judged, trace
from tests.live.conftest import Lasting, Running
from tests.live.pair_faults import itself, same_node, to_node, to_own_node, to_pod

TOPOLOGIES = ("flannel", "flannel-host-gw", "calico", "kindnet")
KINDS = (same_node, to_pod, to_node, to_own_node, itself)


@pytest.fixture(scope="module", params=TOPOLOGIES)
def cluster(lasting: Lasting, request: pytest.FixtureRequest) -> Iterator[Running]:
    """Three nodes of each CNI, the same for all its traces."""
    with lasting(request.param, name="pairs") as found:
        yield found


@pytest.mark.timeout(600)  # some twenty faults, of up to ten seconds on a busy machine
@pytest.mark.parametrize("kind", KINDS, ids=lambda each: str(each.__name__))
def test_every_fault_is_named(cluster: Running, kind: Callable[[World], Iterator[Fault]]) -> None:
    """What was broken, where, and on which leg; undone, the same packet passes."""
    faults = list(kind(World(cluster)))
    assert len({fault.name for fault in faults}) >= 8
    judged(cluster, faults)


def test_the_pod_is_gone(cluster: Running) -> None:
    """Its end of the cable is pulled out, for whoever asks: last, since nothing puts it back."""
    world = World(cluster)
    world.run("node1", f"ip link del {world.port(NEAR)}")
    for source in (HERE, "node1", "node2"):
        found = trace(cluster, source, NEAR)
        assert found.diagnosis is not None
        said = (found.diagnosis.cause, found.diagnosis.place, found.answered)
        assert said == ("pod-gone", f"default/{NEAR}", False), found.diagnosis
