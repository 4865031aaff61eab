"""Where a drawing has which interface, and between which it draws a link."""

from __future__ import annotations

from testbed.verify.trace.model import IN, OUT, Event, ExpectedHop, Hop, Leg
from testbed.verify.trace.stations import Layout, arrange
from tests.unit.verify.trace import traces

Crossing = tuple[str, str, str]

THERE: tuple[Crossing, ...] = (
    ("client", "eth0", OUT),
    ("tor", "eth0", IN),
    ("tor", "eth1", OUT),
    ("node3", "eth0", IN),
    ("node3", "flannel.1", OUT),
    ("node3", "eth0", OUT),
    ("tor", "eth1", IN),
    ("tor", "eth0", OUT),
    ("node2", "eth0", IN),
)
"""A node port of a node in another rack, whose endpoint is in the client's own."""
TURNED = {IN: OUT, OUT: IN}
BACK = tuple((node, device, TURNED[direction]) for node, device, direction in THERE[::-1])
NOTHING = Leg((), (), None, complete=False)


def leg(expected: tuple[Crossing, ...], observed: tuple[Crossing, ...] = ()) -> Leg:
    """Crossings as they should be and as they were seen."""
    packet = traces.echo(8, ("", ""), (traces.A, traces.B), 64, 56)
    hops = [
        Hop(number, Event(node, node, device, direction, packet), ("seen",), number, expected=True)
        for number, (node, device, direction) in enumerate(observed, 1)
    ]
    wanted = [
        ExpectedHop(node, node, device, turn, None, "routed") for node, device, turn in expected
    ]
    return Leg(tuple(wanted), tuple(hops), None, complete=expected == observed)


def nodes(layout: Layout) -> list[str]:
    """The boxes, from left to right."""
    return [each.name for each in layout.nodes]


def test_a_router_that_is_crossed_twice_is_there_twice() -> None:
    """So that every node stands beside those that it has to do with, on the way back as well."""
    request, reply = leg(THERE, THERE), leg(BACK, BACK)
    layout = arrange(request, reply)
    assert nodes(layout) == ["client", "tor", "node3", "tor", "node2"]
    assert layout.links == set(range(8))
    assert [layout.column(hop, "request") for hop in request.expected] == list(range(9))
    assert [layout.column(hop, "reply") for hop in reply.expected] == list(range(9))[::-1]


def test_an_answer_by_another_interface_stays_in_its_node() -> None:
    """What only the reply crosses stands with the node's others."""
    request = leg((("node1", "eth0", OUT), ("node2", "eth0", IN)))
    reply = leg((("node2", "eth1", OUT), ("node1", "eth1", IN)))
    assert nodes(arrange(request, reply)) == ["node1", "node2"]


def test_copies_in_several_nodes_at_once_are_no_second_visits() -> None:
    """As when a packet is flooded: their sights alternate, and each node is there once."""
    seen = (
        ("node1", "eth0", OUT),
        ("node2", "eth0", IN),
        ("node3", "eth0", IN),
        ("node2", "flannel.1", IN),
        ("node3", "flannel.1", IN),
    )
    assert sorted(nodes(arrange(leg((), seen), NOTHING))) == ["node1", "node2", "node3"]


def test_neighbours_that_no_packet_went_between_are_not_linked() -> None:
    """A router off the path stands before the node that the packet should have gone to."""
    expected = ("node1", "eth0", OUT), ("node2", "eth0", IN)
    layout = arrange(leg(expected, (expected[0], ("tor", "eth0", IN))), NOTHING)
    assert nodes(layout) == ["node1", "tor", "node2"]
    assert layout.links == {0}
