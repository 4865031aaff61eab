"""What the kernel says of a network namespace: its links, routes, rules, counters and more.

Read before and after a packet dies, the difference says why. Few processes, all at once: a node's
facts take some 20 ms, of which a process is two to five.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .netns import entered

__all__ = ["counters", "documents", "foreign_tables", "read", "read_all"]

PROC = "/proc/thread-self/net"
"""Of the namespace in which the reading thread is, as is everything in ``/proc/sys/net``."""
SYSCTLS = "/proc/sys"
_SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.ipv4.icmp_echo_ignore_all",
    "net.bridge.bridge-nf-call-iptables",
)
_OF_INTERFACE = ("forwarding", "rp_filter", "proxy_arp", "accept_local")
_SECONDS = 5.0

_IP = ("ip", "-force", "-json", "-details", "-statistics", "-batch", "-")
_ASKED = {"links": "address", "routes": "route show table all", "rules": "rule"} | {
    "neighbours": "neigh"
}
"""One process answers them all, each with a line of JSON."""
_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "ip": _IP,
    "fdb": ("bridge", "-json", "-statistics", "fdb"),
    "qdiscs": ("tc", "-statistics", "-json", "qdisc"),
    "nft": ("nft", "list", "ruleset"),
    "iptables": ("iptables-save", "-c"),
}
_LEGACY = ("iptables-legacy-save", "-c")
_IPVS = ("ipvsadm", "--save", "--numeric")
_IPVS_HEADER = 3
"""Lines of ``/proc/net/ip_vs`` where there are no virtual servers."""
_OWNED = re.compile(r"table (\S+) (\S+) is managed by iptables-nft")
_TABLE = re.compile(r"^table (\S+) (\S+) \{.*?^\}\n?", re.MULTILINE | re.DOTALL)


def read(path: str | None = None) -> dict[str, Any]:
    """The facts of the network namespace pinned at ``path``; ``None`` is the one of this thread.

    They are

    - ``links`` and ``addresses`` (both of ``ip -d -s addr``), ``routes`` (of all tables),
      ``rules``, ``neighbours``, ``fdb`` and ``qdiscs`` (of ``tc -s qdisc``), as iproute2 writes
      them in JSON;
    - ``sysctls``: name, as sysctl(8) writes it (``net.ipv4.conf.flannel/1.rp_filter``) → text;
    - ``counters``: ``TcpExt.IPReversePathFilter`` and the like → number;
    - ``iptables`` and ``iptables_legacy`` (of ``iptables-save -c``), ``nft`` (tables that are not
      iptables-nft's), ``filters`` (of ``tc -s filter show``): text, empty where there is none;
    - ``ipvs`` (of ``ipvsadm --save``): text, empty where there are no virtual servers;
    - ``conntrack``: lines as of ``/proc/net/nf_conntrack``;
    - ``problems``: what could not be read, and why.

    A namespace that is gone has empty ones but for ``problems``.
    """
    return read_all([path])[0]


def read_all(paths: Iterable[str | None]) -> list[dict[str, Any]]:
    """:func:`read` of several namespaces at once."""
    return [reading.finish() for reading in [_Reading(path) for path in paths]]


class _Reading:
    """The facts of one namespace under way: its commands run while others are begun."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._facts: dict[str, Any] = {"sysctls": {}, "counters": {}, "conntrack": []}
        self._facts["problems"] = []
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        try:
            with entered(path):
                self._begin()
        except OSError as error:
            self._facts["problems"].append(f"{path}: {error.strerror}")

    def _begin(self) -> None:
        commands = dict(_COMMANDS)
        if _text(f"{PROC}/ip_tables_names"):  # the module may be there without any table
            commands["iptables_legacy"] = _LEGACY
        # longer than a page, it lacks some, if other namespaces have virtual servers as well
        if len(_text(f"{PROC}/ip_vs").splitlines()) > _IPVS_HEADER:
            commands["ipvs"] = _IPVS
        for name, command in commands.items():
            self._start(name, command)
        self._facts["sysctls"] = _sysctls()
        self._facts["counters"] = counters(_text(f"{PROC}/netstat") + _text(f"{PROC}/snmp"))
        self._facts["conntrack"] = _text(f"{PROC}/nf_conntrack").splitlines()

    def _start(self, name: str, command: tuple[str, ...]) -> None:
        pipe = subprocess.PIPE
        try:
            self._running[name] = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as error:
            self._facts["problems"].append(f"{name}: {error.strerror}")

    def finish(self) -> dict[str, Any]:
        """Wait for the commands; the facts."""
        asked = "".join(f"{command}\n" for command in _ASKED.values()).encode()
        said: dict[str, str] = dict.fromkeys((*_COMMANDS, "iptables_legacy", "ipvs"), "")
        errors: dict[str, str] = {}
        for name, process in self._running.items():
            said[name], errors[name] = self._answer(name, process, asked if name == "ip" else b"")
        answers = dict(zip(_ASKED, documents(said.pop("ip")), strict=False))
        facts: dict[str, Any] = {name: answers.get(name, []) for name in _ASKED}
        facts["addresses"] = facts["links"]
        facts["fdb"] = next(documents(said.pop("fdb")), [])
        facts["qdiscs"] = next(documents(said.pop("qdiscs")), [])
        facts["filters"] = self._filters(facts["qdiscs"])
        facts["nft"] = foreign_tables(said.pop("nft"), errors.get("nft", ""))
        return self._facts | facts | said

    def _answer(
        self, name: str, process: subprocess.Popen[bytes], asked: bytes = b""
    ) -> tuple[str, str]:
        with process:
            try:
                out, err = process.communicate(asked, _SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
        words = err.decode(errors="replace")
        if process.returncode:
            self._facts["problems"].append(f"{name}: {words.strip() or process.returncode}")
        return out.decode(errors="replace"), words

    def _filters(self, qdiscs: list[dict[str, Any]]) -> str:
        """The filters of devices that can have any on their way in or out."""
        devices = dict.fromkeys(
            qdisc["dev"] for qdisc in qdiscs if qdisc.get("kind") in ("clsact", "ingress")
        )
        if not devices:
            return ""
        begun = [(device, way) for device in devices for way in ("ingress", "egress")]
        try:
            with entered(self._path):
                for device, way in begun:
                    command = ("tc", "-statistics", "filter", "show", "dev", device, way)
                    self._start(f"{device} {way}", command)
        except OSError:
            return ""
        texts = []
        for device, way in begun:
            process = self._running.get(f"{device} {way}")
            text = self._answer("tc filter", process)[0] if process else ""
            texts.append(f"dev {device} {way}\n{text}" if text else "")
        return "".join(texts)


def documents(text: str) -> Iterator[Any]:
    """The JSON documents that follow each other in ``text``, up to what is none."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        try:
            document, end = decoder.raw_decode(text)
        except ValueError:
            return
        yield document
        text = text[end:]


def foreign_tables(ruleset: str, warnings: str) -> str:
    """What is not iptables' own of an ``nft list ruleset``, by the warnings that came with it.

    ebtables' and arptables' own tables are in it: nothing else here reads them.
    """
    owned = {each for each in _OWNED.findall(warnings) if each[0] in ("ip", "ip6")}
    tables = _TABLE.finditer(ruleset)
    return "".join(table[0] for table in tables if (table[1], table[2]) not in owned)


def counters(text: str) -> dict[str, int]:
    """``Group.Name`` → number, of ``/proc/net/snmp`` or ``netstat``: lines of names and numbers."""
    found: dict[str, int] = {}
    lines = text.splitlines()
    for names, numbers in zip(lines[::2], lines[1::2], strict=False):
        group, *words = names.split()
        found |= {
            f"{group}{word}".replace(":", ".", 1): int(number)
            for word, number in zip(words, numbers.split()[1:], strict=False)
        }
    return found


def _sysctls() -> dict[str, str]:
    names = {name: name.replace(".", "/") for name in _SYSCTLS}
    try:
        interfaces = os.listdir(f"{SYSCTLS}/net/ipv4/conf")  # noqa: PTH208 - names are enough
    except OSError:
        interfaces = []
    for interface in interfaces:
        prefix = f"net.ipv4.conf.{interface.replace('.', '/')}"
        names |= {f"{prefix}.{each}": f"net/ipv4/conf/{interface}/{each}" for each in _OF_INTERFACE}
    values = {name: _text(f"{SYSCTLS}/{path}").strip() for name, path in names.items()}
    return {name: value for name, value in values.items() if value}


def _text(path: str) -> str:
    """The content of a file, empty where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
