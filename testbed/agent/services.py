"""``services``: what the node holds for Services, changed without touching anything else.

A document is a delta on a generation, or everything. It is applied in this process, which ends,
because thousands of rules take memory; PID 1 is told only of daemons. Until all of it is done, the
kept state has no generation, so that whoever finds it interrupted begins anew with everything.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from . import kept_services, service_rules
from .command import execute, run
from .errors import AgentError, CommandError, describe
from .reconcile import write_files
from .service_document import load
from .shelf import Shelf

__all__ = ["apply", "forget", "main", "restore"]

_TOLD = 200
"""Changes that an answer has; a first document of a thousand Services has 50,000."""


def main(arguments: list[str]) -> int:
    """``services DOC``, or what PID 1 asks for: ``--restore`` and ``--forget``."""
    from . import client, documents

    if arguments == ["--restore"]:
        restore()
        return 0
    if arguments == ["--forget"]:
        forget()
        return 0
    path = documents.received(arguments[0])
    try:
        answer = apply(load(path))
        if answer["ok"]:
            reply = client.request({"command": "services"}, lambda _: None)
            changes = answer["changes"] + reply.get("changes", [])
            answer = {**reply, "changes": changes} if reply["ok"] else reply
    except Exception as error:
        answer = {"ok": False, "error": describe(error)}
    finally:
        Path(path).unlink(missing_ok=True)
    client.print_json(answer)
    return 0 if answer["ok"] else 1


def apply(document: Mapping[str, Any]) -> dict[str, Any]:
    """Apply everything of a checked document but its processes; return the answer.

    Raises:
        AgentError: a tool refused a line.
    """
    with kept_services.locked():
        state = kept_services.read("state")
        own = state.get("generation", "")
        base = document["base"]
        if base is not None and (base, document["mode"]) != (own, state.get("mode")):
            return {"ok": False, "stale": own}
        _keep("state", {"serial": 0, **state, "generation": "", "mode": document["mode"]})
        # nft refuses a delta for a table that is gone; iptables-restore would make the chains.
        intact = document["mode"] == "nftables" or kept_services.intact()
        partial = base is not None and not document["verify"] and intact
        changes = _partly(document) if partial else None
        if changes is None:
            changes = _wholly(document)
        changes += _conntrack(document["conntrack"])
        changes += write_files(document["files"], state.get("files", ()))
        parts = ("mode", "generation", "serial", "files", "processes")
        _keep("state", {key: document[key] for key in parts})
    return {"ok": True, "changes": _shortened(changes)}


def _partly(document: Mapping[str, Any]) -> list[str] | None:
    """Apply what differs, trusting what was applied last; ``None``: the kernel is not like that."""
    delta = document["units"]
    before = _units().some(delta)
    if any("ipvs" in unit for unit in (*before.values(), *delta.values()) if unit):
        return None  # addresses are shared by Services, and ipvsadm lists fast
    now = _merged(before, delta)
    try:
        changes = service_rules.apply(before, now, False)
    except AgentError:
        return None
    _units().put(delta)
    if "" in delta:
        _keep_dispatch(now)
    _inputs().put(document["inputs"])
    return changes


def _wholly(document: Mapping[str, Any]) -> list[str]:
    """Apply everything, and compare with the kernel."""
    delta = document["base"] is not None
    before = _units().all()
    now = _merged(before if delta else {}, document["units"])
    changes = service_rules.apply(before, now, True)
    _units().replace(now)
    _keep_dispatch(now)
    _inputs().replace(_merged(_inputs().all() if delta else {}, document["inputs"]))
    return changes


def restore() -> None:
    """Make the kernel hold what is kept.

    Raises:
        AgentError: a tool refused a line.
    """
    with kept_services.locked():
        units = _units().all()
        service_rules.apply(units, units, True)
        _keep_dispatch(units)
        files = kept_services.read("state").get("files", ())
        write_files(files, files)


def forget() -> None:
    """Remove everything that is kept, here and in the kernel.

    Raises:
        AgentError: a tool refused a line.
    """
    with kept_services.locked():
        service_rules.apply(_units().all(), {}, True)
        write_files((), kept_services.read("state").get("files", ()))
        for directory in (kept_services.DIRECTORY, service_rules.NATIVE):
            shutil.rmtree(directory, ignore_errors=True)


def _units() -> Shelf:
    return Shelf(f"{kept_services.DIRECTORY}/units")


def _inputs() -> Shelf:
    return Shelf(f"{kept_services.DIRECTORY}/inputs")


def _merged(held: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**held, **delta}
    return {name: merged[name] for name in sorted(merged) if merged[name] is not None}


def _keep_dispatch(units: Mapping[str, Mapping[str, Any]]) -> None:
    shared = units.get("", {})
    # PID 1 has no part in nftables' table: that there is one is all it has to know.
    dispatch = {key: "" if key == "nft" else shared[key] for key in shared}
    _keep("dispatch", {key: dispatch[key] for key in dispatch if key in kept_services.TOOLS})


def _keep(name: str, content: Mapping[str, Any]) -> None:
    path = Path(kept_services.DIRECTORY, f"{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    fresh.rename(path)


def _conntrack(deletions: Iterable[list[str]]) -> list[str]:
    """Have connections of UDP forgotten that go where nobody is any more.

    They are listed once: of thousands of deletions, few find an entry, and each is a process.
    """
    wanted = list(deletions)
    if not wanted:
        return []
    present = [_entry(line) for line in run(["conntrack", "-L", "-p", "udp"]).decode().splitlines()]
    changes = []
    for arguments in wanted:
        if not any(_asked(arguments) <= entry for entry in present):
            continue
        argv = ["conntrack", *arguments]
        done = execute(argv)
        words = done.stderr.decode(errors="replace").strip()
        if done.status == 0:
            changes.append(" ".join(argv))
        elif "0 flow entries" not in words:  # it has timed out meanwhile
            raise CommandError(tuple(argv), words, done.status)
    return changes


def _asked(arguments: list[str]) -> set[tuple[str, str]]:
    """What a deletion selects by."""
    pairs = dict(pairwise(arguments))
    return {(key, pairs[key]) for key in ("--orig-dst", "--dst-nat", "--dport") if key in pairs}


def _entry(line: str) -> set[tuple[str, str]]:
    """By what a deletion could select a listed connection; its reply comes from ``--dst-nat``."""
    fields = [word.split("=", 1) for word in line.split() if "=" in word]
    original = dict(reversed(fields))
    sources = [value for key, value in fields if key == "src"]
    return {
        ("--orig-dst", original.get("dst", "")),
        ("--dport", original.get("dport", "")),
        ("--dst-nat", sources[-1] if sources else ""),
    }


def _shortened(changes: list[str]) -> list[str]:
    more = len(changes) - _TOLD
    return [*changes[:_TOLD], f"and {more} lines more"] if more > 0 else changes
