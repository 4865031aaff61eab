"""Kernel objects by their kind, in the spelling of ``ip -batch`` and ``bridge -batch``.

Each function returns a :class:`~testbed.dataplane.spec.KernelObject` whose ``key``, ``fixed`` and
``want`` are written in terms of ``ip -json -details`` output.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from testbed.dataplane.spec import KernelObject

__all__ = ["address", "fdb", "neighbour", "route", "vxlan"]


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


def route(
    destination: IPv4Network, *, via: IPv4Address, device: str, onlink: bool = False
) -> KernelObject:
    """A route of the main table with the protocol left unset, so ``ip route`` prints no word."""
    line = f"route replace {destination} via {via} dev {device}" + (" onlink" if onlink else "")
    return KernelObject(
        kind="route",
        key={"dst": str(destination)},
        want={"gateway": str(via), "dev": device, "flags": ["onlink"] if onlink else []},
        create=(line,),
        change=(line,),
        delete=(f"route delete {destination}",),
    )
