"""What running nodes tell when they are asked one by one: ``testbed status -v``.

IP-in-IP counters where eBPF programs make the tunnel (the kernel's own are in ``ip -s link``), the
daemons that the agent supervises, and BIRD's sessions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from testbed.errors import NodeError
from testbed.node.container import run
from testbed.node.creation import Listing
from testbed.node.parallel import each
from testbed.topology.model import Cluster

if TYPE_CHECKING:
    import docker

__all__ = ["read", "sessions"]

_COUNTERS = ["testbed-agent", "ipip", "-o", "json"]
_SESSIONS = ["birdc", "-s", "/var/run/calico/bird.ctl", "show", "protocols"]
_SESSION_KEYS = ("name", "proto", "table", "state", "since", "info")


def read(
    client: docker.DockerClient,
    cluster: Cluster,
    listings: Mapping[str, Listing],
    states: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The keys that ``status -v -o json`` adds; ``errors`` says what a node did not answer."""
    running = {name: item for name, item in listings.items() if item["State"] == "running"}
    processes = {name: states.get(name, {}).get("processes") or [] for name in running}
    speakers = {
        name: running[name]
        for name, known in processes.items()
        if any(process["name"] == "bird" for process in known)
    }
    by_ebpf = cluster.backend.type == "ipip" and cluster.ipip == "ebpf"
    nodes = {node.name for node in cluster.nodes if by_ebpf}
    tunnels = {name: item for name, item in running.items() if name in nodes}
    errors: list[str] = []
    counters = _ask(client, tunnels, _COUNTERS, errors)
    bgp = _ask(client, speakers, _SESSIONS, errors)
    return {
        "ipip_counters": {name: json.loads(text)["counters"] for name, text in counters.items()},
        "processes": {name: known for name, known in processes.items() if known},
        "bgp": {name: sessions(text) for name, text in bgp.items()},
        "errors": errors,
    }


def _ask(
    client: docker.DockerClient, nodes: Mapping[str, Listing], argv: list[str], errors: list[str]
) -> dict[str, str]:
    """What ``argv`` prints on each of these nodes; what went wrong is added to ``errors``."""

    def answer(item: tuple[str, Listing]) -> str | None:
        name, listing = item
        try:
            code, out, err = run(client, listing["Id"], argv)
        except NodeError as error:
            errors.append(f"{name}: {error}")
            return None
        if code:
            words = (err or out).decode(errors="replace").strip()
            errors.append(f"{name}: `{' '.join(argv)}` failed ({code}): {words}")
            return None
        return out.decode(errors="replace")

    answers = zip(nodes, each(answer, nodes.items()), strict=True)
    return {name: text for name, text in answers if text is not None}


def sessions(text: str) -> list[dict[str, str]]:
    """The rows of ``birdc show protocols``, by its headings in lower case."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("Name "):
            break
    rows = (line.split(maxsplit=len(_SESSION_KEYS) - 1) for line in lines)
    return [
        dict(zip(_SESSION_KEYS, [*(word.strip() for word in row), "", ""], strict=False))
        for row in rows
        if len(row) >= len(_SESSION_KEYS) - 1
    ]
