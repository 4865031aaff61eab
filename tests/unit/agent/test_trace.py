"""The agent's part of a trace: which frames belong to the packet, and the conversation."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.agent import facts, pcapng, trace
from testbed.agent.tap import ETHERNET, RAW_IP, Sight

MARKER = b"0123456789abcdef"


def packet(protocol: int, payload: bytes, *, identity: int = 7, fragment: int = 0) -> bytes:
    """An IPv4 packet from 10.0.0.1 to 10.0.0.2."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), identity, fragment, 64, protocol, 0)
    return head + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + payload


def raw(data: bytes) -> Sight:
    """A sight on an interface without Ethernet header."""
    return Sight(1, "tunl0", RAW_IP, False, len(data), data)


def frame(data: bytes, ethertype: int = 0x0800) -> Sight:
    """A sight on an Ethernet interface."""
    whole = bytes(12) + ethertype.to_bytes(2, "big") + data
    return Sight(1, "eth0", ETHERNET, True, len(whole), whole)


def test_a_frame_with_a_pattern_belongs() -> None:
    """Anywhere in it: plain, encapsulated, quoted by an ICMP error; nothing else does."""
    inside = packet(1, b"header.." + MARKER)
    outer = packet(17, b"ports..." + b"vxlan..." + bytes(14) + inside)
    sights = [frame(inside), frame(outer), raw(packet(4, inside)), frame(packet(17, b"other"))]
    assert trace.belonging(sights, [b"never", MARKER]) == [True, True, True, False]
    assert trace.belonging(sights, []) == [False] * 4


def test_arp_always_belongs() -> None:
    """That nobody answers it may be why the packet dies."""
    assert trace.belonging([frame(bytes(28), 0x0806)], [MARKER]) == [True]


def test_fragments_without_a_pattern_belong() -> None:
    """The last one may be shorter than a pattern; it is known by its siblings, also in a tunnel."""
    first = packet(1, b"header.." + MARKER, fragment=0x2000)
    last = packet(1, b"tail", fragment=3)
    sights = [
        frame(last),
        frame(first),
        frame(packet(17, b"vxlan..." + last)),
        frame(packet(1, b"tail", identity=8, fragment=3)),
    ]
    assert trace.belonging(sights, [MARKER]) == [True, True, True, False]


def test_everything_of_a_port_belongs() -> None:
    """What is inside of WireGuard cannot be read; of either end, and only in UDP."""
    there = struct.pack("!HHHH", 40000, 51820, 16, 0) + bytes(8)
    back = struct.pack("!HHHH", 51820, 40000, 16, 0) + bytes(8)
    sights = [frame(packet(17, there)), raw(packet(17, back)), frame(packet(6, there))]
    assert trace.belonging(sights, [MARKER], [51820]) == [True, True, False]
    assert trace.belonging(sights, [MARKER]) == [False] * 3


def test_written_file_names_interfaces() -> None:
    """Each described once, with its link type, before all packets."""
    sights = [
        ("node1/eth0", frame(b"a")),
        ("default/a/eth0", frame(b"b")),
        ("node1/tunl0", raw(b"c")),
    ]
    blocks = pcapng.Reader().feed(trace.written([*sights, ("node1/eth0", raw(b"d"))]))
    interfaces = [each for each in blocks if isinstance(each, pcapng.Interface)]
    assert [(each.name, each.link_type) for each in interfaces] == [
        ("node1/eth0", 1),
        ("default/a/eth0", 1),
        ("node1/tunl0", 101),
        ("node1/eth0", 101),
    ]
    records = [each for each in blocks if isinstance(each, pcapng.Record)]
    assert [(each.index, each.direction) for each in records] == [
        (0, "out"),
        (1, "out"),
        (2, "in"),
        (3, "in"),
    ]


@pytest.fixture
def conversation(monkeypatch: pytest.MonkeyPatch) -> Iterator[trace.Conversation]:
    """With this machine's own namespace as the node's; a pod is gone, another never was."""
    if os.geteuid():
        pytest.skip("packet sockets are root's")
    monkeypatch.setattr(facts, "read_all", lambda paths: [{"path": path} for path in paths])
    request = {"node": "node1", "pods": ["default/gone", "default/never", "default/host"]}
    namespaces = {"default/gone": "/nowhere/netns", "default/host": ""}
    with trace.Conversation(request, namespaces) as conversation:
        yield conversation


def answers(conversation: trace.Conversation, *questions: dict[str, Any]) -> list[dict[str, Any]]:
    """What is answered to questions, the greeting first."""
    said = io.StringIO()
    conversation.hold([json.dumps(each) + "\n" for each in questions], said)
    return [json.loads(line) for line in said.getvalue().splitlines()]


PROBE = {"do": "probe", "space": "", "protocol": "icmp", "ip": "127.0.0.1", "port": 0} | {
    "size": 3000,
    "dont_fragment": False,
    "marker": MARKER.decode(),
    "seconds": 1,
}


def test_greeting_tells_what_is_missing(conversation: trace.Conversation) -> None:
    """A pod of the node's own network has no namespace to miss."""
    assert answers(conversation) == [
        {
            "ready": True,
            "missing": ["default/gone", "default/never"],
            "facts": {"": {"path": None}},
        }
    ]


def test_what_is_collected_is_the_packet_alone(conversation: trace.Conversation) -> None:
    """Out and in, there and back, by the patterns that the sender told; facts on demand."""
    _, sent = answers(conversation, PROBE)
    assert (sent["answered"], sent["error"], sent["local_port"]) == (True, "", 0)
    collect = {"do": "collect", "patterns": sent["patterns"], "since_ns": sent["sent_ns"]}
    _, collected = answers(conversation, {**collect, "facts": False})
    assert (collected["dropped"], collected["facts"]) == (0, {})
    blocks = pcapng.Reader().feed(base64.b64decode(collected["pcapng"]))
    seen = [each for each in blocks if isinstance(each, pcapng.Record) and MARKER in each.data]
    assert {each.name for each in blocks if isinstance(each, pcapng.Interface)} >= {"node1/lo"}
    assert [each.direction for each in seen] == ["out", "in", "out", "in"]
    assert [each.time_ns for each in seen] == sorted(each.time_ns for each in seen)
    later = {**collect, "since_ns": sent["sent_ns"] + 10**12, "facts": True}
    _, empty = answers(conversation, later)
    assert not any(
        isinstance(each, pcapng.Record)
        for each in pcapng.Reader().feed(base64.b64decode(empty["pcapng"]))
    )
    assert empty["facts"] == {"": {"path": None}}


def test_a_source_that_is_not_there_is_an_answer(conversation: trace.Conversation) -> None:
    """Nothing is sent."""
    _, sent = answers(conversation, {**PROBE, "space": "default/gone"})
    assert not sent["answered"]
    assert sent["error"] == "default/gone does not run on node1"
    assert sent["patterns"] == []


def test_routes_are_asked_for_in_a_namespace(
    conversation: trace.Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the words of ``ip route get``; what the kernel refuses is told."""
    tool = tmp_path / "ip"
    tool.write_text('#!/bin/sh\necho "[{\\"asked\\": \\"$*\\"}]"\necho refused >&2\nexit 2\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    question = {"do": "route", "space": "", "to": "10.0.0.2", "from": "10.0.0.1", "iif": "cni0"}
    bare = {"do": "route", "space": "", "to": "10.0.0.2", "from": "", "iif": ""}
    gone = {**bare, "space": "default/gone"}
    _, first, second, third = answers(conversation, question, bare, gone)
    assert first == {
        "route": [{"asked": "-json route get 10.0.0.2 from 10.0.0.1 iif cni0"}],
        "error": "refused",
    }
    assert second["route"] == [{"asked": "-json route get 10.0.0.2"}]
    assert third == {"route": [], "error": "default/gone does not run on node1"}


def test_conntrack_entries_are_listed_as_the_tool_prints_them(
    conversation: trace.Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line each, without its padding; what the tool refuses is told."""
    tool = tmp_path / "conntrack"
    tool.write_text(
        '#!/bin/sh\n[ "$2" = -d ] || { echo "no such option" >&2; exit 2; }\n'
        'echo "tcp      6 119 src=10.0.0.1 dst=$3"\necho "1 flow entries" >&2\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    question = {"do": "conntrack", "arguments": ["-d", "10.96.0.10"]}
    _, first, second = answers(conversation, question, {**question, "arguments": ["-?"]})
    assert first == {"entries": ["tcp 6 119 src=10.0.0.1 dst=10.96.0.10"], "error": ""}
    assert second == {"entries": [], "error": "no such option"}
