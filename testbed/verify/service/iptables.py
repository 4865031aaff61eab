"""kube-proxy's iptables mode: KUBE-SERVICES, KUBE-SVC, KUBE-SEP, from ``iptables-save -c``.

Which rule is for what is told by its chain, its target and what it matches; comments, which
kube-proxy leaves out in large clusters, are only a help.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from testbed.verify.service import words
from testbed.verify.service.facts import Facts
from testbed.verify.service.saved import Saved, parse
from testbed.verify.service.slicing import sliced
from testbed.verify.service.tree import Chain, Key, Rule, View, shared

__all__ = ["COMMAND", "HOOKS", "NOTE", "STAGES", "about", "gloss", "view"]

COMMAND = ("iptables-save", "-c")
NOTE = (
    "Counters are the kernel's own. Those of table nat count connections by their first packet, "
    "those of KUBE-MARK-MASQ and KUBE-POSTROUTING of all Services together; a rule that kube-proxy "
    "writes again begins at 0."
)
STAGES = (
    (words.DESTINATION, (("nat", "PREROUTING"), ("nat", "OUTPUT"))),
    (words.FILTER, (("filter", "INPUT"), ("filter", "FORWARD"), ("filter", "OUTPUT"))),
    (words.SOURCE, (("nat", "POSTROUTING"),)),
)
HOOKS = {
    "PREROUTING": "packets that come in, from pods and from outside",
    "INPUT": "packets for the node itself",
    "FORWARD": "packets that are passed on",
    "OUTPUT": "packets that the node itself sends",
    "POSTROUTING": "packets that are about to leave",
}
_CHAINS = {
    "KUBE-SERVICES": words.ALL,
    "KUBE-NODEPORTS": "node ports: what is for an address of the node itself",
    "KUBE-EXTERNAL-SERVICES": "what comes from outside for a Service without endpoints",
    "KUBE-PROXY-FIREWALL": "load balancers with source ranges",
    "KUBE-FORWARD": "Services' traffic that is passed on",
    "KUBE-POSTROUTING": "masquerade what was marked",
    "KUBE-MARK-MASQ": words.MARK,
}
_KINDS = {
    "KUBE-SVC-": "balance over all endpoints",
    "KUBE-SVL-": "balance over the endpoints of this node (policy Local)",
    "KUBE-EXT-": "traffic from outside the cluster",
    "KUBE-FW-": "only clients in the source ranges go on",
    "KUBE-SEP-": "one endpoint",
}
_ENDS = {
    ("KUBE-MARK-MASQ", "MARK"): words.MARK,
    ("KUBE-POSTROUTING", "RETURN"): words.UNMARKED,
    ("KUBE-POSTROUTING", "MARK"): words.TAKEN_OFF,
    ("KUBE-POSTROUTING", "MASQUERADE"): words.MASQUERADED,
    ("KUBE-FORWARD", "ACCEPT"): "let through",
    ("KUBE-NODEPORTS", "ACCEPT"): "the port of its health check is open",
}
_FENCES = ("KUBE-PROXY-FIREWALL", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-OUT-FILTER")
_COMMON = frozenset({*HOOKS, *_CHAINS} - {"KUBE-FORWARD", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"})
_WHOLE = frozenset({"KUBE-FORWARD", "KUBE-POSTROUTING"})


def view(text: str, service: Facts, node: str) -> View:
    """The chains for one Service out of what :data:`COMMAND` prints."""
    saved = parse(text)
    chains: dict[Key, Chain] = {}
    own: set[Rule] = set()
    for key, rows in saved.items():
        rules = tuple(_rules(key, rows, saved, service))
        chains[key] = Chain(key, about(key[1]), rules)
        own |= {rule for row, rule in zip(rows, rules, strict=True) if _concerns(row, service)}
    sections, kept = sliced(chains, STAGES, _COMMON, _WHOLE, own.__contains__)
    return View(service.key, node, "iptables", sections, kept, NOTE if sections else "")


def about(name: str) -> str:
    """What a chain is for."""
    known = HOOKS.get(name) or _CHAINS.get(name)
    return known or next((text for kind, text in _KINDS.items() if name.startswith(kind)), "")


def _concerns(row: Saved, service: Facts) -> bool:
    """Whether a rule of a chain that all Services share is about this one."""
    return service.named(row.comment) or bool(_portal(row, service))


def _portal(row: Saved, service: Facts) -> str:
    protocol = row.option("-p")
    if row.address:
        return service.portal(row.address, protocol, row.port)
    return service.node_port(protocol, row.port)


def _rules(
    key: Key, rows: Sequence[Saved], saved: Mapping[Key, Sequence[Saved]], service: Facts
) -> Iterator[Rule]:
    total = sum(map(_balances, rows))
    number = 0
    written = shared([_rule(key, row, saved, service) for row in rows])
    for row, rule in zip(rows, written, strict=True):
        number += rule.share is not None
        balanced = words.balance(rule.share, number, total) if rule.share is not None else ""
        yield replace(rule, gloss=balanced or gloss(key, row, rule, service))


def _rule(key: Key, row: Saved, saved: Mapping[Key, Sequence[Saved]], service: Facts) -> Rule:
    target = (key[0], row.target)
    return Rule(
        match=" ".join(row.match),
        action=" ".join((row.target, *row.details)),
        gloss="",
        target=target if target in saved else None,
        packets=row.packets,
        bytes=row.bytes,
        probability=float(row.option("--probability") or 1) if _balances(row) else None,
        endpoint=service.endpoint(row.details[-1]) if row.target == "DNAT" else None,
        comment=row.comment,
    )


def _balances(row: Saved) -> bool:
    return row.target.startswith("KUBE-SEP-") and "--rcheck" not in row.match


def gloss(key: Key, row: Saved, rule: Rule, service: Facts) -> str:
    """What one rule is for."""
    chain = key[1]
    if rule.endpoint is not None:
        kept = "; remember the client" if "--set" in row.match else ""
        return words.translate(rule.endpoint) + kept
    if "--rcheck" in row.match:
        return words.AFFINE.format(words.lasting(int(row.option("--seconds") or 0)))
    if row.target == "KUBE-MARK-MASQ":
        return _masqueraded(chain, row)
    if row.target in ("REJECT", "DROP"):
        return _refused(chain, row, service)
    return (
        _ENDS.get((chain, row.target), "")
        or _portal(row, service)
        or _external(chain, row)
        or about(row.target)
    )


def _masqueraded(chain: str, row: Saved) -> str:
    if chain.startswith("KUBE-SEP-"):
        return words.HAIRPIN
    if "--src-type" in row.match:
        return words.NODE
    if chain.startswith("KUBE-EXT-"):
        return words.OUTSIDE
    return words.PODS if "-s" in row.match else words.EVERYBODY


def _refused(chain: str, row: Saved, service: Facts) -> str:
    if chain == "KUBE-FORWARD":
        return "what belongs to no connection is dropped"
    what = _portal(row, service)
    if row.target == "REJECT":
        return f"{what}: {words.REFUSED}" if what else words.REFUSED
    why = words.RANGES if chain in _FENCES else words.LOCALLY
    return f"{words.DROPPED}: {why}"


def _external(chain: str, row: Saved) -> str:
    """What a rule of KUBE-EXT or KUBE-FW tells clients by."""
    if chain.startswith("KUBE-EXT-"):
        if "--src-type" in row.match:
            return words.FROM_NODE
        if "-s" in row.match:
            return words.FROM_POD
    if chain.startswith("KUBE-FW-"):
        return "the client is in a source range" if row.target else "any other client: see filter"
    return ""
