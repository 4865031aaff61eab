"""Rules as Felix thinks of them, and the hashes by which it finds them again.

Felix writes ``--jump`` and ``--in-interface`` where ``iptables-save`` prints ``-j`` and ``-i``, and
its hashes are over its own spelling. So every piece of a rule knows both. The construction is that
of ``felix/generictables`` (``RuleHashes``); the tests hold it against a real node's dump.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha224, sha256

__all__ = [
    "ACCEPT",
    "DROP",
    "NOTRACK",
    "RETURN",
    "Piece",
    "Rule",
    "Table",
    "clear_mark",
    "from_set",
    "goto",
    "hashes",
    "in_interface",
    "jump",
    "limited",
    "mark",
    "out_interface",
    "protocol",
    "render",
    "set_mark",
    "state",
    "to_set",
]

_HASH_LENGTH = 16
_APPENDS = "*appends*"
"""What Felix adds to a chain's name when it hashes the rules it appends there."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One match or the action of a rule, in both spellings."""

    felix: str
    option: str = ""
    """What ``iptables-save`` prints before every module: interfaces and protocol."""
    module: str = ""
    """What it prints after the comments."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; an action of ``None`` only carries its comment."""

    action: Piece | None
    match: tuple[Piece, ...] = ()
    comment: str = ""

    def hashed(self, chain: str) -> str:
        """The text over which Felix hashes."""
        words = [f"-A {chain} HASH"]
        if self.comment:
            words.append(f'-m comment --comment "{self.comment}"')
        words += [piece.felix for piece in self.match]
        if self.action:
            words.append(self.action.felix)
        return " ".join(words)

    def saved(self, chain: str, identity: str, verb: str = "-A") -> str:
        """The rule as ``iptables-save`` prints it."""
        words = [f"{verb} {chain}", *(piece.option for piece in self.match)]
        words.append(f'-m comment --comment "cali:{identity}"')
        if self.comment:
            quoted = f'"{self.comment}"' if " " in self.comment else self.comment
            words.append(f"-m comment --comment {quoted}")
        words += [piece.module for piece in self.match]
        if self.action:
            words.append(self.action.module)
        return " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class Table:
    """What Felix has in one table: chains of its own, and rules in the kernel's."""

    chains: Mapping[str, tuple[Rule, ...]]
    inserted: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    """Kernel chain → rules at its top."""
    appended: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    """Kernel chain → rules at its end."""


def hashes(chain: str, rules: Iterable[Rule]) -> list[str]:
    """One a rule, each over all rules before it, too."""
    state = sha224(chain.encode()).digest()
    found = []
    for rule in rules:
        state = sha224(state + rule.hashed(chain).encode()).digest()
        found.append(base64.urlsafe_b64encode(state).decode()[:_HASH_LENGTH])
    return found


def limited(prefix: str, name: str, length: int = 28) -> str:
    """A chain's name: ``prefix`` and ``name``, or its SHA-256 where that would be too long."""
    if len(prefix) + len(name) <= length and not name.startswith("_"):
        return prefix + name
    digest = base64.urlsafe_b64encode(sha256(name.encode()).digest()).decode()
    return f"{prefix}_{digest[: length - 1 - len(prefix)]}"


def render(tables: Mapping[str, Table]) -> str:
    """A fragment for ``iptables-restore --noflush``; the order of tables is the mapping's."""
    parts = []
    for name, table in tables.items():
        lines = [f"*{name}", *(f":{chain} - [0:0]" for chain in sorted(table.chains))]
        for chain, rules in table.inserted.items():
            found = hashes(chain, rules)
            # each goes to the top, so the last is first
            lines += [
                rule.saved(chain, identity, "-I")
                for rule, identity in reversed(list(zip(rules, found, strict=True)))
            ]
        for chain, rules in table.appended.items():
            found = hashes(chain + _APPENDS, rules)
            lines += [rule.saved(chain, each) for rule, each in zip(rules, found, strict=True)]
        for chain, rules in sorted(table.chains.items()):
            found = hashes(chain, rules)
            lines += [rule.saved(chain, each) for rule, each in zip(rules, found, strict=True)]
        parts.append("\n".join([*lines, "COMMIT"]) + "\n")
    return "".join(parts)


def jump(chain: str) -> Piece:
    """Go on in another chain, and come back."""
    return Piece(f"--jump {chain}", module=f"-j {chain}")


def goto(chain: str) -> Piece:
    """Go on in another chain, and return to the caller of this one."""
    return Piece(f"--goto {chain}", module=f"-g {chain}")


ACCEPT, DROP, RETURN, NOTRACK = (jump(word) for word in ("ACCEPT", "DROP", "RETURN", "NOTRACK"))


def set_mark(bits: int) -> Piece:
    """Set bits of the packet's mark."""
    return Piece(
        f"--jump MARK --set-mark {bits:#x}/{bits:#x}",
        module=f"-j MARK --set-xmark {bits:#x}/{bits:#x}",
    )


def clear_mark(bits: int) -> Piece:
    """Clear bits of the packet's mark."""
    return Piece(f"--jump MARK --set-mark 0/{bits:#x}", module=f"-j MARK --set-xmark 0x0/{bits:#x}")


def mark(bits: int, *, clear: bool = False) -> Piece:
    """All of these bits are set, or all are clear."""
    value = "0" if clear else f"{bits:#x}"
    saved = "0x0" if clear else value
    return Piece(f"-m mark --mark {value}/{bits:#x}", module=f"-m mark --mark {saved}/{bits:#x}")


def state(words: str, *, negated: bool = False) -> Piece:
    """conntrack's states."""
    text = f"-m conntrack {'! ' if negated else ''}--ctstate {words}"
    return Piece(text, module=text)


def in_interface(name: str) -> Piece:
    """Arrived by an interface; a trailing ``+`` is a wildcard."""
    return Piece(f"--in-interface {name}", option=f"-i {name}")


def out_interface(name: str) -> Piece:
    """Leaves by an interface."""
    return Piece(f"--out-interface {name}", option=f"-o {name}")


def from_set(name: str) -> Piece:
    """The source is in an ipset."""
    text = f"-m set --match-set {name} src"
    return Piece(text, module=text)


def to_set(name: str, *, negated: bool = False) -> Piece:
    """The destination is in an ipset, or is not."""
    text = f"-m set {'! ' if negated else ''}--match-set {name} dst"
    return Piece(text, module=text)


def protocol(number: int, *, ports: int | None = None) -> Piece:
    """By number, as Felix writes it; ``iptables-save`` takes names from /etc/protocols."""
    name = {4: "ipencap", 17: "udp"}[number]
    if ports is None:
        return Piece(f"-p {number}", f"-p {name}")
    return Piece(
        f"-p {number} -m multiport --destination-ports {ports}",
        f"-p {name}",
        f"-m multiport --dports {ports}",
    )
