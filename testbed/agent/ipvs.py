"""Virtual servers of the kernel's IP Virtual Server, and the addresses of ``kube-ipvs0``.

The kernel is read whenever there is something to do: only it knows how many connections a server
has, and which servers it still holds for them. A TCP server that is removed while it has any gets
weight 0 instead, as kube-proxy's graceful termination does, so that established connections go on
and no new one is made; the next call that has something to do after the last connection ended
removes it (kube-proxy looks once a minute). UDP and SCTP servers go at once.

A virtual server for ``0.0.0.0`` stands for one per address of the node, which is where kube-proxy
has node ports answer: all but loopback's and those of Services. Of these, ``kube-ipvs0`` has every
one, also where an announcer puts it on another link as well: it may go from there at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, NamedTuple

from .command import execute, run
from .errors import AgentError, CommandError

__all__ = ["DEVICE", "Virtual", "apply", "difference", "parse", "render"]

DEVICE = "kube-ipvs0"
_EVERY = "0.0.0.0:"
_DRAINING = "-m -w 0"
_PROTOCOLS = {"TCP": "-t", "UDP": "-u", "SCTP": "--sctp-service"}
_FORWARDING = {"Masq": "-m", "Local": "-m", "Route": "-g", "Tunnel": "-i"}
"""``Local`` is how the kernel lists a server whose address is the node's own."""

Units = Mapping[str, Mapping[str, Any]]


class Virtual(NamedTuple):
    """One virtual server as the kernel has it."""

    flags: str
    servers: dict[str, str]
    """``10.244.0.5:80`` → ``-m -w 1``."""
    busy: frozenset[str]
    """The servers that have connections, also ended ones that the kernel still remembers."""


class _Addresses(NamedTuple):
    bound: frozenset[str]
    """Those of ``kube-ipvs0``."""
    others: frozenset[str]


def parse(text: str) -> dict[str, Virtual]:
    """Read ``ipvsadm --list --numeric``; the keys are spelled as ``ipvsadm --save`` does."""
    found: dict[str, Virtual] = {}
    servers: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in _PROTOCOLS:
            servers = {}
            key = f"{_PROTOCOLS[words[0]]} {words[1]}"
            found[key] = Virtual(_flags(words[2:]), servers, frozenset())
        elif words[:1] == ["->"] and found:
            servers[words[1]] = f"{_FORWARDING.get(words[2], words[2])} -w {words[3]}"
            if words[4:6] != ["0", "0"]:
                found[key] = found[key]._replace(busy=found[key].busy | {words[1]})
    return found


def _flags(words: list[str]) -> str:
    """``rr persistent 10800`` as ``-s rr -p 10800``."""
    persistent = f" -p {words[2]}" if words[1:2] == ["persistent"] else ""
    return f"-s {words[0]}{persistent}"


def difference(wanted: Mapping[str, Mapping[str, Any]], have: Mapping[str, Virtual]) -> list[str]:
    """What ``ipvsadm --restore`` must read; a server's replacement is there before it goes."""
    lines: list[str] = []
    for key, virtual in wanted.items():
        present = have.get(key)
        if present is None:
            lines += _created(key, virtual)
        else:
            lines += _changed(key, virtual, present)
    lines += [f"-D {key}" for key in have if key not in wanted]
    return lines


def _created(key: str, virtual: Mapping[str, Any]) -> Iterator[str]:
    yield f"-A {key} {virtual['flags']}"
    for server, options in virtual["servers"].items():
        yield f"-a {key} -r {server} {options}"


def _changed(key: str, virtual: Mapping[str, Any], present: Virtual) -> Iterator[str]:
    if virtual["flags"] != present.flags:
        yield f"-E {key} {virtual['flags']}"
    for server, options in virtual["servers"].items():
        if server not in present.servers:
            yield f"-a {key} -r {server} {options}"
        elif options != present.servers[server]:
            yield f"-e {key} -r {server} {options}"
    for server, options in present.servers.items():
        if server in virtual["servers"]:
            continue
        if server not in present.busy or not key.startswith("-t "):
            yield f"-d {key} -r {server}"
        elif options != _DRAINING:
            yield f"-e {key} -r {server} {_DRAINING}"


def render(units: Units) -> str:
    """All virtual servers of ``units`` for ``ipvsadm --restore``, to be read by people."""
    lines = [line for key, each in _wanted(units.values()).items() for line in _created(key, each)]
    return "".join(f"{line}\n" for line in lines)


def _wanted(units: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {key: each for unit in units for key, each in unit.get("ipvs", {}).items()}


def _expanded(
    virtuals: Mapping[str, Mapping[str, Any]], addresses: Iterable[str]
) -> dict[str, Mapping[str, Any]]:
    """Those for every address, once for each."""
    found: dict[str, Mapping[str, Any]] = {}
    own = sorted(addresses)
    for key, virtual in virtuals.items():
        protocol, _, where = key.partition(" ")
        if where.startswith(_EVERY):
            port = where.removeprefix(_EVERY)
            found |= {f"{protocol} {address}:{port}": virtual for address in own}
        else:
            found[key] = virtual
    return found


def apply(before: Units, now: Units) -> list[str]:
    """Make the kernel hold the virtual servers and addresses of ``now``; return what was done.

    Both are complete: what the kernel has and ``now`` has not is removed. A new address appears
    when its virtual servers have their servers.

    Raises:
        AgentError: ``ipvsadm`` or ``ip`` refused a line.
    """
    if not any("ipvs" in unit for units in (before, now) for unit in units.values()):
        return []
    addresses = _addresses()
    wanted = {str(each) for unit in now.values() for each in unit.get("addresses", ())}
    virtuals = _expanded(_wanted(now.values()), addresses.others - wanted)
    have = parse(run(["ipvsadm", "--list", "--numeric"]).decode())
    return _restore(difference(virtuals, have)) + _bind(wanted, addresses.bound)


def _addresses() -> _Addresses:
    """The node's IPv4 addresses, without loopback's."""
    bound: set[str] = set()
    others: set[str] = set()
    for link in json.loads(run(["ip", "-json", "-4", "address", "show"]) or b"[]"):
        for each in link.get("addr_info", ()):
            if "local" in each and not each["local"].startswith("127."):
                (bound if link["ifname"] == DEVICE else others).add(each["local"])
    return _Addresses(frozenset(bound), frozenset(others))


def _bind(wanted: Set[str], bound: Set[str]) -> list[str]:
    lines = [f"address add {each}/32 dev {DEVICE}" for each in sorted(wanted - bound)]
    lines += [f"address delete {each}/32 dev {DEVICE}" for each in sorted(bound - wanted)]
    if lines:
        text = "\n".join(lines) + "\n"
        try:
            run(["ip", "-batch", "-"], stdin=text.encode())
        except CommandError as error:
            raise AgentError("ip refused the addresses of Services", text, error.output) from None
    return [f"ip {line}" for line in lines]


def _restore(lines: list[str]) -> list[str]:
    """Feed ``ipvsadm --restore``: it goes on after a line that fails, and says so only in words."""
    if not lines:
        return []
    text = "\n".join(lines) + "\n"
    try:
        answer = execute(["ipvsadm", "--restore"], stdin=text.encode())
    except OSError as error:
        raise AgentError("ipvsadm did not start", "ipvsadm --restore", str(error)) from None
    words = (answer.stderr + answer.stdout).decode(errors="replace").strip()
    if answer.status or words:
        raise AgentError("ipvsadm --restore refused the virtual servers", text, words)
    return [f"ipvsadm {line}" for line in lines]
