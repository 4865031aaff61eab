"""kube-proxy's nftables mode: service-ips, service-…, endpoint-…, from ``nft list table``.

Its rules have no counters of their own. A verdict map is shown as a chain whose rules are its
elements, and so is the vmap of a balancing rule, one rule for each number that is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from testbed.verify.service import words
from testbed.verify.service.facts import Facts
from testbed.verify.service.slicing import sliced
from testbed.verify.service.tree import Chain, Key, Rule, View

__all__ = ["COMMAND", "NOTE", "view"]

COMMAND = ("nft", "list", "table", "ip", "kube-proxy")
NOTE = (
    "kube-proxy's rules of nftables have no counters. Verdict maps hold all Services; of them, the "
    "elements of this one are shown."
)
_TABLE = "kube-proxy"
_HOOKS = {
    "filter-prerouting": "packets that come in, before the destination changes",
    "filter-input": "packets for the node itself",
    "filter-forward": "packets that are passed on",
    "filter-output": "packets that the node itself sends, before the destination changes",
    "filter-output-post-dnat": "packets that the node itself sends, after the destination changed",
    "nat-prerouting": "packets that come in, from pods and from outside",
    "nat-output": "packets that the node itself sends",
    "nat-postrouting": "packets that are about to leave",
}
_STAGES = tuple(
    (title, tuple((_TABLE, name) for name in _HOOKS if name.startswith(kinds)))
    for title, kinds in (
        (words.FILTER, ("filter-",)),
        (words.DESTINATION, ("nat-prerouting", "nat-output")),
        (words.SOURCE, ("nat-postrouting",)),
    )
)
_SHARED = {
    "services": words.ALL,
    "service-endpoints-check": "Services without endpoints",
    "nodeport-endpoints-check": "node ports without endpoints",
    "firewall-check": "load balancers with source ranges",
    "@service-ips": "addresses, protocols and ports of all Services",
    "@service-nodeports": "node ports: what is for an address of the node itself",
    "@no-endpoint-services": "Services without endpoints",
    "@no-endpoint-nodeports": "node ports without endpoints",
    "@firewall-ips": "load balancers with source ranges",
}
_WHOLE = {
    "masquerading": "masquerade what was marked",
    "cluster-ips-check": "cluster IPs, where no Service has the port",
}
_KINDS = {
    "service-": "balance over all endpoints",
    "local-": "balance over the endpoints of this node (policy Local)",
    "external-": "traffic from outside the cluster",
    "firewall-": "only clients in the source ranges go on",
    "endpoint-": "one endpoint",
    "mark-for-masquerade": words.MARK,
    "reject-chain": words.REFUSED,
}
_COMMON = frozenset({*_HOOKS, *_SHARED})
_COUNTER = re.compile(r"\s*\bcounter packets (\d+) bytes (\d+)")
_COMMENT = re.compile(r'\s*\bcomment "([^"]*)"')
_JUMP = re.compile(r"^(.*?)\s*\b(goto|jump) (\S+)$")
_MAP = re.compile(r"^(.*?)\s*\bvmap (@\S+)$")
_DRAWN = re.compile(r"^(numgen \S+ mod (\d+))(?: offset \d+)? vmap \{(.*)\}$")
_VERDICT = re.compile(
    r"^(.*?)\s*\b(drop|reject.*|return|accept|dnat to \S+|masquerade.*|meta mark set .*|update .*)$"
)
_ELEMENTS = re.compile(r"elements = \{(.*)\}", re.DOTALL)
_BLOCK = re.compile(r"^\t(chain|map) (\S+) \{\n(.*?)^\t\}", re.DOTALL | re.MULTILINE)


def view(text: str, service: Facts, node: str) -> View:
    """The chains for one Service out of what :data:`COMMAND` prints."""
    chains: dict[Key, Chain] = {}
    for kind, name, body in _BLOCK.findall(text):
        if kind == "map":
            name = f"@{name}"
            found = _elements(body, service)
        else:
            found = _rules(name, body, service)
        chains[_TABLE, name] = Chain((_TABLE, name), _about(name), tuple(found))
    own = {
        rule
        for key, chain in chains.items()
        if key[1].startswith("@")
        for rule in chain.rules
        if _portal(rule.match, service)
    }
    sections, kept = sliced(chains, _STAGES, _COMMON, frozenset(_WHOLE), own.__contains__)
    return View(service.key, node, "nftables", sections, kept, NOTE if sections else "")


def _about(name: str) -> str:
    known = _HOOKS.get(name) or _SHARED.get(name) or _WHOLE.get(name)
    return known or next((text for kind, text in _KINDS.items() if name.startswith(kind)), "")


def _elements(body: str, service: Facts) -> Iterator[Rule]:
    """Of a verdict map."""
    held = _ELEMENTS.search(body)
    order = list(service.kinds)  # the kernel's own is that of a hash
    for text in sorted(
        _split(held[1]) if held else (),
        key=lambda each: [*order, each.split()[0]].index(each.split()[0]),
    ):
        what, _, verdict = " ".join(text.split()).rpartition(" : ")
        comment = _COMMENT.search(what)
        counted = _COUNTER.search(what)
        match = _COUNTER.sub("", _COMMENT.sub("", what)).strip()
        target = verdict.split()[-1] if verdict.startswith(("goto ", "jump ")) else ""
        gloss = _portal(match, service)
        if target == "reject-chain":
            gloss += f": {words.REFUSED}"
        elif target.startswith("firewall-"):
            gloss += ": only for clients in the source ranges"
        elif verdict == "drop":
            gloss += f": {words.DROPPED}, {words.LOCALLY}"
        yield Rule(
            match=match,
            action=verdict,
            gloss=gloss,
            target=(_TABLE, target) if target else None,
            packets=int(counted[1]) if counted else None,
            bytes=int(counted[2]) if counted else None,
            comment=comment[1] if comment else "",
        )


def _split(text: str) -> list[str]:
    """At commas outside of quotes."""
    return [each for each in re.findall(r'(?:[^,"]|"[^"]*")+', text) if each.strip()]


def _portal(match: str, service: Facts) -> str:
    """What the key of an element stands for, if it is the Service's."""
    parts = match.split(" . ")
    if not parts[-1].isdigit():
        return ""
    port = int(parts[-1])
    if len(parts) == 3:
        return service.portal(parts[0], parts[1], port)
    return service.node_port(parts[0], port) if len(parts) == 2 else ""


def _rules(chain: str, body: str, service: Facts) -> Iterator[Rule]:
    for line in (each.strip() for each in body.splitlines()):
        if not line or line.startswith(("type ", "comment ")):
            continue
        counted, comment = _COUNTER.search(line), _COMMENT.search(line)
        words_only = _COUNTER.sub("", _COMMENT.sub("", line)).strip()
        for rule in _meant(chain, words_only, service):
            yield replace(
                rule,
                packets=int(counted[1]) if counted else None,
                bytes=int(counted[2]) if counted else None,
                comment=comment[1] if comment else "",
            )


def _meant(chain: str, line: str, service: Facts) -> Iterator[Rule]:
    if drawn := _DRAWN.match(line):
        total = int(drawn[2])
        for number, text in enumerate(_split(drawn[3]), start=1):
            value, _, verdict = text.strip().partition(" : ")
            target = (_TABLE, verdict.split()[-1])
            share = Fraction(1, total)
            gloss = words.balance(share, number, total)
            match = f"{drawn[1]} = {value}"
            yield Rule(match, verdict, gloss, target, probability=1 / total, share=share)
    elif mapped := _MAP.match(line):
        target = (_TABLE, mapped[2])
        yield Rule(mapped[1], f"vmap {mapped[2]}", _about(mapped[2]), target)
    elif jump := _JUMP.match(line):
        target = (_TABLE, jump[3])
        yield Rule(jump[1], f"{jump[2]} {jump[3]}", _jumps(chain, jump[1], jump[3]), target)
    elif done := _VERDICT.match(line):
        end = service.endpoint(done[2].split()[-1]) if done[2].startswith("dnat ") else None
        gloss = words.translate(end) if end else _ends(chain, done[2])
        yield Rule(done[1], done[2], gloss, endpoint=end)
    else:
        yield Rule(line, "", "")


def _jumps(chain: str, match: str, target: str) -> str:
    if target == "mark-for-masquerade":
        if chain.startswith("endpoint-"):
            return words.HAIRPIN
        if "type local" in match:
            return words.NODE
        if chain.startswith("external-"):
            return words.OUTSIDE
        return words.PODS if "saddr" in match else words.EVERYBODY
    if "@affinity-" in match:
        return words.AFFINE.format("the timeout")
    if chain.startswith("external-") and "type local" in match:
        return words.FROM_NODE
    if chain.startswith("external-") and "saddr" in match:
        return words.FROM_POD
    return _about(target)


def _ends(chain: str, action: str) -> str:
    verb = action.split()[0]
    if chain == "masquerading":
        return {"return": words.UNMARKED, "meta": words.TAKEN_OFF}.get(verb, words.MASQUERADED)
    if chain == "cluster-ips-check":
        return (
            "an address of a Service, but none of its ports: refused"
            if verb == "reject"
            else "an address of no Service: dropped"
        )
    if chain.startswith("firewall-"):
        return f"{words.DROPPED}: {words.RANGES}"
    return {
        "update": "remember the client",
        "reject": words.REFUSED,
        "drop": words.DROPPED,
        "meta": words.MARK,
    }.get(verb, "")
