"""What a flight recorder found, as one folder: packets, texts of every node, and a summary."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from testbed.agent import pcapng
from testbed.flight_recorder import APPLICATION, Evidence
from testbed.packets.merging import merged

__all__ = ["PACKETS", "SUMMARY", "cleared", "folder_name", "save", "summary"]

PACKETS, SUMMARY = "packets.pcapng", "summary.txt"
_LONGEST = 120
"""Of a name, in bytes: a file system takes 255, and paths get long."""
_DIGEST = 8


def folder_name(test: str) -> str:
    """A file name that says which test, and differs where the tests do."""
    where, _, parameters = test.partition("[")
    plain = where.replace("/", ".").replace("::", "--")
    if parameters:  # what is in them is not replaced alike: a/b and a.b are two tests
        plain += f"-{parameters.removesuffix(']')}"
    words = re.sub(r"[^\w.=,+-]+", "-", plain).strip("-.").encode()[:_LONGEST]
    name = words.decode(errors="ignore")
    digest = sha256(test.encode(errors="surrogateescape")).hexdigest()[:_DIGEST]
    return name if name == plain else f"{name}-{digest}"


def cleared(folder: Path) -> Path:
    """``folder`` without what a failure of an earlier run left there."""
    if any(folder.glob(SUMMARY)) or any(folder.glob(f"*/{SUMMARY}")):
        shutil.rmtree(folder)
    return folder


def save(
    folder: Path,
    found: Sequence[Evidence],
    *,
    headline: str,
    slice_ns: tuple[int, int],
) -> list[str]:
    """Write ``folder``; return a list of what is in it, and of what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PACKETS).write_bytes(merged((each.pcapng for each in found), APPLICATION))
    lines = summary(found, headline=headline, slice_ns=slice_ns)
    (folder / SUMMARY).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    listed = [SUMMARY, f"{PACKETS}: {sum(map(_frames, found))} frames"]
    for each in found:
        (folder / each.node).mkdir(exist_ok=True)
        for name, text in each.texts.items():
            (folder / each.node / name).write_text(text, encoding="utf-8")
        listed.append(f"{each.node}/ {' '.join(sorted(each.texts)) or '(nothing)'}")
        listed += [f"{each.node}: {problem}" for problem in each.problems]
    return listed


def summary(found: Sequence[Evidence], *, headline: str, slice_ns: tuple[int, int]) -> list[str]:
    """Which test, when, how many frames passed which interface, and what is missing."""
    begin, end = slice_ns
    lines = [headline, f"from {_time(begin)} to {_time(end)} UTC, {(end - begin) / 1e9:.3f} s", ""]
    for each in found:
        counts = f"; {each.counts}" if each.counts else ""
        lines.append(f"{each.node}: recording since {_time(each.since_ns)}{counts}")
        lines += [f"  problem: {problem}" for problem in each.problems]
        pods = _pods(each.texts)
        for interface, frames in sorted(_interfaces(each).items()):
            pod = pods.get(interface.removeprefix(f"{each.node}/"), "")
            lines.append(f"  {interface:32} {frames:6} frames  {pod}".rstrip())
    return lines


def _time(time_ns: int) -> str:
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ns % 10**9 // 10**6:03}" if time_ns else "(never)"


def _records(evidence: Evidence) -> Iterator[str]:
    """The interface of every frame."""
    reader = pcapng.Reader()
    for block in reader.feed(evidence.pcapng):
        if isinstance(block, pcapng.Record):
            yield reader.interfaces[block.index].name


def _frames(evidence: Evidence) -> int:
    return sum(1 for _ in _records(evidence))


def _interfaces(evidence: Evidence) -> Counter[str]:
    return Counter(_records(evidence))


def _pods(texts: Mapping[str, str]) -> dict[str, str]:
    """Host end of a pod's interface → the pod, as the agent knows them."""
    try:
        state = json.loads(texts.get("agent-state.json", "{}"))
        pods = state.get("pods", [])
        return {pod["host_interface"]: f"{pod['namespace']}/{pod['name']}" for pod in pods}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
