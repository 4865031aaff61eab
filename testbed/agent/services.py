"""``services``: what the node holds for Services, changed without touching anything else.

A document is a delta on a generation, or everything. It is applied in this process, which ends,
because thousands of rules take memory; PID 1 is told only of daemons. Until all of it is done, the
kept state has no generation, so that whoever finds it interrupted begins anew with everything.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import kept_services, service_rules
from .command import execute
from .errors import CommandError, describe
from .reconcile import write_files
from .service_document import load

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
        verify = base is None or document["verify"] or not kept_services.intact()
        before = kept_services.read("units")
        held = before if base is not None else {}
        now = _merged(held, document["units"])
        inputs = kept_services.read("inputs").get("inputs", {}) if base is not None else {}
        _keep("state", {**state, "generation": "", "mode": document["mode"]})
        changes = service_rules.apply(before, now, verify)
        if now != before or not state:
            _keep_units(now)
        told = {"generation": document["generation"], "inputs": _merged(inputs, document["inputs"])}
        _keep("inputs", told)
        changes += _conntrack(document["conntrack"])
        changes += write_files(document["files"], state.get("files", ()))
        kept = {key: document[key] for key in ("mode", "generation", "files", "processes")}
        _keep("state", kept)
    return {"ok": True, "changes": _shortened(changes)}


def restore() -> None:
    """Make the kernel hold what is kept.

    Raises:
        AgentError: a tool refused a line.
    """
    with kept_services.locked():
        units = kept_services.read("units")
        service_rules.apply(units, units, True)
        _keep_units(units)
        files = kept_services.read("state").get("files", ())
        write_files(files, files)


def forget() -> None:
    """Remove everything that is kept, here and in the kernel.

    Raises:
        AgentError: a tool refused a line.
    """
    with kept_services.locked():
        service_rules.apply(kept_services.read("units"), {}, True)
        write_files((), kept_services.read("state").get("files", ()))
        for directory in (kept_services.DIRECTORY, service_rules.NATIVE):
            shutil.rmtree(directory, ignore_errors=True)


def _merged(held: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**held, **delta}
    return {name: merged[name] for name in sorted(merged) if merged[name] is not None}


def _keep_units(units: Mapping[str, Mapping[str, Any]]) -> None:
    shared = units.get("", {})
    # PID 1 has no part in nftables' table: that there is one is all it has to know.
    dispatch = {key: "" if key == "nft" else shared[key] for key in shared}
    _keep("units", units)
    _keep("dispatch", {key: dispatch[key] for key in dispatch if key in kept_services.TOOLS})


def _keep(name: str, content: Mapping[str, Any]) -> None:
    path = Path(kept_services.DIRECTORY, f"{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    fresh.rename(path)


def _conntrack(deletions: Iterable[list[str]]) -> list[str]:
    """Have connections of UDP forgotten that go where nobody is any more; no entry is no error."""
    changes = []
    for arguments in deletions:
        argv = ["conntrack", *arguments]
        done = execute(argv)
        words = done.stderr.decode(errors="replace").strip()
        if done.status == 0:
            changes.append(" ".join(argv))
        elif "0 flow entries" not in words:
            raise CommandError(tuple(argv), words, done.status)
    return changes


def _shortened(changes: list[str]) -> list[str]:
    more = len(changes) - _TOLD
    return [*changes[:_TOLD], f"and {more} lines more"] if more > 0 else changes
