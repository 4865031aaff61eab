"""What shapes a limited pod's packets: held, dropped, gone; and what is no fault of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.verify.trace.world import (
    LATER,
    PATH,
    STEP_NS,
    World,
    at,
    echo,
    hop,
    link,
    request,
    travel,
    verdict,
)

SHAPER = replace(hop("node1", "bwp1", "out"), what="shaped")
SHAPED = ((*PATH[0][:2], SHAPER, *PATH[0][2:]), PATH[1])
"""From a pod whose egress is limited."""
TO_SHAPED = (PATH[0], (*PATH[1][:2], replace(SHAPER, place="node2", node="node2"), *PATH[1][2:]))
"""To one."""


def world(node: str = "node1", **row: Any) -> World:
    """With the shaper and its queue, which is empty unless ``row`` says otherwise."""
    found = World()
    queue = {"dev": "bwp1", "kind": "tbf", "handle": "1:", "qlen": 0, "backlog": 0, "drops": 0}
    for facts, last in ((found.before, {}), (found.after, row)):
        facts[node][""]["links"].append(link("bwp1"))
        facts[node][""]["qdiscs"] = [queue | last]
    return found


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"qlen": 12, "backlog": 984}, "in the queueing discipline tbf 1 of bwp1 12 packets (984"),
        ({"drops": 1}, "the queueing discipline tbf 1 of bwp1 counted 1 dropped"),
    ],
)
def test_held_or_dropped_by_the_shaper(row: dict[str, Any], said: str) -> None:
    """It came out of the veth and not out of the queue."""
    found = verdict(world(**row), request(2), path=SHAPED)
    assert (found.cause, found.leg, found.place) == ("rule", "request", "node1")
    assert said in found.summary


def test_packets_of_others_may_wait() -> None:
    """What was seen behind the queue, it does not hold."""
    reply = travel(TO_SHAPED[1], echo(reply=True), hops=3, begin=LATER, reply=True)
    found = verdict(world("node2", qlen=3), [*request(10), *reply], path=TO_SHAPED)
    assert (found.cause, found.leg) == ("unknown", "reply")


def test_an_answer_is_held_where_it_is_shaped() -> None:
    """It left the pod that was asked."""
    reply = travel(PATH[1], echo(reply=True), hops=2, begin=LATER, reply=True)
    found = verdict(world("node2", qlen=3), [*request(10), *reply], path=TO_SHAPED)
    assert (found.cause, found.leg, found.place) == ("rule", "reply", "node2")


def test_what_is_asked_of_a_pod_by_arp_is_answered_by_its_shaper() -> None:
    """Although the request itself does not go by it."""
    broken = world("node2")
    del broken.after["node2"][""]["links"][-1]
    found = verdict(broken, request(7), path=TO_SHAPED)
    assert (found.cause, found.place) == ("interface-down", "node2")
    assert found.advice == "restart node2's container: at boot it attaches its pods anew"


def test_a_shaper_loses_fragments_and_joins_none() -> None:
    """What comes out of it is fewer, not whole."""
    parts = [
        echo()._replace(identification=7, fragment_offset=offset, more_fragments=offset < 16)
        for offset in (0, 8, 16)
    ]
    events = [
        at(place, part, 1_000_000 + index * STEP_NS + number)
        for index, place in enumerate(SHAPED[0][:3])
        for number, part in enumerate(parts if index < 2 else parts[:1])
    ]
    walk = world().case(events, path=SHAPED).walk
    assert walk.request.observed[-1].happened == ("shaped", "2 fragments lost")
