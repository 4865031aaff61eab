"""From all chains of a node to those that packets to one Service meet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from testbed.verify.service.tree import Chain, Key, Rule, Section

__all__ = ["Stage", "sliced"]

Stage = tuple[str, Sequence[Key]]
"""A title, and the chains that the kernel begins with."""


def sliced(
    chains: Mapping[Key, Chain],
    stages: Iterable[Stage],
    common: Collection[str],
    whole: Collection[str],
    own: Callable[[Rule], bool],
) -> tuple[tuple[Section, ...], dict[Key, Chain]]:
    """What is left of the stages, and of the chains in the order in which they are met.

    Of chains that all Services share (``common``), rules about the Service (``own``) are left, and
    those that lead to such rules or to chains that every packet to a Service meets (``whole``).
    Other chains are whole. Nothing is left where no rule is about the Service.
    """
    cut = _Cut(chains, common, whole, own)
    shared = [chain for key, chain in chains.items() if key[1] in common]
    if not any(own(rule) for chain in shared for rule in chain.rules):
        return (), {}
    found: list[Section] = []
    for title, roots in stages:
        lead = tuple(root for root in roots if cut.keep(root))
        if lead:
            found.append(Section(title, lead))
    return tuple(found), _ordered(found, cut.kept)


@dataclass(frozen=True, slots=True)
class _Cut:
    chains: Mapping[Key, Chain]
    common: Collection[str]
    whole: Collection[str]
    own: Callable[[Rule], bool]
    kept: dict[Key, Chain] = field(default_factory=dict)

    def keep(self, key: Key) -> bool:
        """Keep what matters of one chain; whether anything does."""
        if key in self.kept:
            return bool(self.kept[key].rules)
        if key not in self.chains:
            return False
        self.kept[key] = replace(self.chains[key], rules=())  # netfilter allows no loops
        rules = tuple(rule for rule in self.chains[key].rules if self._matters(key, rule))
        self.kept[key] = replace(self.chains[key], rules=rules)
        return bool(rules)

    def _matters(self, key: Key, rule: Rule) -> bool:
        relevant = key[1] not in self.common or self.own(rule)
        if rule.target is None:
            return relevant
        if relevant or rule.target[1] in self.common or rule.target[1] in self.whole:
            return self.keep(rule.target) or relevant
        return False


def _ordered(sections: Iterable[Section], kept: Mapping[Key, Chain]) -> dict[Key, Chain]:
    found: dict[Key, Chain] = {}

    def visit(key: Key) -> None:
        if key in kept and key not in found and kept[key].rules:
            found[key] = kept[key]
            for rule in kept[key].rules:
                if rule.target:
                    visit(rule.target)

    for section in sections:
        for root in section.roots:
            visit(root)
    return found
