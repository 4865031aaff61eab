"""What one network namespace says of itself before and after the probe, ready to be asked.

The shapes are those of iproute2's JSON, as :mod:`testbed.agent.facts` hands them on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any

from testbed.verify.trace.model import Facts

__all__ = ["Space", "in_words", "network_of", "space_of"]

_UNRESOLVED = frozenset({"INCOMPLETE", "FAILED"})
"""States of a neighbour that was asked for and did not answer."""
_USUAL = (0, 32766, 32767)
"""Priorities of the rules for the tables local, main and default."""
_ORDER = {"main": 0, "default": 2}
"""Of routing tables with an equal prefix; others are looked up before these."""


@dataclass(frozen=True, slots=True)
class Space:
    """The facts of one place: a node, a router or a pod."""

    place: str
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether the namespace was there to be read after the probe."""
        return bool(self.after.get("links"))

    def link(self, name: str) -> Mapping[str, Any] | None:
        """An interface after the probe."""
        return next((link for link in self.after.get("links", ()) if _name(link) == name), None)

    def down(self, name: str) -> str:
        """Why an interface carries nothing; empty: it does, or nothing is known of it."""
        link = self.link(name)
        if link is None:
            return f"{self.place} has no {name}" if self.known else ""
        flags = link.get("flags", ())
        if "UP" not in flags:
            return f"{name} is down"
        return f"{name} has no carrier: its other end is down" if "NO-CARRIER" in flags else ""

    def mtu(self, name: str) -> int:
        """Of an interface; 0: unknown."""
        return int((self.link(name) or {}).get("mtu", 0))

    def owns(self, address: str) -> bool:
        """Whether ``address`` is of one of its interfaces."""
        return _holds(self.after, address)

    def holds(self, address: str, device: str) -> bool:
        """Whether it is of this interface or, as far as only that was read, was before."""
        return _holds(self.after or self.before, address, device)

    @property
    def macs(self) -> frozenset[str]:
        """Of its interfaces; empty: unknown."""
        links = self.after.get("links") or self.before.get("links", ())
        return frozenset(str(link["address"]) for link in links if link.get("address"))

    @property
    def policies(self) -> tuple[str, ...]:
        """Its routing policy rules besides those that every namespace has, as ``ip rule``."""
        return tuple(
            " ".join(f"{key} {value}".rstrip() for key, value in rule.items() if value is not None)
            for rule in self.after.get("rules", ())
            if rule.get("priority") not in _USUAL
        )

    def moved(self, counter: str) -> tuple[int, int] | None:
        """A kernel counter before and after, if it grew."""
        before = int(self.before.get("counters", {}).get(counter, 0))
        after = int(self.after.get("counters", {}).get(counter, 0))
        return (before, after) if after > before else None

    def sysctl(self, name: str) -> str:
        """A setting after the probe; empty: unknown."""
        return str(self.after.get("sysctls", {}).get(name, ""))

    def route(self, address: str, *, earlier: bool = False) -> Mapping[str, Any] | None:
        """The route with the longest prefix for an address, whatever rules say of tables.

        ``earlier`` means before the probe.
        """
        facts = self.before if earlier else self.after
        found = list(_matching(facts.get("routes", ()), address))
        return max(found, key=lambda each: each[0])[1] if found else None

    def kept(self, address: str) -> bool:
        """Whether packets to an address stayed here, by the local table, before the probe."""
        return any(
            (route.get("type"), route.get("dst")) == ("local", address)
            for route in self.before.get("routes", ())
        )

    def neighbour(self, address: str, device: str) -> Mapping[str, Any] | None:
        """What is known of an address on a link."""
        return next(
            (
                row
                for row in self.after.get("neighbours", ())
                if row.get("dst") == address and row.get("dev") == device
            ),
            None,
        )

    def unresolved(self, address: str, device: str) -> str:
        """The state of a neighbour that does not answer; empty: it does, or none was asked."""
        state = (self.neighbour(address, device) or {}).get("state", ())
        return next((each for each in state if each in _UNRESOLVED), "")

    def fdb(self, mac: str, device: str) -> tuple[str, ...]:
        """Where a tunnel device sends frames for a MAC."""
        return tuple(
            row["dst"]
            for row in self.after.get("fdb", ())
            if row.get("mac") == mac and row.get("ifname") == device and "dst" in row
        )

    def vxlan(self, device: str) -> bool:
        """Whether an interface is a VXLAN device."""
        info = (self.link(device) or {}).get("linkinfo", {})
        return bool(info.get("info_kind") == "vxlan")


def _holds(facts: Mapping[str, Any], address: str, device: str = "") -> bool:
    return any(
        info.get("local") == address
        for row in facts.get("addresses", ())
        if device in ("", _name(row))
        for info in row.get("addr_info", ())
    )


def _name(link: Mapping[str, Any]) -> str:
    """``veth1`` of what ``ip -o`` would print as ``veth1@if2``."""
    return str(link.get("ifname", "")).partition("@")[0]


def _matching(routes: Any, address: str) -> Iterator[tuple[tuple[int, int, int], Any]]:
    try:
        wanted = IPv4Address(address)
    except AddressValueError:
        return
    for route in routes:
        try:
            prefix = network_of(route)
        except ValueError:  # of IPv6
            continue
        if wanted in prefix and route.get("table") != "local":
            rank = -_ORDER.get(str(route.get("table", "main")), -1)
            yield (prefix.prefixlen, rank, -int(route.get("metric", 0))), route


def network_of(route: Mapping[str, Any]) -> IPv4Network:
    """The prefix of a route.

    Raises:
        ValueError: it is not one of IPv4.
    """
    destination = route.get("dst", "default")
    return IPv4Network("0.0.0.0/0" if destination == "default" else destination)


def space_of(facts: Mapping[str, Facts], node: str, place: str) -> Space:
    """The facts of a place; what was not read is empty."""
    of_node = facts.get(node, Facts())
    key = "" if place == node else place
    return Space(place, of_node.before.get(key, {}), of_node.after.get(key, {}))


def in_words(route: Mapping[str, Any]) -> str:
    """A route as ``ip route`` prints it: ``10.244.1.0/24 via 10.244.1.0 dev flannel.1``."""
    words = [str(route["type"])] if route.get("type", "unicast") != "unicast" else []
    words.append(str(route.get("dst", "default")))
    for name, key in (("via", "gateway"), ("dev", "dev"), ("table", "table")):
        if route.get(key) and route[key] != "main":
            words += [name, str(route[key])]
    return " ".join(words)
