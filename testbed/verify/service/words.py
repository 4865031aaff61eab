"""What rules do, in plain words: the same whichever tool wrote them."""

from __future__ import annotations

from fractions import Fraction

from testbed.verify.service.tree import Endpoint

__all__ = [
    "AFFINE",
    "ALL",
    "DESTINATION",
    "DROPPED",
    "EVERYBODY",
    "FILTER",
    "FROM_NODE",
    "FROM_POD",
    "HAIRPIN",
    "LOCALLY",
    "MARK",
    "MASQUERADED",
    "NODE",
    "OUTSIDE",
    "PODS",
    "RANGES",
    "REFUSED",
    "SOURCE",
    "TAKEN_OFF",
    "UNMARKED",
    "balance",
    "lasting",
    "translate",
]

DESTINATION = "destination: before routing, the Service's address becomes an endpoint's"
FILTER = "filter: what is refused, dropped or let through"
SOURCE = "source: after routing, marked packets get an address of this node"

ALL = "all Services"
MARK = "mark it: it is to be masqueraded on its way out"
HAIRPIN = "hairpin: a pod that reaches itself is masqueraded"
PODS = "a client that is no pod is masqueraded"
REFUSED = "refused at once: there is no endpoint"
DROPPED = "dropped without an answer"
LOCALLY = "there is no endpoint on this node (policy Local)"
UNMARKED = "no mark: it keeps its source, nothing more to do"
TAKEN_OFF = "take the mark off"
MASQUERADED = "masquerade: its source becomes this node's address"
NODE = "a client on this node itself is masqueraded"
OUTSIDE = "whoever comes from outside is masqueraded, so that the reply comes back here"
EVERYBODY = "every client is masqueraded"
FROM_NODE = "a client on this node: all endpoints"
FROM_POD = "a pod: all endpoints, as if it had used the cluster IP"
RANGES = "its client is in no source range"
AFFINE = "affinity: a client that came within {} goes to the same endpoint"

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def balance(share: Fraction | None, number: int, total: int) -> str:
    """Of one rule that hands packets to an endpoint."""
    if total == 1:
        return "balance: the only endpoint"
    text = "" if share is None or share == Fraction(1, total) else f", {float(share):.1%}"
    return f"balance: {number} of {total} at random{text}"


def translate(endpoint: Endpoint) -> str:
    """Of DNAT."""
    who = f"pod {endpoint.pod}" if endpoint.pod else "the endpoint"
    where = f" on {endpoint.node}" if endpoint.node else ""
    return f"DNAT: the destination becomes {who}{where}"


def lasting(seconds: int) -> str:
    """``3 h``."""
    for length, unit in _UNITS:
        if seconds >= length and not seconds % length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
