"""The ``flannel`` CNI plugin: from ``subnet.env`` to a ``bridge`` with ``host-local``.

Reproduces flannel-io/cni-plugin (``flannel.go``, ``flannel_linux.go``) on the skeleton of
containernetworking/cni 1.3 (``pkg/skel``), texts included. It decides nothing about packets: it
completes the ``delegate`` of its configuration, keeps the result for DEL and executes the delegate.

It is started for every ADD and DEL of every pod, so it imports next to nothing. Not reproduced:
Go's dump of a map on standard error (the JSON that follows it is there).
"""

from __future__ import annotations

import json
import os
import sys

from .cni_skeleton import CniPluginError, execute_delegate, plugin_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["main"]

ABOUT = "CNI Plugin flannel version v1.7.1-testbed (linux/python)"
SUBNET_FILE = "/run/flannel/subnet.env"
DATA_DIRECTORY = "/var/lib/cni/flannel"


def _add(config: dict[str, Any]) -> None:
    path = config.get("subnetFile") or SUBNET_FILE
    try:
        environment = subnet_environment(path)
    except (OSError, ValueError) as error:
        why = f"open {path}: {error.strerror}".lower() if isinstance(error, OSError) else error
        raise CniPluginError(
            f"failed to load flannel 'subnet.env' file: {why}. "
            "Check the flannel pod log for this node."
        ) from None
    delegate = json.dumps(
        build_delegate(config, environment), sort_keys=True, separators=(",", ":")
    )
    sys.stderr.write(f"delegateAdd: netconf sent to delegate plugin:\n{delegate}\n")
    sys.stderr.flush()
    directory = config.get("dataDir") or DATA_DIRECTORY
    _save(directory, os.environ["CNI_CONTAINERID"], delegate)
    sys.stdout.write(execute_delegate(json.loads(delegate)["type"], "ADD", delegate))


def subnet_environment(path: str) -> dict[str, Any]:
    """Read ``subnet.env``: ``networks``, ``subnets`` (IPv4 before IPv6), ``mtu``, ``masquerade``.

    Raises:
        OSError: it cannot be read.
        ValueError: a value is malformed, or one is missing.
    """
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs 5 ms
        pairs = dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
    read: dict[str, Any] = {"networks": [], "subnets": []}
    for family in ("", "IPV6_"):
        networks = pairs.get(f"FLANNEL_{family}NETWORK")
        subnet = pairs.get(f"FLANNEL_{family}SUBNET")
        if networks is not None:
            read["networks"] += dict.fromkeys(_network(text) for text in networks.split(","))
        if subnet is not None:
            read["subnets"].append(_network(subnet))
    missing = []
    for name, key in (("NETWORK", "networks"), ("SUBNET", "subnets")):
        if not read[key]:
            missing += [f"FLANNEL_{name}", f"FLANNEL_IPV6_{name}"]
    missing += [name for name in ("FLANNEL_MTU", "FLANNEL_IPMASQ") if name not in pairs]
    if missing:
        raise ValueError(f"{path} is missing {', '.join(missing)}")
    mtu = pairs["FLANNEL_MTU"]
    if not (mtu.isascii() and mtu.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{mtu}": invalid syntax')
    return {**read, "mtu": int(mtu), "masquerade": pairs["FLANNEL_IPMASQ"] == "true"}


def _network(text: str) -> str:
    """The network of an address with prefix length, as Go's ``net.ParseCIDR`` returns it."""
    address, _, length = text.partition("/")
    octets = address.split(".")
    digits = [*octets, length]
    if len(octets) == 4 and all(part.isascii() and part.isdigit() for part in digits):
        value = 0
        for octet in octets:
            value = value << 8 | int(octet)
        bits = int(length)
        if bits <= 32 and all(int(octet) <= 255 for octet in octets):
            value = value >> 32 - bits << 32 - bits
            return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0)) + f"/{bits}"
    if ":" in address and length:
        import ipaddress  # IPv6 only: it costs 8 ms

        try:
            return str(ipaddress.IPv6Network(text, strict=False))
        except ValueError:
            pass
    raise ValueError(f"invalid CIDR address: {text}")


def build_delegate(config: dict[str, Any], environment: dict[str, Any]) -> dict[str, Any]:
    """Complete the ``delegate`` of a configuration; what the user set in it wins.

    Raises:
        CniPluginError: the delegate holds what flannel sets, or its type is no text.
    """
    delegate: dict[str, Any] = dict(config.get("delegate") or {})
    if not isinstance(delegate.get("type", ""), str):
        raise CniPluginError("'delegate' dictionary, if present, must have (string) 'type' field")
    for key in ("name", "ipam"):
        if key in delegate:
            raise CniPluginError(
                f"'delegate' dictionary must not have '{key}' field, it'll be set by flannel"
            )
    if config.get("runtimeConfig") is not None:
        delegate["runtimeConfig"] = config["runtimeConfig"]
    delegate["name"] = config["name"]
    delegate.setdefault("type", "bridge")
    delegate.setdefault("ipMasq", not environment["masquerade"])
    delegate.setdefault("mtu", environment["mtu"])
    if delegate["type"] == "bridge":
        delegate.setdefault("isGateway", True)
    if config.get("cniVersion"):
        delegate["cniVersion"] = config["cniVersion"]
    ipam: dict[str, Any] = dict(config.get("ipam") or {})
    ipam.setdefault("type", "host-local")
    ipam["ranges"] = [[{"subnet": subnet}] for subnet in environment["subnets"]]
    networks = [{"dst": network} for network in environment["networks"]]
    ipam["routes"] = [*(ipam.get("routes") or []), *networks]
    delegate["ipam"] = ipam
    return delegate


def _save(directory: str, container: str, delegate: str) -> None:
    os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    descriptor = os.open(f"{directory}/{container}", flags, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(delegate)


def _delete(config: dict[str, Any]) -> None:
    directory = config.get("dataDir") or DATA_DIRECTORY
    path = f"{directory}/{os.environ['CNI_CONTAINERID']}"
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            saved = file.read()
    except FileNotFoundError:
        return  # already deleted: a success, as the specification asks
    try:
        kind = json.loads(saved)["type"]
    except (ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"failed to parse netconf: {error}")
        return
    try:
        execute_delegate(kind, "DEL", saved)
    finally:
        os.unlink(path)  # noqa: PTH108 - upstream removes it even when the delegate failed


def _check(_: dict[str, Any]) -> None:
    """Upstream's ``cmdCheck`` does nothing either."""


COMMANDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "ADD": _add,
    "DEL": _delete,
    "CHECK": _check,
}


def main() -> int:
    """Run the command in the environment; the exit status."""
    return plugin_main(ABOUT, COMMANDS)
