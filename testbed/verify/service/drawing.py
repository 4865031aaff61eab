"""A Service's chains for Graphviz: one cluster for each stage, one box for each chain."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.verify.service.tree import Chain, Key, Rule, View

__all__ = ["dot"]


def dot(view: View) -> str:
    """The whole file."""
    return "\n".join(_lines(view)) + "\n"


def _lines(view: View) -> Iterator[str]:
    numbers = {key: f"c{number}" for number, key in enumerate(view.chains)}
    yield "digraph service {"
    yield f"  label={_quoted(f'{view.service} on {view.node} ({view.mode})')};"
    yield "  rankdir=LR; labelloc=t; fontname=sans;"
    yield "  node [shape=box, style=rounded, fontname=sans, fontsize=11];"
    yield "  edge [fontname=sans, fontsize=10];"
    drawn: set[Key] = set()
    for number, section in enumerate(view.sections):
        yield f"  subgraph cluster_{number} {{"
        yield f"    label={_quoted(section.title)}; color=gray;"
        for key in _reached(view, section.roots):
            if key not in drawn:
                drawn.add(key)
                chain = view.chains[key]
                label = f"{chain.name}\n{chain.gloss}"
                yield f"    {numbers[key]} [label={_quoted(label)}];"
        yield "  }"
    for chain in view.chains.values():
        yield from _edges(chain, numbers)
    yield "}"


def _reached(view: View, roots: tuple[Key, ...]) -> dict[Key, None]:
    found: dict[Key, None] = {}
    pending = list(reversed(roots))
    while pending:
        key = pending.pop()
        if key in view.chains and key not in found:
            found[key] = None
            pending += [rule.target for rule in reversed(view.chains[key].rules) if rule.target]
    return found


def _edges(chain: Chain, numbers: dict[Key, str]) -> Iterator[str]:
    """Rules that lead nowhere end in a box of their own."""
    own = numbers[chain.key]
    for place, rule in enumerate(chain.rules):
        there = numbers.get(rule.target) if rule.target else None
        if there is None:
            there = f"{own}_{place}"
            end = f"{rule.endpoint.address}\n{rule.endpoint}" if rule.endpoint else rule.action
            shape = "ellipse" if rule.endpoint else "plaintext"
            yield f"  {there} [label={_quoted(end or rule.gloss)}, shape={shape}];"
        yield f"  {own} -> {there} [label={_quoted(_label(rule))}];"


def _label(rule: Rule) -> str:
    parts = [rule.match, "" if rule.share is None else f"share {rule.share}"]
    if rule.packets is not None:
        parts.append(f"{rule.packets} packets, {rule.bytes} bytes")
    return "\n".join(part for part in parts if part)


def _quoted(text: str) -> str:
    """A string of the dot language."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
