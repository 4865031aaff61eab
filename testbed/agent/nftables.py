"""Applying the table ``ip kube-proxy``, which is kube-proxy's whole, without losing affinity.

What differs is fed to ``nft`` as one transaction. The comparison is by text: chains, sets and
elements are written as ``nft list table`` prints them. The elements of dynamic sets are the
kernel's: clients that a Service's session affinity remembers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .command import execute, run
from .errors import AgentError, CommandError

__all__ = ["Table", "apply", "difference", "merged", "parse", "static"]

NAME = "ip kube-proxy"
_COMMENT = "rules for kube-proxy"
_SET = re.compile(r"@([^\s{}]+)")
_ELEMENTS_OF_A_LINE = 500


class Table(NamedTuple):
    """Chains, sets and maps, and the elements that somebody wrote."""

    chains: dict[str, tuple[str, str, list[str]]]
    """Name → hook (empty: none), comment, rules."""
    sets: dict[str, tuple[str, str]]
    """Name → ``set`` or ``map``, declaration."""
    elements: dict[str, dict[str, str]]
    """Set → key with its comment → value (empty: none)."""


def merged(units: Iterable[Mapping[str, Any]]) -> Table:
    """The table of all units together."""
    table = Table({}, {}, {})
    for unit in units:
        for name, chain in unit.get("chains", {}).items():
            parts = (chain.get("base", ""), chain.get("comment", ""), chain["rules"])
            table.chains[name] = parts
        for name, each in unit.get("sets", {}).items():
            table.sets[name] = (each["kind"], _normal(each["spec"].split(";")))
        for name, elements in unit.get("elements", {}).items():
            table.elements.setdefault(name, {}).update(elements)
    return table


def parse(text: str) -> Table:
    """Read what ``nft list table`` prints of one table."""
    table = Table({}, {}, {})
    lines = iter(text.splitlines())
    for line in lines:
        kind, _, rest = line.strip().partition(" ")
        if kind not in ("chain", "set", "map") or not rest.endswith(" {"):
            continue
        name = rest.removesuffix(" {")
        block = list(_block(lines))
        if kind == "chain":
            table.chains[name] = _chain(block)
            continue
        plain = [each for each in block if not each.startswith("elements = ")]
        table.sets[name] = (kind, _normal(plain))
        if len(plain) < len(block) and not _dynamic(table.sets[name][1]):
            table.elements[name] = _elements(block[-1])
    return table


def _block(lines: Iterator[str]) -> Iterator[str]:
    """The statements of a block; those that go over several lines as one."""
    for line in lines:
        statement = line.strip()
        if statement == "}":
            return
        if statement.startswith("elements = "):
            parts = [statement]
            while not parts[-1].endswith("}"):
                parts.append(next(lines).strip())
            statement = " ".join(parts)
        if statement:
            yield statement


def _chain(block: list[str]) -> tuple[str, str, list[str]]:
    base = comment = ""
    if block and block[0].startswith("comment "):
        comment = block.pop(0).removeprefix("comment ").strip('"')
    if block and block[0].startswith("type "):
        base = block.pop(0)
    return base, comment, block


def _elements(statement: str) -> dict[str, str]:
    found = {}
    for each in statement.removeprefix("elements = {").removesuffix("}").split(","):
        key, _, value = each.strip().partition(" : ")
        found[key] = value
    return found


def _normal(parts: Iterable[str]) -> str:
    """A declaration as it is compared: the kernel adds a size to dynamic sets."""
    stripped = (part.strip().rstrip(";") for part in parts)
    return "".join(f"{part}; " for part in stripped if part and not part.startswith("size "))


def _dynamic(declaration: str) -> bool:
    return "dynamic" in declaration


def difference(new: Table, old: Table) -> str:
    """What ``nft -f`` must read so that ``old`` becomes ``new``; empty if nothing differs.

    In an order in which nothing is deleted that something refers to, nor referred to too early.
    """
    chains = [name for name in old.chains if _hook(old, name) != _hook(new, name)]
    sets = [name for name in old.sets if old.sets[name] != new.sets.get(name)]
    fresh_chains = [name for name in new.chains if name in chains or name not in old.chains]
    fresh_sets = [name for name in new.sets if name in sets or name not in old.sets]
    filled = [name for name in new.chains if _rewritten(name, new, old, {*chains, *sets})]
    flushed = [name for name in old.chains if name in chains or name in filled]
    lines = [
        line
        for name in old.elements
        for line in _delete(name, _lacking(name, old, new) if name not in sets else ())
    ]
    lines += [f"flush chain {NAME} {name}" for name in flushed]
    lines += [f"delete chain {NAME} {name}" for name in chains]
    lines += [f"delete {old.sets[name][0]} {NAME} {name}" for name in sets]
    for name in fresh_sets:
        kind, declaration = new.sets[name]
        lines.append(f"add {kind} {NAME} {name} {{ {declaration}}}")
    lines += [f"add chain {NAME} {name}{_body(new, name)}" for name in fresh_chains]
    lines += [f"add rule {NAME} {name} {rule}" for name in filled for rule in new.chains[name][2]]
    for name, elements in new.elements.items():
        lacking = elements if name in fresh_sets else _lacking(name, new, old)
        lines += _add(name, {key: elements[key] for key in lacking})
    return "".join(f"{line}\n" for line in lines)


def _hook(table: Table, name: str) -> tuple[str, str] | None:
    return table.chains[name][:2] if name in table.chains else None


def _body(table: Table, name: str) -> str:
    base, comment, _ = table.chains[name]
    comment = f' comment "{comment}";' if comment else ""
    return f" {{ {base}{comment} }}" if base or comment else ""


def _rewritten(name: str, new: Table, old: Table, anew: set[str]) -> bool:
    """Whether a chain's rules are to be fed: other ones, or of something that is made anew."""
    rules = new.chains[name][2]
    if name in anew or name not in old.chains or old.chains[name][2] != rules:
        return True
    return bool(anew) and any(word in anew for rule in rules for word in _words(rule))


def _words(rule: str) -> Iterator[str]:
    yield from _SET.findall(rule)
    yield from rule.replace(",", " ").split()


def _lacking(name: str, table: Table, other: Table) -> list[str]:
    there = other.elements.get(name, {})
    elements = table.elements.get(name, {})
    return [key for key, value in elements.items() if there.get(key) != value]


def _delete(name: str, keys: Iterable[str]) -> Iterator[str]:
    bare = [key.partition(" comment ")[0] for key in keys]
    yield from _batches(f"delete element {NAME} {name}", bare)


def _add(name: str, elements: Mapping[str, str]) -> Iterator[str]:
    texts = [f"{key} : {value}" if value else key for key, value in elements.items()]
    yield from _batches(f"add element {NAME} {name}", texts)


def _batches(verb: str, elements: list[str]) -> Iterator[str]:
    for start in range(0, len(elements), _ELEMENTS_OF_A_LINE):
        yield f"{verb} {{ {', '.join(elements[start : start + _ELEMENTS_OF_A_LINE])} }}"


def _installed() -> Table | None:
    done = execute(["nft", "--stateless", "list", "table", *NAME.split()])
    return parse(done.stdout.decode()) if done.status == 0 else None


def apply(before: Mapping[str, Any], now: Mapping[str, Any], verify: bool) -> list[str]:
    """Bring the table from the units ``before`` to ``now``.

    Args:
        before: what was applied last.
        now: what is wanted; with ``verify`` everything, so that without units there is no table.
        verify: read the kernel instead of trusting in ``before``, which may be a part then.

    Raises:
        AgentError: ``nft`` refused a line; nothing was changed.
    """
    if verify:
        return _bring(_installed(), merged(now.values()) if now else None)
    return _bring(merged(before.values()), merged(now.values()))


def static(wanted: Iterable[Mapping[str, Any]], previous: Iterable[Mapping[str, Any]]) -> list[str]:
    """Bring the table to rulesets whose content is what ``nft list table`` prints.

    Raises:
        AgentError: ``nft`` refused a line; nothing was changed.
    """
    contents = [item["content"] for item in wanted]
    if not contents and not list(previous):
        return []
    return _bring(_installed(), parse("\n".join(contents)) if contents else None)


def _bring(have: Table | None, wanted: Table | None) -> list[str]:
    if wanted is None:
        return _feed(f"delete table {NAME}\n") if have is not None else []
    text = difference(wanted, have or Table({}, {}, {}))
    if have is None:
        text = f'add table {NAME} {{ comment "{_COMMENT}"; }}\n{text}'
    return _feed(text)


def _feed(text: str) -> list[str]:
    if not text:
        return []
    from .service_rules import note

    note("nft", text)
    try:
        run(["nft", "-f", "-"], stdin=text.encode())
    except CommandError as error:
        lines = text.splitlines()
        match = re.search(r":(\d+):\d+", error.output)
        number = int(match[1]) if match else 0
        line = lines[number - 1] if 0 < number <= len(lines) else "; ".join(lines[:3])
        words = "; ".join(error.output.splitlines()[:1])
        raise AgentError("nft refused the rules", line, words) from None
    return [f"nft {line}" for line in text.splitlines()]
