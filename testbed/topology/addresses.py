"""Lists of IPv4 addresses and ranges in manifests, as far as the API server accepts them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from testbed.topology.section import Section
from testbed.topology.source import BROKEN, Place, Problems, describe, quote

__all__ = ["read_addresses", "read_ranges", "special"]


def special(address: IPv4Address) -> str | None:
    """Why nothing outside its own machine or segment can be reached at ``address``, or None."""
    if address.is_unspecified or int(address) >> 24 == 0:
        return f"{address} is no host's address (0.0.0.0/8); write the address of a machine"
    if address.is_loopback:
        return f"{address} is a loopback address (127.0.0.0/8); write one that nodes can route to"
    if address.is_link_local:
        return f"{address} is link-local (169.254.0.0/16); write one that nodes can route to"
    if address.is_multicast:
        return f"{address} is multicast (224.0.0.0/4); write the address of one machine"
    if address.is_reserved:
        return f"{address} is reserved (240.0.0.0/4); write one that nodes can route to"
    return None


def read_addresses(section: Section, key: str) -> tuple[IPv4Address, ...]:
    """A list of addresses of machines."""
    found = (_address(*entry, section.problems) for entry in _texts(section, key))
    return tuple(address for address in found if address is not None)


def read_ranges(section: Section, key: str) -> tuple[IPv4Network, ...]:
    """A list of networks in CIDR notation; host bits are cut, as the API server cuts them."""
    found = (_range(*entry, section.problems) for entry in _texts(section, key))
    return tuple(network for network in found if network is not None)


def _texts(section: Section, key: str) -> Iterator[tuple[str, Place, str]]:
    for where, value in section.items(key):
        if isinstance(value.data, str):
            yield where, value.place, value.data
        elif value.data is not BROKEN:
            section.problems.add(
                value.place, f"{where}: must be a string, not {describe(value.data)}"
            )


def _address(where: str, place: Place, text: str, problems: Problems) -> IPv4Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        problems.add(place, f"{where}: {quote(text)} is not an IPv4 address such as 172.18.0.2")
        return None
    if isinstance(address, IPv6Address):
        problems.add(
            place, f"{where}: {text} is IPv6; this release is IPv4 only: use an IPv4 address"
        )
        return None
    if error := special(address):
        problems.add(place, f"{where}: {error}")
        return None
    return address


def _range(where: str, place: Place, text: str, problems: Problems) -> IPv4Network | None:
    try:
        network = ip_network(text.strip(), strict=False) if "/" in text else None
    except ValueError:
        network = None
    if network is None:
        problems.add(place, f"{where}: {quote(text)} is not a network such as 10.0.0.0/24")
    elif isinstance(network, IPv6Network):
        problems.add(
            place, f"{where}: {text} is IPv6; this release is IPv4 only: use an IPv4 network"
        )
        return None
    return network
