"""``testbed-agent trace REQUEST``: watching one marked packet on every interface of this node.

A conversation of JSON lines with the host, which holds one with every node at once: taps are open
before anything is sent, then one node sends, and all hand over what they saw of the packet.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from . import facts, pcapng, state
from .command import execute
from .documents import received
from .errors import CommandError
from .marked import Packet
from .netns import entered
from .tap import ETHERNET, Sight, Tap

__all__ = ["Conversation", "belonging", "main", "written"]

_ARP = b"\x08\x06"
_FRAGMENT = re.compile(rb"E.{3}(..)[\x20-\x3f].{5}(.{8})", re.DOTALL)
"""An IPv4 header with the flag that more fragments follow: identification, and both addresses."""
_UDP = 17
_STAMPED_SECONDS, _PAUSE = 1.0, 0.001


def main(argv: list[str]) -> int:
    """Hold the conversation on standard input and output until the input ends."""
    path = Path(received(argv[0]))
    request = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    pods = (state.read() or {}).get("pods", [])
    namespaces = {f"{pod['namespace']}/{pod['name']}": pod["netns"] for pod in pods}
    with Conversation(request, namespaces) as conversation:
        conversation.hold(sys.stdin, sys.stdout)
    return 0


class Conversation:
    """The taps of this node's namespaces, and what the host may ask meanwhile.

    ``request`` holds ``pods``, the keys of pods whose namespaces are tapped besides the node's.
    ``namespaces`` maps the node's pods to the paths of theirs; empty: the node's own.
    """

    def __init__(self, request: Mapping[str, Any], namespaces: Mapping[str, str]) -> None:
        self._node = str(request["node"])
        self._spaces: dict[str, str | None] = {"": None}
        self._taps: dict[str, Tap] = {}
        self._packet: Packet | None = None
        self._sights: dict[str, list[Sight]] = {}
        self.missing: list[str] = []
        """Pods that have no namespace here."""
        wanted = [pod for pod in request["pods"] if namespaces.get(pod, "?")]
        for space in ("", *wanted):
            path = None if space == "" else namespaces.get(space, "")
            try:
                self._taps[space] = Tap(path)
            except OSError:
                self.missing.append(space)
            else:
                self._spaces[space] = path

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        if self._packet:
            self._packet.close()
        for tap in self._taps.values():
            tap.close()

    def hold(self, asked: Iterable[str], answers: TextIO) -> None:
        """Say that the taps are open, then answer every line with one."""

        def say(answer: Mapping[str, Any]) -> None:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()

        found = self._facts()
        self._await_stamps()
        say({"ready": True, "missing": self.missing, "facts": found})
        answering: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "probe": self._probe,
            "collect": self._collect,
            "route": self._route,
            "conntrack": self._conntrack,
        }
        for line in asked:
            question = json.loads(line)
            say(answering[question["do"]](question))

    def _await_stamps(self) -> None:
        deadline = time.monotonic() + _STAMPED_SECONDS
        while not self._taps[""].stamped() and time.monotonic() < deadline:
            time.sleep(_PAUSE)

    def _facts(self) -> dict[str, Any]:
        read = facts.read_all(self._spaces.values())
        return dict(zip(self._spaces, read, strict=True))

    def _probe(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send the packet; the ``patterns`` of the answer are what it is known by everywhere."""
        space = question["space"]
        if space not in self._taps:
            numbers = {"local_port": 0, "sequence": 0, "sent_ns": 0}
            return {"answered": False, "error": self._not_here(space), "patterns": [], **numbers}
        self._packet = Packet(question)
        self._packet.send(self._spaces[space])
        self._drain()  # waiting has filled the buffers
        return {
            "answered": self._packet.answered,
            "error": self._packet.error,
            "local_port": self._packet.local_port,
            "sequence": self._packet.sequence,
            "sent_ns": self._packet.sent_ns,
            "patterns": [each.hex() for each in self._packet.patterns()],
        }

    def _drain(self) -> None:
        for space, tap in self._taps.items():
            self._sights.setdefault(space, []).extend(tap.drain())

    def _collect(self, question: dict[str, Any]) -> dict[str, Any]:
        """What the taps saw since ``since_ns`` that holds any of ``patterns``.

        ``udp`` names ports all of whose frames belong: what is inside of WireGuard cannot be read.
        """
        self._drain()
        since = question.get("since_ns", 0)
        sights = [
            (_named(space or self._node, sight), sight)
            for space, seen in self._sights.items()
            for sight in seen
            if sight.time_ns >= since
        ]
        sights.sort(key=lambda each: each[1].time_ns)
        patterns = [bytes.fromhex(each) for each in question["patterns"]]
        chosen = belonging([sight for _, sight in sights], patterns, question.get("udp", ()))
        kept = [each for each, belongs in zip(sights, chosen, strict=True) if belongs]
        return {
            "pcapng": base64.b64encode(written(kept)).decode(),
            "dropped": sum(tap.dropped for tap in self._taps.values()),
            "facts": self._facts() if question.get("facts") else {},
        }

    def _route(self, question: dict[str, Any]) -> dict[str, Any]:
        """What the kernel of a namespace answers to ``ip route get``."""
        words = [question["to"]]
        for word in ("from", "iif"):
            words += [word, question[word]] if question.get(word) else []
        space = question["space"]
        if space not in self._spaces:
            return {"route": [], "error": self._not_here(space)}
        try:
            with entered(self._spaces[space]):
                done = execute(["ip", "-json", "route", "get", *words], timeout=5)
        except (OSError, CommandError) as error:
            return {"route": [], "error": str(error)}
        routes: list[Any] = next(facts.documents(done.stdout.decode()), [])
        return {"route": routes, "error": done.stderr.decode(errors="replace").strip()}

    def _conntrack(self, question: dict[str, Any]) -> dict[str, Any]:
        """The node's entries that ``conntrack -L`` prints for ``arguments``."""
        try:
            done = execute(["conntrack", "-L", *question["arguments"]], timeout=5)
        except CommandError as error:
            return {"entries": [], "error": str(error)}
        entries = done.stdout.decode(errors="replace").splitlines()
        told = "" if entries or done.status == 0 else done.stderr.decode(errors="replace")
        return {"entries": [" ".join(line.split()) for line in entries], "error": told.strip()}

    def _not_here(self, space: str) -> str:
        return f"{space} does not run on {self._node}"


def _named(place: str, sight: Sight) -> str:
    """An interface that is gone has no name any more."""
    return f"{place}/{sight.interface or 'gone'}"


def belonging(
    sights: Iterable[Sight], patterns: Iterable[bytes], udp: Iterable[int] = ()
) -> list[bool]:
    """Whether each frame is a sight of the packet, of an answer, of an error about it, or ARP.

    That is: it holds one of ``patterns``; or it is a fragment, however encapsulated, of a packet
    one of whose fragments does, because the last one may be shorter than any pattern.
    """
    seen = list(sights)
    found = [any(each in sight.data for each in patterns) for sight in seen]
    fragments = {
        re.escape(each[1]) + b".{6}" + re.escape(each[2])
        for sight, belongs in zip(seen, found, strict=True)
        if belongs and (each := _FRAGMENT.match(_packet(sight)))
    }
    fragment = re.compile(b"|".join(sorted(fragments)), re.DOTALL) if fragments else None
    ports = {port.to_bytes(2, "big") for port in udp}
    return [
        belongs
        or bool(fragment and fragment.search(sight.data))
        or (sight.link_type == ETHERNET and sight.data[12:14] == _ARP)
        or _of_port(_packet(sight), ports)
        for sight, belongs in zip(seen, found, strict=True)
    ]


def _packet(sight: Sight) -> bytes:
    """What follows an Ethernet header without VLAN tags."""
    return sight.data[14:] if sight.link_type == ETHERNET else sight.data


def _of_port(packet: bytes, ports: set[bytes]) -> bool:
    """Whether this is an IPv4 packet with UDP from or to one of ``ports``."""
    if not ports or len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] != _UDP:
        return False
    at = (packet[0] & 0xF) * 4
    return packet[at : at + 2] in ports or packet[at + 2 : at + 4] in ports


def written(sights: Iterable[tuple[str, Sight]]) -> bytes:
    """A pcapng file of frames with the names of their interfaces."""
    described: dict[tuple[str, int], int] = {}
    blocks: list[bytes] = [pcapng.section("testbed trace")]
    packets: list[bytes] = []
    for name, sight in sights:
        key = (name, sight.link_type)
        if key not in described:
            described[key] = len(described)
            blocks.append(pcapng.interface(name, sight.link_type))
        direction = "out" if sight.outgoing else "in"
        packets.append(
            pcapng.packet(described[key], sight.time_ns, sight.data, sight.length, direction)
        )
    return b"".join(blocks + packets)
