"""kube-proxy's ipvs mode: sets that are matched, then virtual servers with their real servers.

From ``iptables-save -c``, ``ipset save`` and ``ipvsadm``; a virtual server is shown as a chain
whose rules are its real servers. Rules match sets that hold all Services: those
are shown that match a set in which this one is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from testbed.verify.service import iptables, words
from testbed.verify.service.facts import Facts
from testbed.verify.service.saved import Saved, parse
from testbed.verify.service.slicing import sliced
from testbed.verify.service.tree import Chain, Key, Rule, Section, View

__all__ = ["COMMAND", "NOTE", "view"]

_MARK = "--- testbed ---"
COMMAND = (
    "sh",
    "-ec",
    f"iptables-save -c; echo '{_MARK}'; ipset save; echo '{_MARK}'; "
    f"ipvsadm -Ln --exact; echo '{_MARK}'; ipvsadm -Ln --stats --exact",
)
NOTE = (
    "Counters of virtual and real servers are of packets from clients; those of iptables rules are "
    "of all Services in the set. Table nat counts connections by their first packet."
)
_SERVERS = "virtual servers: on its way in (hook INPUT), an endpoint is chosen for each connection"
_TABLE = "ipvs"
_COMMON = frozenset(
    {*iptables.HOOKS, "KUBE-SERVICES", "KUBE-NODE-PORT", "KUBE-PROXY-FIREWALL"}
    | {"KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER"}
)
_WHOLE = frozenset({"KUBE-FORWARD", "KUBE-POSTROUTING"})
_CHAINS = {
    "KUBE-NODE-PORT": "node ports: what is for an address of the node itself",
    "KUBE-LOAD-BALANCER": "load balancers",
    "KUBE-SOURCE-RANGES-FIREWALL": "only clients in the source ranges go on",
    "KUBE-IPVS-FILTER": "kube-ipvs0's addresses: only Services' ports are open",
    "KUBE-IPVS-OUT-FILTER": "load balancers of whose source ranges the node itself is in none",
}
_SETS = {
    "KUBE-CLUSTER-IP": "the cluster IP is in the set",
    "KUBE-EXTERNAL-IP": "an external IP is in the set",
    "KUBE-LOAD-BALANCER": "the load balancer's IP is in the set",
    "KUBE-NODE-PORT": "its node port is in the set",
    "KUBE-LOOP-BACK": words.HAIRPIN,
    "KUBE-HEALTH-CHECK": "health checks' ports",
    "KUBE-IPVS-IPS": "any other port of these addresses",
}
_ENDS = {
    "RETURN": "goes on to its virtual server",
    "ACCEPT": "let through to its virtual server",
    "DROP": words.DROPPED,
    "REJECT": "refused",
}


def view(text: str, service: Facts, node: str) -> View:
    """The chains and virtual servers for one Service out of what :data:`COMMAND` prints."""
    rules, sets, servers, counters = (*text.split(_MARK), "", "", "")[:4]
    saved = parse(rules)
    members = _members(sets)
    chains: dict[Key, Chain] = {}
    own: set[Rule] = set()
    for key, rows in saved.items():
        made = tuple(_rule(key, row, saved) for row in rows)
        chains[key] = Chain(key, _about(key[1]), made)
        own |= {
            rule
            for row, rule in zip(rows, made, strict=True)
            if _within(row.option("--match-set"), members, service)
            or row.option("--vaddr") in service.kinds
        }
    sections, kept = sliced(chains, iptables.STAGES, _COMMON, _WHOLE, own.__contains__)
    virtual = {each.key: each for each in _servers(servers, counters, service)}
    if virtual:
        place = next((at for at, each in enumerate(sections) if each.title == words.SOURCE), 99)
        found = Section(_SERVERS, tuple(virtual))
        sections = (*sections[:place], found, *sections[place:])
    note = NOTE if sections else ""
    return View(service.key, node, "ipvs", sections, kept | virtual, note)


def _about(name: str) -> str:
    return _CHAINS.get(name) or iptables.about(name)


def _rule(key: Key, row: Saved, saved: Mapping[Key, Sequence[Saved]]) -> Rule:
    target = (key[0], row.target)
    held = row.option("--match-set")
    what = next((said for name, said in _SETS.items() if held.startswith(name)), "")
    if row.target == "KUBE-MARK-MASQ":
        who = words.PODS if "-s" in row.match else words.EVERYBODY
        gloss = f"{what}: {who}" if what else who
    elif what:
        end = "" if key[1] == "KUBE-POSTROUTING" else _ENDS.get(row.target, "")
        gloss = f"{what}: {end}" if end else what
    else:
        plain = Rule("", "", "")
        gloss = _CHAINS.get(row.target) or iptables.gloss(key, row, plain, Facts.nobody())
    return Rule(
        match=" ".join(row.match),
        action=" ".join((row.target, *row.details)),
        gloss=gloss,
        target=target if target in saved else None,
        packets=row.packets,
        bytes=row.bytes,
        comment=row.comment,
    )


def _members(text: str) -> dict[str, list[str]]:
    """Set → its members, out of ``ipset save``."""
    found: dict[str, list[str]] = {}
    for line in map(str.split, text.splitlines()):
        if len(line) > 2 and line[0] == "add":
            found.setdefault(line[1], []).append(line[2])
    return found


def _within(name: str, members: Mapping[str, Sequence[str]], service: Facts) -> bool:
    """Whether the Service is in a set: by ``10.96.0.41,tcp:80``, an address alone, or a port."""
    for member in members.get(name, ()):
        address, _, rest = member.partition(",")
        protocol, _, port = rest.partition(",")[0].partition(":")
        if address.isdigit():
            kind = "udp" if "UDP" in name else "tcp"
            if service.node_port(kind, int(address)):
                return True
        elif not rest:
            if address in service.kinds:
                return True
        elif port.isdigit() and (
            service.portal(address, protocol, int(port)) or service.node_port(protocol, int(port))
        ):
            return True
    return False


def _servers(text: str, stats: str, service: Facts) -> Iterator[Chain]:
    counted, listed = dict(_rows(stats)), list(_rows(text))
    for (server, real), rest in listed:
        if real:
            continue
        protocol, _, address = server.partition(" ")
        host, _, port = address.rpartition(":")
        what = service.portal(host, protocol.lower(), int(port)) or service.node_port(
            protocol.lower(), int(port)
        )
        if what:
            rows = [(own, each) for (of, own), each in listed if of == server and own]
            name = " ".join((server, *rest))
            yield Chain((_TABLE, name), what, tuple(_real(server, rows, counted, service)))


def _rows(text: str) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """Virtual server and real server (or none) → the columns that follow."""
    server = ""
    for columns in map(str.split, text.splitlines()):
        if columns[:1] and columns[0] in ("TCP", "UDP", "SCTP"):
            server = f"{columns[0]} {columns[1]}"
            yield (server, ""), columns[2:]
        elif len(columns) > 2 and columns[0] == "->" and server:
            yield (server, columns[1]), columns[2:]


def _real(
    server: str,
    rows: Sequence[tuple[str, list[str]]],
    counted: Mapping[tuple[str, str], list[str]],
    service: Facts,
) -> Iterator[Rule]:
    total = sum(int(columns[1]) for _, columns in rows)
    for address, (_, weight, active, inactive, *_) in rows:
        end = service.endpoint(address)
        count = counted.get((server, address), [])
        share = Fraction(int(weight), total) if total else Fraction(0)
        yield Rule(
            match=f"weight {weight}, {active} active, {inactive} inactive connections",
            action=f"Masq to {address}",
            gloss=words.translate(end),
            packets=int(count[1]) if len(count) > 4 else None,
            bytes=int(count[3]) if len(count) > 4 else None,
            share=share,
            endpoint=end,
        )
