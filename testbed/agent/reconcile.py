"""Making the kernel hold what the spec says, and nothing more is changed than what differs.

Level-triggered, as Felix's drivers are: the desired state is compared with the kernel's own listing
(``ip -json``, ``bridge -json``, ``iptables-save``), missing objects are created, differing ones
changed, and objects of the previous spec that are no longer wanted are deleted in reverse order.
What testbed did not install is never touched. A second run changes nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import kept_services, rules
from .command import run
from .errors import AgentError, CommandError

__all__ = ["begin", "covers", "reconcile", "write_files"]

_LISTED_BY_IP = ("link", "address", "route", "neighbour")
_FDB_LISTING = ("bridge", "-json", "fdb", "show")
_PHASES = (("link",), ("address", "route", "neighbour", "fdb"))
"""A link that is made anew takes its addresses, neighbours and routes with it: list those later."""

Object = Mapping[str, Any]


def reconcile(
    spec: Mapping[str, Any], previous: Mapping[str, Any] | None = None, *, booting: bool = False
) -> list[str]:
    """Apply files, kernel objects, sysctls and rulesets of a node's spec; return what changed.

    Each line of the result is a file's path, a native command or a ``sysctl`` assignment. At boot
    the rules of kept Services come back first, as the shared ones name their chains.

    Raises:
        AgentError: a native tool refused a line; the message has the line and the tool's words.
    """
    previous = previous or {}
    changes = kept_services.leave(spec["rulesets"])
    changes += write_files(spec["files"], previous.get("files", ()))
    changes += _tunnels(spec, previous)
    wanted = spec["objects"]
    for kinds in _PHASES:
        changes += _ensure([item for item in wanted if item["kind"] in kinds])
    # Last, so that a route that changes its way is never missing in between.
    changes += _remove(_unwanted(wanted, previous.get("objects", ())))
    changes += _sysctls(spec["sysctls"])
    rulesets, before = spec["rulesets"], previous.get("rulesets", ())
    if rulesets or before:
        kept_services.settle(booting)
        with kept_services.locked():
            standing_in = kept_services.standing_in
            changes += _rulesets(standing_in(rulesets), standing_in(before))
    return changes


def begin(spec: Mapping[str, Any], previous: Mapping[str, Any] | None = None) -> None:
    """What :func:`reconcile` does first, for processes that should not wait for the rest: links.

    BIRD gives up a route whose tunnel is not there yet, and never tries it again; a neighbour that
    booted earlier may tell of one as soon as BIRD listens.
    """
    previous = previous or {}
    write_files(spec["files"], previous.get("files", ()))
    _tunnels(spec, previous)
    _ensure([item for item in spec["objects"] if item["kind"] in _PHASES[0]])


def _tunnels(spec: Mapping[str, Any], previous: Mapping[str, Any]) -> list[str]:
    """Devices made of a TUN and programs; imported when a spec first has one."""
    wanted, before = spec.get("tunnels", []), previous.get("tunnels", [])
    if not wanted and not before:
        return []
    from . import ipip

    return ipip.remove(before, wanted) + ipip.ensure(wanted)


def _rulesets(wanted: Iterable[Object], previous: Iterable[Object]) -> list[str]:
    """Each tool's fragments; sets are there before the rules that name them, and go after them."""
    new, old = _by_tool(wanted), _by_tool(previous)
    changes: list[str] = []
    if new["wg"]:
        from . import wireguard

        changes += wireguard.apply(new["wg"])
    if new["ipset"] or old["ipset"]:
        from . import ipsets

        changes += ipsets.apply(new["ipset"])
    changes += rules.apply(new["iptables-restore"], old["iptables-restore"])
    if new["nft"] or old["nft"]:
        from . import nftables

        changes += nftables.static(new["nft"], old["nft"])
    if old["ipset"]:
        changes += ipsets.remove(new["ipset"], old["ipset"])
    return changes


def _by_tool(rulesets: Iterable[Object]) -> dict[str, list[Object]]:
    found: dict[str, list[Object]] = {"wg": [], "ipset": [], "iptables-restore": [], "nft": []}
    for item in rulesets:
        found[item["tool"]].append(item)
    return found


def covers(have: Any, want: Any) -> bool:
    """Whether ``have`` holds all of ``want``: mappings and lists are compared as subsets."""
    if isinstance(want, Mapping):
        return isinstance(have, Mapping) and all(
            name in have and covers(have[name], value) for name, value in want.items()
        )
    if isinstance(want, list):
        return isinstance(have, list) and all(value in have for value in want)
    return bool(have == want)


def write_files(
    wanted: Iterable[Mapping[str, Any]], previous: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Write the files that differ and remove those that were only ``previous``; what changed."""
    changes = []
    paths = set()
    for file in wanted:
        path = Path(file["path"])
        paths.add(file["path"])
        content = file["content"].encode()
        if path.is_file() and path.read_bytes() == content:
            if path.stat().st_mode & 0o7777 != file["mode"]:
                path.chmod(file["mode"])
                changes.append(f"chmod {file['mode']:o} {path}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".testbed-new")
        fresh.write_bytes(content)
        fresh.chmod(file["mode"])
        fresh.rename(path)
        changes.append(f"write {path}")
    for file in previous:
        if file["path"] not in paths and os.path.lexists(file["path"]):
            Path(file["path"]).unlink()
            changes.append(f"remove {file['path']}")
    return changes


def _identity(item: Object) -> str:
    return json.dumps([item["kind"], item["key"]], sort_keys=True)


def _unwanted(wanted: Iterable[Object], previous: Iterable[Object]) -> list[Object]:
    keep = {_identity(item) for item in wanted}
    return [item for item in reversed(list(previous)) if _identity(item) not in keep]


def _remove(items: list[Object]) -> list[str]:
    listing = _list({item["kind"] for item in items})
    present = [item for item in items if _is_ours(_find(item, listing), item)]
    return _run((item["kind"], item["delete"]) for item in present)


def _is_ours(row: Object | None, item: Object) -> bool:
    """Whether a row is what the object made: a route may have another's, BIRD's, in its place."""
    if row is None or item["kind"] != "route":
        return row is not None
    return covers(row, {"protocol": "boot", **item["want"]})  # what `ip route` says if not told


def _ensure(items: list[Object]) -> list[str]:
    listing = _list({item["kind"] for item in items})
    steps: list[tuple[str, list[str]]] = []
    for item in items:
        row = _find(item, listing)
        if row is None:
            steps.append((item["kind"], item["create"]))
        elif not covers(row, item["fixed"]):
            steps.append((item["kind"], [*item["delete"], *item["create"]]))
        elif not covers(row, item["want"]) or _onlink_differs(row, item):
            steps.append((item["kind"], item["change"]))
    return _run(steps)


def _onlink_differs(row: Mapping[str, Any], item: Object) -> bool:
    """A route that must not be onlink, but is: a subset comparison cannot see that."""
    wanted, present = item["want"].get("flags", ()), row.get("flags", ())
    return item["kind"] == "route" and ("onlink" in wanted) != ("onlink" in present)


def _list(kinds: Collection[str]) -> dict[str, list[Mapping[str, Any]]]:
    """What the kernel holds, by kind; one ``ip`` lists everything that it can."""
    wanted = [kind for kind in _LISTED_BY_IP if kind in kinds]
    lines = "".join(f"{kind} show\n" for kind in wanted)
    output = (
        run(["ip", "-json", "-details", "-batch", "-"], stdin=lines.encode()) if wanted else b""
    )
    listing = {
        kind: _flatten(kind, rows)
        for kind, rows in zip(wanted, _arrays(output.decode()), strict=True)
    }
    if "fdb" in kinds:
        listing["fdb"] = _flatten("fdb", json.loads(run(_FDB_LISTING) or b"[]"))
    return listing


def _arrays(text: str) -> Iterator[list[dict[str, Any]]]:
    """The JSON arrays that ``ip -json -batch`` prints one after the other."""
    decoder, at = json.JSONDecoder(), 0
    text = text.strip()
    while at < len(text):
        rows, end = decoder.raw_decode(text, at)
        yield rows
        at = end + len(text[end:]) - len(text[end:].lstrip())


def _flatten(kind: str, rows: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    if kind != "address":
        return [row for row in rows if row]
    return [
        {"ifname": row["ifname"], **address} for row in rows if row for address in row["addr_info"]
    ]


def _find(item: Object, listing: Mapping[str, list[Mapping[str, Any]]]) -> Mapping[str, Any] | None:
    return next((row for row in listing[item["kind"]] if covers(row, item["key"])), None)


def _run(steps: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """Feed the lines to their tools, one process per run of lines of the same tool."""
    changes: list[str] = []
    batch: list[str] = []
    tool = ""
    for kind, lines in steps:
        wanted = "bridge" if kind == "fdb" else "ip"
        if wanted != tool:
            changes += _batch(tool, batch)
            tool, batch = wanted, []
        batch += lines
    return changes + _batch(tool, batch)


def _batch(tool: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    try:
        run([tool, "-batch", "-"], stdin=("\n".join(lines) + "\n").encode())
    except CommandError as error:
        line, words = _explain(lines, error.output)
        raise AgentError(f"{tool} refused a line", f"{tool} {line}", words) from None
    return [f"{tool} {line}" for line in lines]


def _explain(lines: list[str], output: str) -> tuple[str, str]:
    """The failing line and the tool's words; ``ip -batch`` says ``Command failed -:3``."""
    match = re.search(r"Command failed -:(\d+)", output)
    number = int(match[1]) if match else 0
    words = output.splitlines()[0] if output else "no message"
    return lines[number - 1] if 0 < number <= len(lines) else "; ".join(lines), words


def _sysctls(wanted: Mapping[str, str]) -> list[str]:
    changes = []
    for name, value in wanted.items():
        # sysctl(8) writes a dot inside a name as a slash: net.ipv6.conf.flannel/1.accept_ra
        path = Path("/proc/sys") / name.translate(str.maketrans("./", "/."))
        if name.startswith("net.ipv6.") and not Path("/proc/sys/net/ipv6").exists():
            continue  # a kernel without IPv6 needs no protection from router advertisements
        try:
            if path.read_text().split() == value.split():
                continue
            path.write_text(value)
        except OSError as error:
            raise AgentError(
                f"sysctl {name}={value} refused", str(path), str(error.strerror)
            ) from None
        changes.append(f"sysctl {name}={value}")
    return changes
