"""What a node's native tools say at one moment, as texts for people.

Every text is what one would have typed, each answer below its command. Commands that do not apply
to a node (BIRD does not run, there are no legacy tables) are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .bird import SOCKET
from .command import execute
from .errors import AgentError

__all__ = ["COMMANDS", "texts"]

_SECONDS = 5.0
_AT_ONCE = 4
_STATE = Path("/var/lib/testbed/state.json")
_SYSCTLS = Path("/proc/sys/net")
_PER_INTERFACE = "arp_ignore", "forwarding", "proxy_arp", "rp_filter", "send_redirects"
_LEGACY = Path("/proc/net/ip_tables_names")

COMMANDS: dict[str, tuple[str, ...]] = {
    "links.txt": ("ip -s -d link", "ip address", "bridge -d link", "tc -s qdisc"),
    "routes.txt": ("ip rule", "ip route show table all", "ip -6 route show table all"),
    "neighbours.txt": ("ip -s neighbour",),
    "fdb.txt": ("bridge -s fdb",),
    "rules.txt": (
        "iptables-save -c",
        "ip6tables-save -c",
        "iptables-legacy-save -c",
        "nft list ruleset",
        "ipset list",
    ),
    "conntrack.txt": ("conntrack -L", "conntrack -S"),
    "sockets.txt": ("ss -a -n -p -t -u -w",),
    "counters.txt": ("nstat -a -s",),
    "processes.txt": ("ps -e -o pid,ppid,stat,etime,args",),
    "bird.txt": (f"birdc -s {SOCKET} show protocols all", f"birdc -s {SOCKET} show route all"),
}
"""File name → commands."""


def texts() -> dict[str, str]:
    """File name → text."""
    wanted = {name: [c for c in commands if _applies(c)] for name, commands in COMMANDS.items()}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = {
            name: [pool.submit(_answer, command.split()) for command in commands]
            for name, commands in wanted.items()
            if commands
        }
        filters = pool.submit(_filters)
        found = {
            name: "\n".join(answer.result() for answer in several)
            for name, several in answers.items()
        }
    if filters.result():
        found["filters.txt"] = filters.result()
    found["sysctls.txt"] = _sysctls()
    if _STATE.exists():
        found["agent-state.json"] = _STATE.read_text(errors="replace")
    return found


def _applies(command: str) -> bool:
    if command.startswith("birdc"):
        return Path(SOCKET).exists()
    if command.startswith("iptables-legacy"):
        try:
            return bool(_LEGACY.read_text().strip())
        except OSError:
            return False
    return True


def _answer(argv: Sequence[str]) -> str:
    """What a command prints, below its own words."""
    head = f"$ {' '.join(argv)}\n"
    try:
        done = execute(argv, timeout=_SECONDS)
    except (AgentError, OSError) as error:
        return f"{head}{error}\n"
    status = f"exit status {done.status}\n" if done.status else ""
    return head + (done.stdout + done.stderr).decode(errors="replace") + status


def _filters() -> str:
    """The programs and filters of every interface that has any."""
    qdiscs = execute(["tc", "qdisc"], timeout=_SECONDS).stdout.decode(errors="replace")
    devices = re.findall(r"^qdisc clsact \S+ dev (\S+)", qdiscs, re.MULTILINE)
    return "\n".join(
        _answer(["tc", "-s", "filter", "show", "dev", device, side])
        for device in devices
        for side in ("ingress", "egress")
    )


def _sysctls() -> str:
    """Those that decide whether a packet is forwarded, answered or dropped."""
    per_interface = [
        path
        for family in ("ipv4", "ipv6")
        for path in (_SYSCTLS / family).glob("conf/*/*")
        if path.name in _PER_INTERFACE
    ]
    general = [_SYSCTLS / "ipv4/ip_forward", *_SYSCTLS.glob("bridge/bridge-nf-*")]
    lines = []
    for path in [*general, *sorted(per_interface)]:
        try:
            value = path.read_text().strip()
        except OSError:
            continue
        lines.append(f"{path.relative_to('/proc/sys')} = {value}\n")
    return "".join(lines)
