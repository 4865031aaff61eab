"""IP-in-IP tunnels on kernels without the ipip driver: a TUN that passes for ``tunl0``, and tc.

Two programs (``ipip.bpf.c`` in the image) do the work: one on the device's egress encapsulates what
routes send there, one on the uplink's ingress decapsulates. The agent holds the TUN (``tun.py``).

The device looks like the driver's: type 768, MTU, routes, captures. Its own counters stay 0, those
of the programs count (:func:`counters`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import bpf
from .command import run
from .errors import AgentError
from .tun import INDEX, Device

__all__ = ["COUNTERS", "attached", "counters", "ensure", "main", "remove", "report"]

OBJECT = "/usr/lib/testbed/bpf/ipip.bpf.o"
COUNTERS = (
    "tx_packets",
    "tx_bytes",
    "tx_mirrored",
    "tx_frag_needed",
    "tx_not_ipv4",
    "tx_no_route",
    "tx_no_remote",
    "tx_loop",
    "tx_errors",
    "rx_packets",
    "rx_bytes",
    "rx_to_stack",
    "rx_fragments",
    "rx_malformed",
    "rx_ecn",
    "rx_errors",
)
"""What the programs count, in the map's order."""

_ASIDE = "-kernel"

Tunnel = Mapping[str, str]

_held: dict[str, Device] = {}


def ensure(tunnels: Iterable[Tunnel]) -> list[str]:
    """Make, hold and program the devices; return what changed, nothing the second time.

    Args:
        tunnels: at most one, with its ``name`` and ``uplink``.

    Raises:
        AgentError: the kernel refused the device, or a tool a line.
    """
    changes = []
    for tunnel in tunnels:
        name, uplink = tunnel["name"], tunnel["uplink"]
        changes += _hold(name)
        changes += _sysctls(name)
        programs = _held[name].programs
        changes += _attach(programs, name, "egress", "tc/encapsulate")
        changes += _attach(programs, uplink, "ingress", "tc/decapsulate")
    return changes


def _hold(name: str) -> list[str]:
    changes = []
    for other in [*_held]:
        if not other == _held[other].current_name() == name:
            changes += _let_go(other)
    if name in _held:
        return changes
    if _exists(name) and not Path("/sys/class/net", name, "tun_flags").exists():
        changes += _set_aside(name)
    _held[name] = Device(name)
    return [*changes, f"hold {name} (IP-in-IP by eBPF)"]


def _exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _let_go(name: str) -> list[str]:
    """Delete the device; the kernel's own, which it replaced, gets its name back.

    One that somebody renamed goes too: it would keep the index.
    """
    current = name
    if name in _held:
        current = _held[name].current_name() or name
        _held.pop(name).close()
    lines = [f"link delete {current}"] if _exists(current) else []
    if _exists(f"{name}{_ASIDE}"):
        lines.append(f"link set {name}{_ASIDE} name {name}")
    return [_ip(line) for line in lines]


def _set_aside(name: str) -> list[str]:
    """Rename a device of the kernel's driver: its ``tunl0`` cannot be deleted."""
    lines = [f"link set {name} down", f"link set {name} name {name}{_ASIDE}"]
    return [_ip(line) for line in lines]


def _ip(line: str) -> str:
    run(["ip", *line.split()])
    return f"ip {line}"


def _sysctls(name: str) -> list[str]:
    """Forwarding, also on ``lo``: as if from there the programs look up the remote's route."""
    wanted = {
        f"net/ipv6/conf/{name}/disable_ipv6": "1",
        f"net/ipv4/conf/{name}/forwarding": "1",
        "net/ipv4/conf/lo/forwarding": "1",
    }
    changes = []
    for key, value in wanted.items():
        path = Path("/proc/sys", key)
        if not path.exists() or path.read_text(encoding="ascii").strip() == value:
            continue
        path.write_text(value, encoding="ascii")
        changes.append(f"sysctl {key}={value}")
    return changes


def _attach(programs: dict[str, int], device: str, direction: str, section: str) -> list[str]:
    """Attach a program, unless the one that was attached before is still there."""
    key = f"{device} {direction}"
    if programs.get(key) in attached(device, direction).values():
        return []
    changes = []
    if not _has_clsact(device):
        changes.append(["tc", "qdisc", "add", "dev", device, "clsact"])
    where = ["dev", device, direction, "prio", "1", "handle", "1"]
    what = ["bpf", "direct-action", "object-file", OBJECT, "section", section]
    changes.append(["tc", "filter", "replace", *where, *what])
    for argv in changes:
        run(argv)
    [programs[key]] = attached(device, direction).values()
    return [" ".join(argv) for argv in changes]


def _has_clsact(device: str) -> bool:
    rows = _tc("qdisc", "show", "dev", device)
    return any(row["kind"] == "clsact" for row in rows)


def _tc(*words: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(run(["tc", "-json", *words]) or b"[]")
    return rows


def attached(device: str, direction: str) -> dict[str, int]:
    """The tunnel's programs at a device: name, as the kernel shortens it → ID."""
    rows = _tc("filter", "show", "dev", device, direction)
    programs = [row["options"]["prog"] for row in rows if row.get("options", {}).get("prog")]
    return {each["name"]: each["id"] for each in programs if each["name"].startswith("ipip_")}


def remove(previous: Iterable[Tunnel], wanted: Sequence[Tunnel]) -> list[str]:
    """Delete devices of the previous spec that are no longer wanted, and their uplinks' programs.

    Raises:
        AgentError: a tool refused.
    """
    changes = []
    names, uplinks = ({each[key] for each in wanted} for key in ("name", "uplink"))
    for tunnel in previous:
        name, uplink = tunnel["name"], tunnel["uplink"]
        if name not in names:
            changes += _let_go(name)
        here = (uplink, "ingress") in _ends()
        if here and uplink not in uplinks and attached(uplink, "ingress"):
            argv = ["tc", "filter", "delete", "dev", uplink, "ingress", "prio", "1"]
            run(argv)
            changes.append(" ".join(argv))
    return changes


def counters() -> dict[str, int]:
    """What the programs of this node's tunnel counted, by the names of :data:`COUNTERS`.

    Raises:
        AgentError: the kernel refused.
    """
    totals = [0] * len(COUNTERS)
    for device, direction in _ends():
        for program in attached(device, direction).values():
            totals = [*map(sum, zip(totals, bpf.read_array(program, "counters"), strict=True))]
    return dict(zip(COUNTERS, totals, strict=True))


def _ends() -> list[tuple[str, str]]:
    devices = [row["dev"] for row in _tc("qdisc", "show") if row["kind"] == "clsact"]
    return [(device, direction) for device in devices for direction in ("egress", "ingress")]


def report() -> dict[str, Any]:
    """The node's IP-in-IP ``device``, its ``driver`` (``ebpf``, ``kernel``), uplink and counters.

    ``uplink`` is empty for the kernel's driver: routes decide for every packet.

    Raises:
        AgentError: there is no such device that is up.
    """
    rows = json.loads(run(["ip", "-json", "-details", "-statistics", "link", "show", "up"]))
    for row in filter(None, rows):
        kind = row.get("linkinfo", {}).get("info_kind")
        if kind == "tun" and row["ifindex"] == INDEX:
            ends = [device for device, direction in _ends() if direction == "ingress"]
            uplinks = [device for device in ends if attached(device, "ingress")]
            found = ("ebpf", "".join(uplinks[:1]), counters())
        elif kind == "ipip":
            found = ("kernel", "", _interface_counters(row["stats64"]))
        else:
            continue
        driver, uplink, counted = found
        return {"driver": driver, "device": row["ifname"], "uplink": uplink, "counters": counted}
    raise AgentError("no IP-in-IP device is up on this node")


def _interface_counters(stats: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {f"{way}_{name}": n for way in ("tx", "rx") for name, n in stats[way].items()}


def main(arguments: list[str]) -> int:
    """``testbed-agent ipip [-o json]``: show :func:`report`.

    Raises:
        AgentError: there is nothing to show (exit status 1).
    """
    if arguments not in ([], ["-o", "json"]):
        sys.stderr.write("usage: testbed-agent ipip [-o json]\n")
        return 2
    found = report()
    if arguments:
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    counted = found.pop("counters")
    rows = [*found.items(), *counted.items()]
    width = max(len(name) for name, _ in rows)
    sys.stdout.write("".join(f"{name:{width}}  {value or '-'}\n" for name, value in found.items()))
    sys.stdout.write("".join(f"{name:{width}}  {value}\n" for name, value in counted.items()))
    return 0
