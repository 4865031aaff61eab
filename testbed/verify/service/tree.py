"""The chains that packets to one Service walk on one node, as frozen data, whatever wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

__all__ = [
    "Chain",
    "Endpoint",
    "Key",
    "Line",
    "Rule",
    "Section",
    "View",
    "lines",
    "shared",
    "to_json",
]

Key = tuple[str, str]
"""Table and name of a chain: both nat and filter have a KUBE-SERVICES."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a translated packet goes."""

    address: str
    """``10.244.0.5:8080``."""
    pod: str = ""
    """``namespace/name``; empty: no pod of this testbed has the address."""
    node: str = ""

    def __str__(self) -> str:
        place = f"pod {self.pod}" if self.pod else self.address
        return f"{place} on {self.node}" if self.node else place


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, map element or real server."""

    match: str
    """What a packet has to be, in the native tool's words; empty: anything."""
    action: str
    """What is done with it, in the native tool's words; empty: nothing, it is only counted."""
    gloss: str
    """The same in plain words."""
    target: Key | None = None
    """The chain that it goes on in."""
    packets: int | None = None
    """``None``: it has no counter."""
    bytes: int | None = None
    probability: float | None = None
    """As the rule has it: of the packets that get as far as this rule."""
    share: Fraction | None = None
    """Of all that the chain hands to endpoints."""
    endpoint: Endpoint | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain, verdict map or virtual server, with the rules that matter to the Service."""

    key: Key
    gloss: str
    rules: tuple[Rule, ...] = ()

    @property
    def name(self) -> str:
        """Without its table."""
        return self.key[1]


@dataclass(frozen=True, slots=True)
class Section:
    """One stage of a packet's way through the kernel."""

    title: str
    roots: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class View:
    """All of it."""

    service: str
    """``namespace/name``."""
    node: str
    mode: str
    """``iptables``, ``nftables`` or ``ipvs``."""
    sections: tuple[Section, ...]
    chains: Mapping[Key, Chain]
    """In the order in which a packet meets them."""
    note: str = ""
    """How to read the counters."""

    @property
    def empty(self) -> bool:
        """Whether no rule is about the Service."""
        return not self.chains


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the tree: a root chain, or a rule below the chain that it is in."""

    guides: tuple[bool, ...]
    """For each level above: whether more rules follow there; the last: in its own chain."""
    chain: Chain
    rule: Rule | None = None
    """``None``: the chain itself, where a section begins."""
    again: bool = False
    """Its target's rules have been shown before."""


def lines(view: View, section: Section) -> Iterator[Line]:
    """The tree of one section, each chain's rules once."""
    shown: set[Key] = set()
    for root in section.roots:
        yield Line((), view.chains[root])
        yield from _below(view, root, (), shown)


def _below(view: View, key: Key, guides: tuple[bool, ...], shown: set[Key]) -> Iterator[Line]:
    shown.add(key)
    chain = view.chains[key]
    for number, rule in enumerate(chain.rules, start=1):
        own = (*guides, number < len(chain.rules))
        target = rule.target if rule.target in view.chains else None
        again = target in shown and bool(target and view.chains[target].rules)
        yield Line(own, chain, rule, again)
        if target and not again:
            yield from _below(view, target, own, shown)


def shared(rules: list[Rule]) -> list[Rule]:
    """Fill in shares: each balancing rule takes its probability of what those before it left.

    Balancing rules are those whose ``probability`` is set. What is close to a fraction of small
    numbers is one: rules hold 32 bits of 1/3.
    """
    found: list[Rule] = []
    rest = 1.0
    for rule in rules:
        if rule.probability is None:
            found.append(rule)
            continue
        share = Fraction(rest * rule.probability).limit_denominator(10_000)
        rest *= 1 - rule.probability
        found.append(replace(rule, share=share))
    return found


def to_json(view: View) -> dict[str, Any]:
    """With stable keys; chains refer to each other by ``table`` and ``chain``."""
    return {
        "service": view.service,
        "node": view.node,
        "mode": view.mode,
        "sections": [
            {"title": each.title, "roots": [_reference(root) for root in each.roots]}
            for each in view.sections
        ],
        "chains": [
            {
                **_reference(chain.key),
                "meaning": chain.gloss,
                "rules": [_rule(rule) for rule in chain.rules],
            }
            for chain in view.chains.values()
        ],
        "note": view.note,
    }


def _reference(key: Key) -> dict[str, str]:
    return {"table": key[0], "chain": key[1]}


def _rule(rule: Rule) -> dict[str, Any]:
    end = rule.endpoint
    return {
        "match": rule.match,
        "action": rule.action,
        "meaning": rule.gloss,
        "comment": rule.comment,
        "target": _reference(rule.target) if rule.target else None,
        "packets": rule.packets,
        "bytes": rule.bytes,
        "probability": rule.probability,
        "share": None if rule.share is None else round(float(rule.share), 6),
        "endpoint": end and {"address": end.address, "pod": end.pod, "node": end.node},
    }
