"""Rules with their counters, read from what iptables-save, nft and tc print."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from testbed.packets.packet import Packet
from testbed.verify.trace.matches import Match, of_iptables, of_nftables

__all__ = ["Rule", "iptables", "nftables", "tc"]

_COUNTED = re.compile(r"^\[(\d+):\d+\] -A (\S+) ?(.*)$")
_CHAIN = re.compile(r"^:(\S+) (\S+) \[(\d+):\d+\]$")
_BUILT_IN = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
_DROPPING = frozenset({"DROP", "REJECT"})
_COUNTER = re.compile(r"\s*\bcounter packets (\d+) bytes \d+")
_HOOKED = re.compile(r"type \S+ hook (\S+) .*policy (\S+);")
_MAPPED = re.compile(r"\bmap (\S+) \{[^{}]*elements = \{([^}]*)\}")
_LOOKED_UP = re.compile(r"\bvmap @(\S+)")
_SENT = re.compile(r"\bdropped (\d+),")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, or the policy of a chain."""

    kind: str
    """``iptables``, ``nft`` or ``tc``."""
    table: str
    chain: str
    number: int
    """From 1 within its chain; 0: the chain's policy."""
    text: str
    packets: int | None
    """``None``: it has no counter."""
    drops: bool
    rejects: bool = False
    match: Match = field(default_factory=Match)
    occurrence: int = 0
    """Of equal rules in one chain, which one."""
    hook: str = ""
    """Where the kernel calls its chain, as nft names it, or tc; empty: others lead to it."""

    @property
    def key(self) -> tuple[Any, ...]:
        """The same before and after, also where rules were put before it."""
        return self.kind, self.table, self.chain, not self.number, self.text, self.occurrence

    @property
    def translates(self) -> bool:
        """Whether it gives packets another destination."""
        return any(word in self.text for word in ("-j DNAT", "-j REDIRECT", "dnat ", "redirect"))

    @property
    def hides(self) -> bool:
        """Whether it gives packets another source."""
        return any(
            word in self.text for word in ("-j SNAT", "-j MASQUERADE", "snat ", "masquerade")
        )

    @property
    def is_policy(self) -> bool:
        """Whether it is what a chain does with what no rule decides."""
        return self.number == 0

    @property
    def undo(self) -> str:
        """The command that takes it away; nft wants a handle, so there it takes two."""
        if self.kind == "iptables":
            table = "" if self.table == "filter" else f"-t {self.table} "
            if self.is_policy:
                return f"iptables {table}-P {self.chain} ACCEPT"
            return f"iptables {table}-D {self.chain} {self.text}"
        if self.kind == "tc":
            device, way = self.chain.split()
            preference = re.search(r"\bpref (\d+)", self.text)
            which = f" pref {preference[1]}" if preference else ""
            return f"tc filter del dev {device} {way}{which}"
        if self.is_policy:
            return f"nft chain {self.table} {self.chain} '{{ policy accept; }}'"
        where = f"{self.table} {self.chain}"
        return f"nft delete rule {where} handle N` with the N of `nft -a list chain {where}"

    @property
    def evidence(self) -> str:
        """Where it is, and its text."""
        if self.kind == "tc":
            return f"tc filter show dev {self.chain}: {self.text}"
        tool = "iptables -t" if self.kind == "iptables" else "nft"
        return f"{tool} {self.table}, {self.chain}: {self.text}"

    def may_match(self, forms: Sequence[Packet], interfaces: Collection[str]) -> bool:
        """Whether nothing that it demands, as far as it is understood, excludes every form."""
        return self.match.interfaces(interfaces) and (
            not forms or any(self.match.packet(form) for form in forms)
        )

    def __str__(self) -> str:
        if self.kind == "tc":
            return f"the tc filter on {self.chain} `{self.text}`"
        if self.is_policy:
            return f"the policy DROP of chain {self.chain} in table {self.table}"
        return f"rule {self.number} of {self.chain} in table {self.table} `{self.text}`"


def iptables(text: str) -> Iterator[Rule]:
    """Rules of ``iptables-save -c``."""
    table = ""
    numbers: dict[str, int] = {}
    seen: dict[tuple[str, str, str], int] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table, numbers = line[1:], {}
        elif found := _CHAIN.match(line):
            chain, policy, packets = found.groups()
            yield Rule(
                "iptables",
                table,
                chain,
                0,
                "policy DROP",
                int(packets),
                policy == "DROP",
                hook=chain.lower(),
            )
        elif found := _COUNTED.match(line):
            packets, chain, body = found.groups()
            numbers[chain] = numbers.get(chain, 0) + 1
            key = (table, chain, body)
            seen[key] = seen.get(key, -1) + 1
            words = _words(body)
            target = words[words.index("-j") + 1] if "-j" in words[:-1] else ""
            yield Rule(
                "iptables",
                table,
                chain,
                numbers[chain],
                body,
                int(packets),
                target in _DROPPING,
                target == "REJECT",
                of_iptables(words),
                seen[key],
                chain.lower() if chain in _BUILT_IN else "",
            )


def _words(body: str) -> list[str]:
    try:
        return shlex.split(body)
    except ValueError:
        return body.split()


def nftables(text: str) -> Iterator[Rule]:
    """Rules of ``nft list ruleset``."""
    dropping = {name for name, elements in _MAPPED.findall(text) if _drops(elements)}
    table = chain = hook = ""
    number = 0
    seen: dict[tuple[str, str, str], int] = {}
    for line in (each.strip() for each in text.splitlines()):
        words = line.split()
        if line.startswith("table ") and line.endswith("{"):
            table, chain = " ".join(words[1:-1]), ""
        elif line.startswith("chain ") and line.endswith("{"):
            chain, number, hook = words[1], 0, ""
        elif line == "}":
            chain = hook = ""
        elif chain and (hooked := _HOOKED.match(line)):
            hook = hooked[1]
            if hooked[2] == "drop":
                yield Rule("nft", table, chain, 0, line, None, drops=True, hook=hook)
        elif chain and line and not line.startswith("type "):
            number += 1
            counted = _COUNTER.search(line)
            body = " ".join(_COUNTER.sub("", line).split())
            key = (table, chain, body)
            seen[key] = seen.get(key, -1) + 1
            asked = _LOOKED_UP.search(body)
            drops = _drops(body) or (asked is not None and asked[1] in dropping)
            yield Rule(
                "nft",
                table,
                chain,
                number,
                body,
                int(counted[1]) if counted else None,
                drops,
                "reject" in _verdicts(body),
                of_nftables(body),
                seen[key],
                hook,
            )


def _verdicts(body: str) -> list[str]:
    return re.findall(r"[\w-]+", re.sub(r'"[^"]*"', "", body))


def _drops(body: str) -> bool:
    return not {"drop", "reject"}.isdisjoint(_verdicts(body))


def tc(text: str) -> Iterator[Rule]:
    """Filters of ``tc -s filter show``, each device and direction headed ``dev eth0 ingress``."""
    chain, lines = "", list[str]()
    seen: dict[str, int] = {}
    for line in (*text.splitlines(), "dev"):
        begins = line.startswith("dev"), line.startswith("filter ") and " handle " in line
        if any(begins) and lines:
            yield _filter(chain, lines, seen)
        if begins[0]:
            chain, lines = line.removeprefix("dev").strip(), []
        elif begins[1]:
            lines = [line]
        elif lines and not line.startswith("filter "):
            lines.append(line)


def _filter(chain: str, lines: Sequence[str], seen: dict[str, int]) -> Rule:
    body = "\n".join(lines)
    action = re.search(r"\baction (drop|shot)\b", body)
    demands = [each.strip() for each in lines[1:] if re.match(r"^  \w+ \S+$", each)]
    head = lines[0].removeprefix("filter ")
    text = " ".join([*head.split(), *demands, *(["action drop"] if action else [])])
    occurrence = seen[chain + text] = seen.get(chain + text, -1) + 1
    counted = _SENT.search(body)
    shoots = action is not None or _shoots(head)
    packets = int(counted[1]) if counted and action else None
    way = chain.rpartition(" ")[2]
    return Rule("tc", "", chain, 1, text, packets, shoots, occurrence=occurrence, hook=way)


def _shoots(head: str) -> bool:
    """Whether a BPF program in direct-action mode can return TC_ACT_SHOT (2).

    A classic one is read; of eBPF programs only those of the IP-in-IP driver are known not to.
    """
    if "direct-action" not in head:
        return False
    program = re.search(r"bytecode '([^']*)'", head)
    if program is None:
        return " ipip.bpf.o:[tc/" not in head
    return any(
        each.split()[0] == "6" and each.split()[-1] == "2" for each in program[1].split(",")[1:]
    )
