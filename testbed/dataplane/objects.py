"""Kernel objects by their kind, in the spelling of ``ip -batch`` and ``bridge -batch``.

Each function returns a :class:`~testbed.dataplane.spec.KernelObject` whose ``key``, ``fixed`` and
``want`` are written in terms of ``ip -json -details`` output.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from testbed.dataplane.spec import KernelObject

__all__ = ["address", "blackhole", "existing_link", "fdb", "neighbour", "route", "vxlan"]


def vxlan(
    name: str,
    *,
    vni: int,
    local: IPv4Address,
    device: str,
    port: int,
    mac: str,
    mtu: int,
) -> KernelObject:
    """A VTEP with static forwarding: no learning, no multicast group, L2miss and L3miss off."""
    return KernelObject(
        kind="link",
        key={"ifname": name},
        fixed={
            "address": mac,
            "linkinfo": {
                "info_kind": "vxlan",
                "info_data": {
                    "id": vni,
                    "link": device,
                    "local": str(local),
                    "port": port,
                    "learning": False,
                },
            },
        },
        want={"mtu": mtu, "flags": ["UP"]},
        create=(
            f"link add {name} address {mac} mtu {mtu} type vxlan id {vni} local {local} "
            f"dev {device} dstport {port} nolearning",
            f"link set {name} up",
        ),
        change=(f"link set {name} mtu {mtu} up",),
        delete=(f"link delete {name}",),
    )


def address(device: str, interface: IPv4Interface) -> KernelObject:
    """An address of a link, for example flannel's ``10.244.0.0/32`` on ``flannel.1``."""
    return KernelObject(
        kind="address",
        key={
            "ifname": device,
            "local": str(interface.ip),
            "prefixlen": interface.network.prefixlen,
        },
        create=(f"address replace {interface} dev {device}",),
        delete=(f"address delete {interface} dev {device}",),
    )


def neighbour(device: str, ip: IPv4Address, mac: str) -> KernelObject:
    """A permanent neighbour entry: no ARP is ever sent for it."""
    return KernelObject(
        kind="neighbour",
        key={"dev": device, "dst": str(ip)},
        want={"lladdr": mac, "state": ["PERMANENT"]},
        create=(f"neighbour replace {ip} lladdr {mac} dev {device} nud permanent",),
        change=(f"neighbour replace {ip} lladdr {mac} dev {device} nud permanent",),
        delete=(f"neighbour delete {ip} dev {device}",),
    )


def fdb(device: str, mac: str, remote: IPv4Address) -> KernelObject:
    """A permanent forwarding entry of a VTEP: frames to ``mac`` go to the node at ``remote``."""
    return KernelObject(
        kind="fdb",
        key={"ifname": device, "mac": mac},
        want={"dst": str(remote), "state": "permanent"},
        create=(f"fdb replace {mac} dev {device} dst {remote} self permanent",),
        change=(f"fdb replace {mac} dev {device} dst {remote} self permanent",),
        delete=(f"fdb delete {mac} dev {device} dst {remote} self",),
    )


def existing_link(name: str, *, mtu: int) -> KernelObject:
    """A link that is not made by name: the ipip driver's tunl0, or a TUN that the agent holds.

    Setting it up makes the kernel load the driver, and the link appears with it.
    """
    line = f"link set {name} mtu {mtu} multicast off up"
    return KernelObject(
        kind="link",
        key={"ifname": name},
        want={"mtu": mtu, "flags": ["UP"]},
        create=(line,),
        change=(line,),
        delete=(f"link set {name} down",),
    )


def route(
    destination: IPv4Network,
    *,
    device: str,
    via: IPv4Address | None = None,
    onlink: bool = False,
    protocol: int | None = None,
) -> KernelObject:
    """A route of the main table; without ``via`` the destination is on the device's own link.

    With no protocol, ``ip route`` prints no word for it.
    """
    hop: dict[str, Any] = {"gateway": str(via)} if via else {"scope": "link"}
    want = {**hop, "dev": device}
    way = f"via {via} dev {device}" if via else f"dev {device}"
    owner = "boot" if protocol is None else protocol
    line = f"route replace {destination} {way}"
    if protocol is not None:
        line += f" proto {protocol}"
        want["protocol"] = str(protocol)
    line += "" if via else " scope link"
    line += " onlink" if onlink else ""
    return KernelObject(
        kind="route",
        key={"dst": _listed(destination)},
        want={**want, "flags": ["onlink"] if onlink else []},
        create=(line,),
        change=(line,),
        delete=(f"route delete {destination} {way} proto {owner}",),
    )


def blackhole(destination: IPv4Network, *, protocol: int) -> KernelObject:
    """Packets to what no more specific route knows are dropped, and nobody is told."""
    line = f"route replace blackhole {destination} proto {protocol}"
    return KernelObject(
        kind="route",
        key={"dst": _listed(destination), "type": "blackhole"},
        want={"protocol": str(protocol)},
        create=(line,),
        change=(line,),
        delete=(f"route delete blackhole {destination} proto {protocol}",),
    )


def _listed(destination: IPv4Network) -> str:
    """As ``ip -json`` lists it: a single address without its prefix length."""
    return str(destination.network_address if destination.prefixlen == 32 else destination)
