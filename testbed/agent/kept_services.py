"""What a node keeps of its Services, as far as PID 1 has to know: no megabytes, and the lock.

``testbed-agent services`` (:mod:`.services`) applies Services in a process of its own, which ends.
PID 1 applies the rest of the node's rules. Both rewrite the jumps of built-in chains, so they take
turns, and where Services were applied, their shared part stands in for the spec's static ruleset
``kube-proxy``, which is the same without Services: a sync must not empty ``KUBE-SERVICES``.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .command import execute, run

__all__ = [
    "CANARY",
    "DIRECTORY",
    "LOCK",
    "STATIC",
    "fits",
    "intact",
    "leave",
    "locked",
    "processes",
    "read",
    "settle",
    "standing_in",
]

DIRECTORY = "/var/lib/testbed/services"
LOCK = "/run/testbed/network.lock"
STATIC = "kube-proxy"
"""The name of the spec's rulesets that are kube-proxy's."""
CANARY = "KUBE-PROXY-CANARY"
"""An empty chain of kube-proxy's; where it is gone, somebody flushed the table."""
TOOLS = {"iptables": "iptables-restore", "ipset": "ipset", "nft": "nft"}
"""Key of a unit → tool of a ruleset."""

_FORGET = ("testbed-agent", "services", "--forget")
_RESTORE = ("testbed-agent", "services", "--restore")

Ruleset = Mapping[str, Any]


@contextmanager
def locked() -> Iterator[None]:
    """Hold the lock of the node's rulesets."""
    path = Path(LOCK)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read(name: str) -> dict[str, Any]:
    """The content of one of the kept files; empty where there is none."""
    try:
        content = json.loads(Path(DIRECTORY, f"{name}.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def processes() -> list[dict[str, Any]]:
    """The daemons that belong to Services."""
    found: list[dict[str, Any]] = read("state").get("processes", [])
    return found


def fits(rulesets: Iterable[Ruleset]) -> bool:
    """Whether what is kept is of the mode of a spec: it is if the same tools are fed."""
    static = {item["tool"] for item in rulesets if item["name"] == STATIC}
    return static == {TOOLS[key] for key in read("dispatch") if key in TOOLS}


def intact() -> bool:
    """Whether nobody flushed the tables of what is kept."""
    dispatch = read("dispatch")
    if "nft" in dispatch:
        # Listing anything reads every rule; trying to add to the table takes milliseconds.
        return execute(["nft", "--check", "add", "chain", "ip", STATIC, "services"]).status == 0
    table = ""
    for line in dispatch.get("iptables", "").splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(f":{CANARY} "):
            argv = ["iptables", "--wait", "-t", table, "-S", CANARY]
            if execute(argv).status:
                return False
    return True


def leave(rulesets: Iterable[Ruleset]) -> list[str]:
    """Remove Services of another mode than the spec's, while the devices that they need are there.

    Raises:
        CommandError: it could not be done; the message has the reason.
    """
    state = read("state")
    if not state or fits(rulesets):
        return []
    run(_FORGET)
    return [f"remove the Services of mode {state['mode']}"]


def settle(booting: bool) -> None:
    """Before rules are applied that name those of Services: put back what is gone of them.

    Raises:
        CommandError: it could not be done; the message has the reason.
    """
    state = read("state")
    if state and (booting or not state["generation"] or not intact()):
        run(_RESTORE)


def standing_in(rulesets: Iterable[Ruleset]) -> list[Ruleset]:
    """The rulesets of a spec with what is kept in the place of the static ones, if it fits.

    Those of nftables are a table of their own, with nothing that others have a part in.
    """
    rulesets = list(rulesets)
    dispatch = read("dispatch")
    if not dispatch or not fits(rulesets):
        return rulesets
    contents = {TOOLS[key]: content for key, content in dispatch.items() if key in TOOLS}
    return [
        {**item, "content": contents[item["tool"]]} if item["name"] == STATIC else item
        for item in rulesets
        if item["name"] != STATIC or item["tool"] != "nft"
    ]
