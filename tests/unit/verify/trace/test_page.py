"""A trace as a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from testbed.verify.trace import page
from testbed.verify.trace.model import Trace
from tests.unit.verify.trace import traces

ALL: dict[str, Callable[[], Trace]] = {name: getattr(traces, name) for name in traces.__all__}


def parsed(trace: Trace) -> ElementTree.Element:
    """The page, which is written so that XML's parsers read it, too."""
    whole = page.html(trace)
    assert whole.startswith("<!DOCTYPE html>\n<html ")
    return ElementTree.fromstring(whole.partition("\n")[2])  # noqa: S314  # our own


def rows(root: ElementTree.Element, table: int) -> list[list[str]]:
    """The cells of the body of a table."""
    body = root.findall(".//tbody")[table]
    return [["".join(cell.itertext()) for cell in row] for row in body]


@pytest.mark.parametrize("name", ALL)
def test_it_is_one_well_formed_file(name: str) -> None:
    """With the drawing in it; no scripts, and nothing from elsewhere."""
    root = parsed(ALL[name]())
    assert root.find(".//{http://www.w3.org/2000/svg}svg") is not None
    assert not [each for each in root.iter() if each.tag in ("script", "link", "img", "iframe")]
    assert not [each for each in root.iter() if {"src", "href", "onload"} & set(each.attrib)]


def test_every_hop_stands_beside_what_was_expected() -> None:
    """With outer and inner headers."""
    there, back = (rows(parsed(traces.answered()), table) for table in (0, 1))
    assert [row[0] for row in there + back] == [str(number) for number in range(1, 21)]
    wire = there[4]
    assert wire[:8] == [
        "5",
        "16.8 µs",
        "node1",
        "eth0",
        "out",
        "encapsulated (VXLAN VNI 1, UDP 8472)",
        "63",
        "148",
    ]
    for part in ("02:42:ac:12:00:02", "VXLAN VNI 1, 172.18.0.2:51234 > 172.18.0.3:8472, ttl 64"):
        assert part in wire[8]
    assert "10.244.0.2 > 10.244.1.2: ICMP echo request" in wire[8]
    assert wire[9] == "node1/eth0 out: encapsulated (VXLAN VNI 1, UDP 8472)"


def test_the_first_divergence_is_marked() -> None:
    """In red where the packet was lost; what was to follow is there as well."""
    root = parsed(traces.dropped())
    marked = [row for row in root.iter("tr") if row.get("class") == "lost"]
    assert len(marked) == 1
    assert "".join(marked[0].itertext()).strip() == "lost herenode2/flannel.1 in: decapsulated"
    assert len(rows(root, 0)) == 10
    assert len(root.findall(".//tbody")) == 1  # no reply was sent: nothing is missing


def test_the_verdict_has_cause_evidence_and_advice() -> None:
    """Each as it is in the diagnosis."""
    whole = "".join(parsed(traces.dropped()).itertext())
    found = traces.dropped().diagnosis
    assert found is not None
    for part in (found.summary, found.cause, *found.evidence, found.advice, found.last):
        assert part in whole


def test_errors_are_listed() -> None:
    """With their time since the first hop."""
    assert rows(parsed(traces.too_large()), 1)[0][:3] == ["30.0 µs", "node1/cni0", "out"]


def test_strays_are_among_the_hops() -> None:
    """Without a number, and expected by nobody."""
    row = rows(parsed(traces.astray()), 0)[6]
    assert (row[0], row[1], row[2], row[9]) == ("", "21.0 µs", "node3", "nothing")


def test_words_of_others_are_only_words() -> None:
    """Wherever they stand."""
    evil = "<b onload='x'>&amp;</b>"
    good = traces.dropped()
    found = good.diagnosis
    assert found is not None
    told = replace(found, summary=evil, evidence=(evil,), advice=evil, last=evil, cause=evil)
    trace = replace(
        good, testbed=evil, source=replace(good.source, place=evil), diagnosis=told, error=evil
    )
    root = parsed(trace)
    assert root.find(".//b") is None
    assert "".join(root.itertext()).count(evil) >= 6
    assert root.find(".//script") is None
    assert "<script>alert('&')</script>" in "".join(parsed(traces.astray()).itertext())


def test_a_service_and_its_conntrack_entry_are_told() -> None:
    """Under the hops, as conntrack prints it."""
    told = page.html(traces.translated())
    assert "svc/default/web (10.96.0.10:90): default/netexec-node1-2" in told
    assert "<h2>conntrack on node1</h2>" in told
    assert "src=10.244.0.2 dst=10.96.0.10 sport=40000 dport=90" in told
