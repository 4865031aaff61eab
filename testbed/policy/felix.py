"""Felix's iptables chains: the skeleton that every Calico node has, before any policy.

Reproduces ``felix/rules`` (``static.go``, ``nat.go``, ``dispatch.go``, ``endpoints.go``) with the
manifest's ``DefaultEndpointToHostAction=ACCEPT`` and mark mask 0xffff0000, hashes included.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from testbed.policy import workloads
from testbed.policy.rule import (
    ACCEPT,
    DROP,
    NOTRACK,
    RETURN,
    Piece,
    Rule,
    Table,
    clear_mark,
    from_set,
    goto,
    in_interface,
    jump,
    mark,
    out_interface,
    protocol,
    render,
    set_mark,
    state,
    to_set,
)
from testbed.policy.workloads import Endpoint

__all__ = ["Encapsulation", "Endpoint", "chains", "ipsets"]

_ACCEPT, _SCRATCH = 0x10000, 0x80000
_ALL = 0x1B0000
"""accept, pass and both scratch bits."""
_FORWARD = 0x1A0000
_MASQUERADE = Piece("--jump MASQUERADE --random-fully", module="-j MASQUERADE --random-fully")
_FROM_WORKLOAD, _TO_WORKLOAD = in_interface("cali+"), out_interface("cali+")
_ACCEPTED = Rule(ACCEPT, (mark(_ACCEPT),))
_HOST_ACCEPTED = "Host endpoint policy accepted packet."
_HOSTS, _VTEPS = "cali40all-hosts-net", "cali40all-vxlan-net"
_MASQUERADED = "cali40masq-ipam-pools"


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """What the node's tunnel is, if it has one."""

    kind: str
    """``ipip`` or ``vxlan``."""
    device: str
    port: int = 4789


def ipsets(
    encapsulation: Encapsulation | None,
    nodes: Iterable[IPv4Address],
    pool: IPv4Network,
    pools_set: str,
    *,
    nat_outgoing: bool,
) -> str:
    """Felix's sets in ``ipset save`` spelling; members in numerical order."""
    members: dict[str, list[str]] = {
        _MASQUERADED: [str(pool)] if nat_outgoing else [],
        pools_set: [str(pool)],
    }
    if encapsulation:
        name = _HOSTS if encapsulation.kind == "ipip" else _VTEPS
        members[name] = [str(node) for node in sorted(nodes)]
    lines = []
    for name, entries in sorted(members.items()):
        lines.append(f"create {name} hash:net family inet hashsize 1024 maxelem 1048576")
        lines += [f"add {name} {entry}" for entry in entries]
    return "\n".join(lines) + "\n"


def chains(
    encapsulation: Encapsulation | None,
    endpoints: Iterable[Endpoint],
    pools_set: str,
    *,
    nat_outgoing: bool = True,
) -> str:
    """Everything that Felix has in iptables, for ``iptables-restore --noflush``."""
    return render(
        {
            "raw": _raw(encapsulation),
            "mangle": _mangle(),
            "nat": _nat(encapsulation, pools_set, nat_outgoing),
            "filter": _filter(encapsulation, endpoints),
        }
    )


def _jumps(*bases: str) -> dict[str, tuple[Rule, ...]]:
    return {base: (Rule(jump(f"cali-{base}")),) for base in bases}


def _raw(encapsulation: Encapsulation | None) -> Table:
    untracked: tuple[Rule, ...] = ()
    if encapsulation and encapsulation.kind == "vxlan":
        port = encapsulation.port
        match = Piece(f"-p udp --dport {port}", "-p udp", f"-m udp --dport {port}")
        untracked = (Rule(NOTRACK, (match,)),)
    spoofed = Piece("-m rpfilter --invert --validmark", module="-m rpfilter --validmark --invert")
    return Table(
        {
            "cali-PREROUTING": (
                Rule(clear_mark(_ALL)),
                *untracked,
                Rule(set_mark(_SCRATCH), (_FROM_WORKLOAD,)),
                Rule(jump("cali-rpf-skip"), (mark(_SCRATCH),)),
                Rule(DROP, (mark(_SCRATCH), spoofed)),
                Rule(jump("cali-from-host-endpoint"), (mark(_SCRATCH, clear=True),)),
                _ACCEPTED,
            ),
            "cali-OUTPUT": (
                Rule(clear_mark(_ALL)),
                Rule(jump("cali-to-host-endpoint")),
                *untracked,
                _ACCEPTED,
            ),
            "cali-rpf-skip": (),
            "cali-from-host-endpoint": (),
            "cali-to-host-endpoint": (),
        },
        inserted=_jumps("PREROUTING", "OUTPUT"),
    )


def _mangle() -> Table:
    return Table(
        {
            "cali-PREROUTING": (
                Rule(ACCEPT, (state("RELATED,ESTABLISHED"),)),
                _ACCEPTED,
                Rule(jump("cali-from-host-endpoint")),
                Rule(ACCEPT, (mark(_ACCEPT),), _HOST_ACCEPTED),
            ),
            "cali-POSTROUTING": (
                Rule(RETURN, (mark(_ACCEPT),)),
                Rule(clear_mark(_ALL)),
                Rule(jump("cali-to-host-endpoint"), (state("DNAT"),)),
                Rule(RETURN, (mark(_ACCEPT),), _HOST_ACCEPTED),
            ),
            "cali-from-host-endpoint": (),
            "cali-to-host-endpoint": (),
        },
        inserted=_jumps("PREROUTING", "POSTROUTING"),
    )


def _nat(encapsulation: Encapsulation | None, pools_set: str, nat_outgoing: bool) -> Table:
    """natOutgoing, and the tunnel's own address for what leaves by it with another local one.

    The jump from POSTROUTING is appended, so that kube-proxy's comes first.
    """
    foreign = Piece(
        "-m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL",
        module="-m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL",
    )
    tunnel = (
        (Rule(_MASQUERADE, (out_interface(encapsulation.device), foreign)),)
        if encapsulation
        else ()
    )
    outgoing = (from_set(_MASQUERADED), to_set(pools_set, negated=True))
    return Table(
        {
            "cali-PREROUTING": (Rule(jump("cali-fip-dnat")),),
            "cali-OUTPUT": (Rule(jump("cali-fip-dnat")),),
            "cali-POSTROUTING": (
                Rule(jump("cali-fip-snat")),
                Rule(jump("cali-nat-outgoing")),
                *tunnel,
            ),
            "cali-nat-outgoing": (Rule(_MASQUERADE, outgoing),) if nat_outgoing else (),
            "cali-fip-dnat": (),
            "cali-fip-snat": (),
        },
        inserted=_jumps("PREROUTING", "OUTPUT"),
        appended=_jumps("POSTROUTING"),
    )


def _filter(encapsulation: Encapsulation | None, endpoints: Iterable[Endpoint]) -> Table:
    static = {
        "cali-INPUT": (
            *_tunnel_input(encapsulation),
            Rule(goto("cali-wl-to-host"), (_FROM_WORKLOAD,)),
            _ACCEPTED,
            Rule(clear_mark(_ALL)),
            Rule(jump("cali-from-host-endpoint")),
            Rule(ACCEPT, (mark(_ACCEPT),), _HOST_ACCEPTED),
        ),
        "cali-OUTPUT": (
            _ACCEPTED,
            Rule(RETURN, (_TO_WORKLOAD,)),
            *_tunnel_output(encapsulation),
            Rule(clear_mark(_ALL)),
            Rule(jump("cali-to-host-endpoint"), (state("DNAT", negated=True),)),
            Rule(ACCEPT, (mark(_ACCEPT),), _HOST_ACCEPTED),
        ),
        "cali-FORWARD": (
            Rule(clear_mark(_FORWARD)),
            Rule(jump("cali-from-hep-forward"), (mark(_ACCEPT, clear=True),)),
            Rule(jump("cali-from-wl-dispatch"), (_FROM_WORKLOAD,)),
            Rule(jump("cali-to-wl-dispatch"), (_TO_WORKLOAD,)),
            Rule(jump("cali-to-hep-forward")),
            Rule(jump("cali-cidr-block")),
        ),
        "cali-wl-to-host": (
            Rule(jump("cali-from-wl-dispatch")),
            Rule(ACCEPT, comment="Configured DefaultEndpointToHostAction"),
        ),
        "cali-cidr-block": (),
        "cali-from-hep-forward": (),
        "cali-to-hep-forward": (),
        "cali-from-host-endpoint": (),
        "cali-to-host-endpoint": (),
    }
    accepted = Rule(ACCEPT, (mark(_ACCEPT),), "Policy explicitly accepted packet.")
    return Table(
        {**static, **workloads.chains(endpoints)},
        inserted=_jumps("INPUT", "FORWARD", "OUTPUT"),
        appended={"FORWARD": (accepted, Rule(set_mark(_ACCEPT)))},
    )


def _address(direction: str) -> Piece:
    text = f"-m addrtype --{direction}-type LOCAL"
    return Piece(text, module=text)


def _tunnel_input(encapsulation: Encapsulation | None) -> tuple[Rule, ...]:
    """Tunnel packets from other nodes only."""
    if encapsulation is None:
        return ()
    if encapsulation.kind == "ipip":
        return (
            Rule(
                ACCEPT,
                (protocol(4), from_set(_HOSTS), _address("dst")),
                "Allow IPIP packets from Calico hosts",
            ),
            Rule(DROP, (protocol(4),), "Drop IPIP packets from non-Calico hosts"),
        )
    udp = protocol(17, ports=encapsulation.port)
    return (
        Rule(
            ACCEPT,
            (udp, from_set(_VTEPS), _address("dst")),
            "Allow IPv4 VXLAN packets from allowed hosts",
        ),
        Rule(DROP, (udp, _address("dst")), "Drop IPv4 VXLAN packets from non-allowed hosts"),
    )


def _tunnel_output(encapsulation: Encapsulation | None) -> tuple[Rule, ...]:
    if encapsulation is None:
        return ()
    if encapsulation.kind == "ipip":
        match = (protocol(4), to_set(_HOSTS), _address("src"))
        return (Rule(ACCEPT, match, "Allow IPIP packets to other Calico hosts"),)
    match = (protocol(17, ports=encapsulation.port), _address("src"), to_set(_VTEPS))
    return (Rule(ACCEPT, match, "Allow IPv4 VXLAN packets to other allowed hosts"),)
