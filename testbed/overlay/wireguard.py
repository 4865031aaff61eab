"""WireGuard as flannel programs it: one device a node, a peer per remote node, one route for all.

Reproduces flannel's ``pkg/backend/wireguard`` with IPv4. Which peer a packet goes to is decided by
the peers' allowed IPs (cryptokey routing), so the kernel's table has a single route to the cluster.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from testbed.dataplane import objects
from testbed.dataplane.spec import KernelObject
from testbed.overlay import x25519

__all__ = ["OVERHEAD", "Peer", "device", "private_key", "public_key", "settings"]

OVERHEAD = 80
"""Bytes: outer IPv6 40, UDP 8, header 16, authentication tag 16; flannel subtracts as much always.
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """What a node must know of another one."""

    underlay_ip: IPv4Address
    pod_cidr: IPv4Network
    public_key: str


def private_key(testbed: str, node: str) -> str:
    """A key that follows from the names, so that both ends can be planned: it protects nothing.

    flanneld draws it at random and tells the other nodes the public one by an annotation.
    """
    return _text(_private(testbed, node))


def public_key(testbed: str, node: str) -> str:
    """What the other nodes know of :func:`private_key`."""
    return _text(x25519.public_key(_private(testbed, node)))


def device(
    name: str, *, own: IPv4Network, network: IPv4Network, mtu: int
) -> tuple[KernelObject, ...]:
    """The link, the network address of the own pod CIDR as its /32, and the cluster's route."""
    link = KernelObject(
        kind="link",
        key={"ifname": name},
        fixed={"linkinfo": {"info_kind": "wireguard"}},
        want={"mtu": mtu, "flags": ["UP"]},
        create=(f"link add {name} mtu {mtu} type wireguard", f"link set {name} up"),
        change=(f"link set {name} mtu {mtu} up",),
        delete=(f"link delete {name}",),
    )
    line = f"route replace {network} dev {name} scope link"
    route = KernelObject(
        kind="route",
        key={"dst": str(network)},
        want={"dev": name, "scope": "link"},
        create=(line,),
        change=(line,),
        delete=(f"route delete {network}",),
    )
    return link, objects.address(name, IPv4Interface((own.network_address, 32))), route


def settings(private: str, peers: Iterable[Peer], *, port: int, keepalive: int = 0) -> str:
    """A device's keys and peers as ``wg showconf`` prints them and ``wg syncconf`` reads them.

    ``keepalive`` is in seconds; 0 is off.
    """
    sections = [f"[Interface]\nListenPort = {port}\nPrivateKey = {private}\n"]
    sections += [
        f"[Peer]\nPublicKey = {peer.public_key}\nAllowedIPs = {peer.pod_cidr}\n"
        f"Endpoint = {peer.underlay_ip}:{port}\n"
        + (f"PersistentKeepalive = {keepalive}\n" if keepalive else "")
        for peer in peers
    ]
    return "\n".join(sections)


def _private(testbed: str, node: str) -> bytes:
    return x25519.clamped(sha256(f"{testbed}/{node}/wireguard".encode()).digest())


def _text(key: bytes) -> str:
    return b64encode(key).decode()
