"""A trace as a picture: what is in it, where, and that any viewer can show it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from testbed.verify.trace import drawing
from testbed.verify.trace.model import IN, OUT, ExpectedHop, Trace
from tests.unit.verify.trace import traces

ALL: dict[str, Callable[[], Trace]] = {name: getattr(traces, name) for name in traces.__all__}
SVG = "{http://www.w3.org/2000/svg}"


def drawn(trace: Trace) -> ElementTree.Element:
    """The parsed picture."""
    return ElementTree.fromstring(drawing.svg(trace))  # noqa: S314  # our own


def texts(root: ElementTree.Element) -> list[str]:
    """Everything that is written in it."""
    return ["".join(each.itertext()).replace("\xa0", " ") for each in root.iter(f"{SVG}text")]


def numbers(root: ElementTree.Element) -> list[str]:
    """What stands in the circles, without a cross's."""
    return [
        each.text or ""
        for each in root.iter(f"{SVG}text")
        if "f-on" in each.get("class", "") and (each.text or "")[0].isdigit()
    ]


def boxes(root: ElementTree.Element, colour: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of every rectangle of a colour."""
    found = []
    for each in root.iter(f"{SVG}rect"):
        if f"f-{colour}" in each.get("class", "").split():
            x, y, wide, high = (float(each.get(name, 0)) for name in ("x", "y", "width", "height"))
            found.append((x, y, x + wide, y + high))
    return found


@pytest.mark.parametrize("name", ALL)
def test_it_is_one_well_formed_file(name: str) -> None:
    """It needs no script and nothing from elsewhere, and has a title for those who cannot see."""
    whole = drawing.svg(ALL[name]())
    root = ElementTree.fromstring(whole)  # noqa: S314
    assert root.tag == f"{SVG}svg"
    assert root[0].tag == f"{SVG}title"
    assert "<script" not in whole
    assert not re.search(r"href|url\(|@import|<image|<foreignObject", whole)
    assert re.findall(r"https?://\S+?\"", whole) == ['http://www.w3.org/2000/svg"']


@pytest.mark.parametrize("name", ALL)
def test_everything_lies_within_the_picture(name: str) -> None:
    """Boxes and the ends of texts, as far as the width of a text can be told."""
    root = drawn(ALL[name]())
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for each in root.iter(f"{SVG}rect"):
        assert (
            0
            <= float(each.get("x", 0))
            <= float(each.get("x", 0)) + float(each.get("width", 0))
            <= width
        )
        assert float(each.get("y", 0)) + float(each.get("height", 0)) <= height
    for each in root.iter(f"{SVG}text"):
        share = 0.61 if "mono" in each.get("class", "") else 0.56
        long = len(each.text or "") * share * float(each.get("font-size", 0))
        if each.get("text-anchor") == "start":
            assert float(each.get("x", 0)) + long <= width + 4, each.text
        assert 0 < float(each.get("y", 0)) <= height


def test_hops_are_numbered_there_and_back() -> None:
    """All twenty, each beside its interface, in nodes and pods with their addresses."""
    root = drawn(traces.answered())
    assert sorted(map(int, numbers(root))) == list(range(1, 21))
    written = texts(root)
    for word in ("node1", "node2", "netexec-node1-1", "netexec-node2-1", "10.244.0.2", "wire"):
        assert word in written
    for interface in ("veth660c775a", "cni0", "flannel.1", "veth3b76ff98"):
        assert interface in written
    assert written.count("eth0") == 4
    assert "answered in 98.8 µs, on the expected path" in written


def test_encapsulation_is_a_box_around_the_packet() -> None:
    """With the outer addresses, ports and VNI; from the encapsulator to the decapsulator."""
    root = drawn(traces.answered())
    written = texts(root)
    assert "IP 172.18.0.2 → 172.18.0.3, TTL 64" in written
    assert "UDP 51234 → 8472" in written
    assert written.count("VXLAN VNI 1") == 2
    inner = boxes(root, "packet")
    for left, top, right, bottom in boxes(root, "carrier")[:2]:
        inside = [
            each
            for each in inner
            if left < each[0] and each[2] < right and top < each[1] and each[3] < bottom
        ]
        assert len(inside) == 1


def test_pods_are_inside_their_nodes() -> None:
    """Each box of a pod in one of a node."""
    root = drawn(traces.answered())
    nodes, pods = boxes(root, "node"), boxes(root, "pod")
    assert (len(nodes), len(pods)) == (2, 2)
    for left, top, right, bottom in pods:
        assert any(
            node[0] < left and right < node[2] and node[1] < top and bottom < node[3]
            for node in nodes
        )


def test_the_place_of_death_is_marked() -> None:
    """Between the last hop and the expected one, with the sentence that says why."""
    root = drawn(traces.dropped())
    written = texts(root)
    cross = next(each for each in root.iter(f"{SVG}circle") if "f-dead" in each.get("class", ""))
    last, following = (
        next(float(each.get("x", 0)) for each in root.iter(f"{SVG}text") if each.text == word)
        for word in ("6", "expected: decapsulated")
    )
    assert last < float(cross.get("cx", 0)) < following
    assert "lost here" in written
    assert traces.dropped().diagnosis.summary in written  # type: ignore[union-attr]
    assert "reply" not in written


def test_what_left_the_path_but_arrived_is_not_dead() -> None:
    """It is marked in another colour."""
    root = drawn(traces.astray())
    assert "leaves the path" in texts(root)
    assert not [each for each in root.iter(f"{SVG}circle") if "f-dead" in each.get("class", "")]


def test_nodes_off_the_path_are_drawn_where_the_packet_went() -> None:
    """Between the nodes that it came from and went to, without a number."""
    root = drawn(traces.astray())
    written = texts(root)
    at = {
        float(each.get("x", 0)): each.text
        for each in root.iter(f"{SVG}text")
        if each.text in ("node1", "node2", "node3")
    }
    assert [at[x] for x in sorted(at)] == ["node1", "node3", "node2"]
    assert "off the path" in written
    assert "•" in written


def test_a_packet_that_comes_by_again_has_one_circle() -> None:
    """With the numbers of its other visits under it, and arrows back."""
    root = drawn(traces.looping(200))
    assert [each for each in numbers(root) if "…" in each] == ["5…", "6…"]
    assert any("again:" in each for each in texts(root))
    assert root.find(f".//{SVG}path") is not None


def test_without_a_path_there_is_still_a_verdict() -> None:
    """For a pod that is gone before anything was sent."""
    written = texts(drawn(traces.nowhere()))
    assert "not answered: no interface saw the packet" in written
    assert "the pod is gone" in written


def test_words_of_others_are_only_words() -> None:
    """Also those that XML knows no sign for."""
    found = traces.dropped().diagnosis
    assert found is not None
    evil = replace(found, summary="</text><script>alert(1)</script> & \x00\x1b\ufffe]]>")
    root = drawn(replace(traces.dropped(), diagnosis=evil))
    assert root.find(f".//{SVG}script") is None
    assert any(text.startswith("</text><script>alert(1)</script> & \ufffd") for text in texts(root))
    assert "<script>alert" not in drawing.svg(traces.astray())


def test_a_service_is_drawn_with_its_conntrack_entry() -> None:
    """The title names the Service, the boxes the endpoint."""
    drawn = drawing.svg(traces.translated())
    assert "svc/default/web" in drawn
    assert "netexec-node1-2" in drawn
    assert "conntrack on node1: udp 17 29 src=10.244.0.2 dst=10.96.0.10" in drawn


def test_a_second_visit_says_so() -> None:
    """A router that the packet crosses again has a box at both places, with the wires to them."""
    way = ("client", OUT), ("tor", IN), ("node3", IN), ("node3", OUT), ("tor", OUT), ("node2", IN)
    hops = tuple(ExpectedHop(node, node, "eth0", turn, None, "routed") for node, turn in way)
    request = replace(traces.answered().request, expected=hops, observed=())
    nothing = replace(request, expected=())
    root = drawn(replace(traces.answered(), request=request, reply=nothing))
    written = [each for each in texts(root) if each in ("tor", "tor again", "wire")]
    assert sorted(written) == ["tor", "tor again", *["wire"] * 4]


def test_the_name_of_a_deployment_s_pod_fits_its_box() -> None:
    """In smaller letters, as it is longer than others."""
    found = traces.answered()
    long = "default/web-79dd459c97-2mhkk"
    hops = tuple(replace(hop, place=long) for hop in found.request.expected[:1])
    request = replace(found.request, expected=hops, observed=())
    root = drawn(replace(found, request=request, reply=replace(request, expected=())))
    name = next(each for each in root.iter(f"{SVG}text") if each.text == long[8:])
    left, _, right, _ = boxes(root, "pod")[0]
    assert len(long[8:]) * 0.68 * float(name.get("font-size", 0)) < right - left
