"""``x-testbed.clients``: containers on the underlay that are no nodes.

They are what reaches Services from outside: no pods, no CNI and no kube-proxy. An entry is a name,
or a mapping with its ``name``, its ``network`` where there are several, and the ``as_number`` in
which it speaks BGP with the nodes of its network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from testbed.topology import names
from testbed.topology.declared import ClientDeclaration, Fabric
from testbed.topology.model import MESH_AS_NUMBER
from testbed.topology.section import Section, alternatives, mapping
from testbed.topology.source import BROKEN, Problems, Value, describe, quote

__all__ = ["as_number", "placed", "read_clients"]


def read_clients(section: Section) -> Iterator[ClientDeclaration]:
    """The clients, in file order; what is wrong with one does not hide the others."""
    for where, value in section.items("clients"):
        if isinstance(value.data, str):
            if error := names.dns_label(value.data):
                section.problems.add(value.place, f"{where}: a client's name: {error}")
            yield ClientDeclaration(value.data, value.place)
        elif isinstance(value.data, Mapping):
            entry = mapping(value, where, section.problems)
            if entry is not None:
                yield from _read(entry, value)
        elif value.data is not BROKEN:
            section.problems.add(
                value.place, f"{where}: must be a name or a mapping, not {describe(value.data)}"
            )


def _read(entry: Section, value: Value) -> Iterator[ClientDeclaration]:
    entry.only(("name", "network", "as_number"))
    name = entry.valid("name", names.dns_label)
    if entry.get("name") is None:
        entry.problem("name", "missing; write for example `name: client`")
    number = as_number(entry)
    if name:
        yield ClientDeclaration(name, value.place, entry.text("network") or "", number)


def as_number(section: Section) -> int | None:
    """The autonomous system of a router or a client, which is not that of the nodes."""
    number = section.integer("as_number", 1, 2**32 - 1)
    if number == MESH_AS_NUMBER:
        section.problem(
            "as_number",
            f"{number} is the nodes' own, and eBGP is spoken between two: write for example "
            f"{MESH_AS_NUMBER + 1}",
        )
    return number


def placed(
    clients: tuple[ClientDeclaration, ...], fabric: Fabric, problems: Problems
) -> tuple[ClientDeclaration, ...]:
    """The clients with their networks; reports names that are taken and networks that are not."""
    known = [network.name for network in fabric.networks]
    taken = {each.name: "node" for each in fabric.nodes}
    taken |= {each.name: "router" for each in fabric.routers}
    found = []
    for client in clients:
        if client.name in taken:
            problems.add(
                client.place,
                f"client {quote(client.name)} has the name of a {taken[client.name]}; rename one",
            )
        taken[client.name] = "client"
        if not client.network and len(known) > 1:
            problems.add(
                client.place,
                f"client {quote(client.name)} has no network, and there are {', '.join(known)}; "
                f"write {{name: {client.name}, network: {known[0]}}}",
            )
        elif client.network and client.network not in known:
            hint = alternatives(client.network, known, "there are")
            problems.add(
                client.place,
                f"client {quote(client.name)}: there is no network {quote(client.network)}{hint}",
            )
        found.append(replace(client, network=client.network or (known[0] if known else "")))
    return tuple(found)
