"""Felix's chains for pods: dispatch by interface, one chain a pod and direction, profiles.

Reproduces ``felix/rules/dispatch.go`` and ``endpoints.go`` for pods that no policy selects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby, takewhile

from testbed.policy.rule import (
    ACCEPT,
    DROP,
    RETURN,
    Piece,
    Rule,
    clear_mark,
    goto,
    in_interface,
    jump,
    limited,
    mark,
    out_interface,
    protocol,
    set_mark,
    state,
)

__all__ = ["Endpoint", "chains"]

_ACCEPT, _PASS = 0x10000, 0x20000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod of the node."""

    interface: str
    """The node's end of its veth."""
    namespace: str


def chains(endpoints: Iterable[Endpoint]) -> Mapping[str, tuple[Rule, ...]]:
    """Dispatch by interface, a chain for each pod and direction, and the namespaces' profiles."""
    pods = sorted(endpoints, key=lambda each: each.interface)
    names = [each.interface for each in pods]
    found: dict[str, tuple[Rule, ...]] = {}
    found |= _dispatch("cali-from-wl-dispatch", names, in_interface, "cali-fw-")
    found |= _dispatch("cali-to-wl-dispatch", names, out_interface, "cali-tw-")
    encapsulated = (
        Rule(
            DROP,
            (protocol(17, ports=4789),),
            "Drop VXLAN encapped packets originating in workloads",
        ),
        Rule(DROP, (protocol(4),), "Drop IPinIP encapped packets originating in workloads"),
    )
    for each in pods:
        found[f"cali-tw-{each.interface}"] = _endpoint(each, "cali-pri-", ())
        found[f"cali-fw-{each.interface}"] = _endpoint(each, "cali-pro-", encapsulated)
        for prefix, direction in (("cali-pri-", "ingress"), ("cali-pro-", "egress")):
            for profile in _profiles(each):
                found[limited(prefix, profile)] = _profile(profile, direction)
    return found


def _profiles(endpoint: Endpoint) -> tuple[str, str]:
    """A pod's namespace and its service account."""
    return f"kns.{endpoint.namespace}", f"ksa.{endpoint.namespace}.default"


def _profile(name: str, direction: str) -> tuple[Rule, ...]:
    """A namespace's profile accepts everything, a service account's nothing by itself."""
    comment = f"Profile {name} {direction}"
    if name.startswith("ksa."):
        return (Rule(None, comment=comment),)
    return (
        Rule(set_mark(_ACCEPT), comment=comment),
        Rule(RETURN, (mark(_ACCEPT),)),
    )


def _endpoint(endpoint: Endpoint, prefix: str, dropped: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return (
        Rule(ACCEPT, (state("RELATED,ESTABLISHED"),)),
        Rule(DROP, (state("INVALID"),)),
        Rule(clear_mark(_ACCEPT | _PASS)),
        *dropped,
        *(
            rule
            for profile in _profiles(endpoint)
            for rule in (
                Rule(jump(limited(prefix, profile))),
                Rule(RETURN, (mark(_ACCEPT),), "Return if profile accepted"),
            )
        ),
        Rule(DROP, comment="Drop if no profiles matched"),
    )


def _dispatch(
    root: str, interfaces: list[str], match: Callable[[str], Piece], prefix: str
) -> dict[str, tuple[Rule, ...]]:
    """A shallow tree: where names share one more character, a chain of its own for them."""
    unknown = Rule(DROP, comment="Unknown interface")
    first, last = (interfaces[0], interfaces[-1]) if interfaces else ("", "")
    pairs = zip(first, last, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    rules: list[Rule] = []
    found: dict[str, tuple[Rule, ...]] = {}
    for start, group in groupby(interfaces, key=lambda name: name[: common + 1]):
        names = list(group)
        leaves = [Rule(goto(prefix + name), (match(name),)) for name in names]
        if len(names) == 1:
            rules += leaves
            continue
        child = f"{root}-{start[common:]}"
        rules.append(Rule(goto(child), (match(f"{start}+"),)))
        found[child] = (*leaves, unknown)
    found[root] = (*rules, unknown)
    return found
