"""Reading a mapping key by key: each key with its type, every mistake as a problem.

A key that is absent or ``null`` is not there, as in Kubernetes. A key that nobody reads is refused
by :meth:`Section.only`, so nothing in a file is silently ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from testbed.topology.source import BROKEN, Place, Problems, Value, describe, quote

__all__ = ["Section", "alternatives", "either", "mapping"]

_PRIVATE = "a part of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
_PLAIN = re.compile(r"\w[-\w]*")
_BOOLEANS = "YAML reads yes, no, on, off, true and false as booleans: put it in quotes"


def alternatives(word: str, known: Collection[str], what: str = "known") -> str:
    """``; did you mean "cluster_cidr"?``, or all the words when none is close."""
    folded = {name.casefold().replace("_", "-"): name for name in known}
    close = get_close_matches(word.casefold().replace("_", "-"), folded, n=1, cutoff=0.75)
    if close:
        return f"; did you mean {quote(folded[close[0]])}?"
    return f"; {what}: {', '.join(known) or 'none'}"


def either(words: Collection[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def mapping(value: Value, where: str, problems: Problems) -> Section | None:
    """Read ``value`` as a mapping, or report that it is none."""
    if isinstance(value.data, Mapping):
        return Section(value.data, value.place, where, problems)
    if value.data is not BROKEN:
        what = f"{where}: " if where else "the document "
        message = f"{what}must be a mapping (key: value), not {describe(value.data)}"
        problems.add(value.place, message)
    return None


@dataclass(frozen=True, slots=True)
class Section:
    """One mapping of the input; ``where`` is its dotted path, empty for a whole document."""

    values: Mapping[str, Value]
    place: Place
    where: str
    problems: Problems

    def path(self, key: str) -> str:
        """The dotted path of ``key``, as messages print it."""
        if not self.where:
            return key
        return f"{self.where}.{key}" if _PLAIN.fullmatch(key) else f"{self.where}[{quote(key)}]"

    def place_of(self, key: str) -> Place:
        """Where ``key`` stands, or the section itself when it is absent."""
        return self.values[key].place if key in self.values else self.place

    def problem(self, key: str, message: str) -> None:
        """Report ``path: message`` at the key, unless its value is known to be broken."""
        if key in self.values and self.values[key].data is BROKEN:
            return
        self.problems.add(self.place_of(key), f"{self.path(key)}: {message}")

    def get(self, key: str) -> Value | None:
        """The value of ``key``, unless absent or null."""
        value = self.values.get(key)
        return None if value is None or value.data is None else value

    def empty(self) -> frozenset[str]:
        """The keys of empty mappings and lists: they ask for nothing, and kubectl prints them."""
        return frozenset(key for key, value in self.values.items() if value.data in ({}, ()))

    def only(
        self,
        known: Collection[str],
        refused: Mapping[str, str] | None = None,
        *,
        ignored: Collection[str] = (),
        extensions: bool = False,
    ) -> None:
        """Report every key that is not ``known``, with the reason given in ``refused`` if any.

        Keys in ``ignored`` are left alone, and ``x-`` keys where Compose allows ``extensions``.
        """
        for key in self.values:
            if key in known or key in ignored or (extensions and _is_extension(key)):
                continue
            if refused and key in refused:
                self.problem(key, f"not supported: {refused[key]}")
            else:
                self.problem(key, f"not supported{alternatives(key, known, 'supported here')}")

    def section(self, key: str) -> Section | None:
        """A nested mapping."""
        value = self.get(key)
        return None if value is None else mapping(value, self.path(key), self.problems)

    def items(self, key: str) -> list[tuple[str, Value]]:
        """The entries of a list, each with its path; nothing when the key is absent."""
        value = self.get(key)
        if value is None:
            return []
        if not isinstance(value.data, tuple):
            self.problem(key, f'must be a list ("- " before each entry), not {_is(value)}')
            return []
        return [(f"{self.path(key)}[{n}]", item) for n, item in enumerate(value.data)]

    def sections(self, key: str) -> list[Section]:
        """The entries of a list of mappings."""
        found = (mapping(value, where, self.problems) for where, value in self.items(key))
        return [section for section in found if section is not None]

    def text(self, key: str, what: str = "") -> str | None:
        """A string; ``what`` names it where a message could say more."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value.data, str):
            hint = "" if what else _quoted(value)
            self.problem(key, f"must be {what or 'a string'}, not {_is(value)}{hint}")
            return None
        return value.data

    def valid(self, key: str, check: Callable[[str], str | None]) -> str | None:
        """A string that ``check`` accepts (it returns what is wrong, or None)."""
        text = self.text(key)
        error = None if text is None else check(text)
        if error is not None:
            self.problem(key, error)
            return None
        return text

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of strings; None when the key is absent."""
        if self.get(key) is None:
            return None
        found: list[str] = []
        for where, value in self.items(key):
            if isinstance(value.data, str):
                found.append(value.data)
            elif value.data is not BROKEN:
                message = f"{where}: must be a string, not {_is(value)}{_quoted(value)}"
                self.problems.add(value.place, message)
        return tuple(found)

    def texts_by_key(self, key: str) -> dict[str, str]:
        """A mapping of strings to strings (labels, annotations); null is the empty string."""
        section = self.section(key)
        if section is None:
            return {}
        texts = {
            name: "" if value.data is None else section.text(name)
            for name, value in section.values.items()
        }
        return {name: text for name, text in texts.items() if text is not None}

    def integer(self, key: str, low: int, high: int) -> int | None:
        """A whole number from ``low`` to ``high``."""
        value = self.get(key)
        if value is None:
            return None
        number = value.data
        if isinstance(number, bool) or not isinstance(number, int):
            hint = "; remove the quotes" if str(number).isdecimal() else ""
            self.problem(key, f"must be a whole number, not {_is(value)}{hint}")
            return None
        if not low <= number <= high:
            self.problem(key, f"{number} is out of range; use {low} to {high}")
            return None
        return number

    def flag(self, key: str) -> bool | None:
        """A boolean."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value.data, bool):
            self.problem(key, f"must be true or false, not {_is(value)}")
            return None
        return value.data

    def choice(self, key: str, allowed: Collection[str], default: str) -> str:
        """One of a few words; ``default`` when the key is absent or wrong."""
        text = self.text(key, either(allowed))
        if text is None:
            return default
        if text not in allowed:
            self.problem(key, f"{quote(text)} is not supported; write {either(allowed)}")
            return default
        return text

    def network(self, key: str) -> IPv4Network | None:
        """An IPv4 network in CIDR notation, without host bits."""
        text = self.text(key, "a network such as 10.244.0.0/16")
        if text is None:
            return None
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            self.problem(key, f"{quote(text)} is not a network such as 10.244.0.0/16")
            return None
        if isinstance(network, IPv6Network):
            self.problem(key, f"{text} is IPv6; this release is IPv4 only: use an IPv4 network")
            return None
        if error := _unusable(text, network):
            self.problem(key, error)
            return None
        return network

    def address(self, key: str) -> IPv4Address | None:
        """An IPv4 address."""
        text = self.text(key, "an IPv4 address")
        if not text:
            return None
        try:
            address = ip_address(text)
        except ValueError:
            self.problem(key, f"{quote(text)} is not an IPv4 address such as 172.18.0.2")
            return None
        if isinstance(address, IPv6Address):
            self.problem(key, f"{text} is IPv6; this release is IPv4 only: use an IPv4 address")
            return None
        return address


def _is_extension(key: str) -> bool:
    """An ``x-`` key of somebody else; what looks like a misspelt ``x-testbed`` is none."""
    return key.startswith("x-") and not get_close_matches(key, ["x-testbed"], cutoff=0.8)


def _is(value: Value) -> str:
    return describe(value.data)


def _quoted(value: Value) -> str:
    if isinstance(value.data, bool):
        return f"; {_BOOLEANS}"
    return "; put it in quotes" if isinstance(value.data, int | float) else ""


def _unusable(text: str, network: IPv4Network) -> str | None:
    """Why ``network`` cannot number anything, or None."""
    if "/" not in text:
        return f"{text} has no prefix length; write for example {text}/16"
    if text != str(network):
        if text.partition("/")[0] != str(network.network_address):
            return f"{text} has bits set behind the prefix; the network is {network}"
        return f"write the prefix length as a number: {network}"
    first = network.network_address
    if network.is_loopback or network.is_multicast or network.is_link_local or first.is_reserved:
        return f"{network} is reserved (loopback, link-local, multicast or class E); use {_PRIVATE}"
    if network.prefixlen == 0 or int(first) >> 24 == 0:
        return f"{network} contains 0.0.0.0/8, which is not routable; use {_PRIVATE}"
    return None
