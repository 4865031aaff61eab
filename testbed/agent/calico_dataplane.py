"""A pod's veth as Calico makes it: routes instead of a bridge, proxy ARP instead of a gateway.

Reproduces ``cni-plugin/pkg/dataplane/linux/dataplane_linux.go`` of projectcalico/calico, texts
included, and what Felix sets on the node's end (``endpoint_mgr.go``), before the pod can send. Two
processes do all of it: ``ip`` on the node and, by ``nsenter``, in the pod.
"""

from __future__ import annotations

import os

from .cni_skeleton import CniPluginError, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Steps: TypeAlias = list[tuple[str, str]]

__all__ = [
    "check_host",
    "check_pod",
    "configure_pod",
    "connect",
    "exists",
    "open_netns",
    "remove_host_link",
    "remove_pod_link",
]

OWN_NETNS = "/proc/self/ns/net"
HOST_MAC = "ee:ee:ee:ee:ee:ee"
GATEWAYS = {4: "169.254.1.1", 6: "fe80::ecee:eeff:feee:eeee"}
"""Nobody's address, for which proxy ARP answers; and the link-local address of ``HOST_MAC``."""

HOST_SYSCTLS = {
    4: {
        "ipv4/conf/{}/route_localnet": "1",
        "ipv4/neigh/{}/proxy_delay": "0",
        "ipv4/conf/{}/proxy_arp": "1",
        "ipv4/conf/{}/forwarding": "1",
        "ipv4/conf/{}/rp_filter": "1",
    },
    6: {
        "ipv6/conf/{}/accept_dad": "0",
        "ipv6/conf/{}/disable_ipv6": "0",
        "ipv6/conf/{}/proxy_ndp": "1",
        "ipv6/conf/{}/forwarding": "1",
    },
}
"""Address family → setting below ``/proc/sys/net`` of the node's end → value."""

POD_SCRIPT = (
    'while [ $# -gt 1 ]; do echo "$2" >"/proc/sys/net/$1" || exit 1; shift 2; done; '
    "exec ip -oneline -batch -"
)
"""Arguments are settings and their values; standard input is for ``ip``."""


class StepError(CniPluginError):
    """A line of a batch failed: which, and why in the kernel's or the tool's words."""

    def __init__(self, what: str, line: str, why: str) -> None:
        super().__init__(f"{what}: {why}")
        self.line, self.why = line, why


def open_netns(path: str) -> str:
    """Hold a network namespace open; its path in this process, empty if the namespace is gone.

    A file that no namespace is mounted on any more is what a node's restart leaves.

    Raises:
        CniPluginError: it is the plugin's own.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    there, here = os.fstat(descriptor), os.stat(OWN_NETNS)  # noqa: PTH116 - pathlib costs 5 ms
    if there.st_dev != here.st_dev:
        return ""
    if there.st_ino == here.st_ino:
        raise CniPluginError("plugin's netns and netns from CNI_NETNS should not be the same", 8)
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def exists(host: str) -> bool:
    """Whether the node has an interface of this name."""
    return os.path.exists(f"/proc/sys/net/ipv4/conf/{host}")  # noqa: PTH110


def connect(host: str, netns: str, ifname: str, mtu: int, addresses: list[str]) -> str:
    """Make the veth and configure the node's end; an older one of the same name goes first.

    The pod's end is still down, so that nothing can arrive before everything is set.

    Args:
        host: name of the node's end.
        netns: where the pod's end comes to be, as :func:`open_netns` returns it.
        ifname: name of the pod's end.
        mtu: of both ends; 0 leaves it to the kernel.
        addresses: the pod's, with prefix length.

    Returns:
        The MAC address of the pod's end: random, as the kernel makes them. Asking the kernel would
        make ``ip`` read every namespace's file.

    Raises:
        CniPluginError: the kernel refused, or a route leads to another interface.
    """
    first, *rest = os.urandom(6)
    mac = ":".join(f"{octet:02x}" for octet in (first & 0xFE | 0x02, *rest))
    shape = f"numtxqueues 1 numrxqueues 1 {f'mtu {mtu}' if mtu else ''}"
    steps = [
        (
            f"Error adding veth {host}",
            f"link add name {host} address {HOST_MAC} {shape} type veth "
            f"peer name {ifname} address {mac} {shape} netns {netns}",
        ),
        (f'failed to set "{host}" up', f"link set dev {host} up"),
    ]
    if exists(host):
        steps.insert(0, (f"failed to delete old hostVeth {host}", f"link delete dev {host}"))
    routing = f"error adding host side routes for interface: {host}, error"
    routes: dict[int, Steps] = {4: [], 6: []}
    for each in addresses:
        routes[_family(each)].append((routing, f"route add {each} dev {host} scope link"))
    try:
        _batch(["ip", "-batch", "-"], steps + routes[4])
        _configure_host(host, addresses)
        if routes[6]:  # not before IPv6 is enabled
            _batch(["ip", "-batch", "-"], routes[6])
    except StepError as failure:
        if failure.line.startswith("route ") and failure.why == "file exists":
            conflict = _conflict(host, failure.line.split()[2])
            raise CniPluginError(f"{routing}: {conflict}") from None
        raise
    return mac


def _conflict(host: str, address: str) -> str:
    """What upstream says of a route that leads to another interface."""
    import socket  # 6 ms, in an error's case only

    shown = spawn(["ip", "route", "show", address], "", {**os.environ})[1]
    other = _after("dev", shown) or "unknown"
    indexes = {name: index for index, name in socket.if_nameindex()}
    return (
        f"route (Ifindex: {indexes.get(host, 0)}, Dst: {address}, Scope: link) already exists for "
        f"an interface other than '{host}': route (Ifindex: {indexes.get(other, 0)}, "
        f"Dst: {address}, Scope: link, Iface: {other})"
    )


def _configure_host(host: str, addresses: list[str]) -> None:
    for family in _families(addresses):
        for name, value in HOST_SYSCTLS[family].items():
            _write_setting(name.format(host), value)
    if os.path.exists(f"/proc/sys/net/ipv6/conf/{host}"):  # noqa: PTH110
        _write_setting(f"ipv6/conf/{host}/accept_ra", "0")


def _family(address: str) -> int:
    return 6 if ":" in address else 4


def _families(addresses: list[str]) -> list[int]:
    return sorted({_family(address) for address in addresses})


def _write_setting(name: str, value: str) -> None:
    try:
        with open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(value)
    except OSError as error:
        key = name.replace("/", ".")
        why = (error.strerror or str(error)).lower()
        raise CniPluginError(
            f"error configuring sysctls: failed to set net.{key}={value}: {why}"
        ) from None


def configure_pod(netns: str, ifname: str, addresses: list[str], forwarding: bool) -> None:
    """Settings, routes and addresses of the pod's end.

    Raises:
        CniPluginError: the kernel refused one.
    """
    settings: list[str] = []
    steps = [(f'failed to set "{ifname}" up', f"link set dev {ifname} up")]
    for family in _families(addresses):
        way = f"via {GATEWAYS[family]} dev {ifname}"
        if family == 4:
            connected = f"route add {GATEWAYS[4]} dev {ifname} scope link"
            steps.append(("failed to add route inside the container", connected))
            steps.append(("failed to add IPv4 route", f"route add default {way}"))
            settings += ["ipv4/ip_forward", str(int(forwarding))]
        else:
            steps.append(("failed to add IPv6 route", f"route add ::/0 {way}"))
            for name in ("all", "default", "lo", ifname):
                settings += [f"ipv6/conf/{name}/disable_ipv6", "0"]
            settings += [f"ipv6/conf/{ifname}/accept_dad", "0"]
            settings += ["ipv6/conf/all/forwarding", str(int(forwarding))]
    adding = f'failed to add IP addr to "{ifname}"'
    steps += [(adding, f"address add {each} dev {ifname}") for each in addresses]
    _in_pod(netns, steps, settings)


def _in_pod(netns: str, steps: Steps, settings: list[str]) -> str:
    argv = ["nsenter", f"--net={netns}", "sh", "-c", POD_SCRIPT, "sh", *settings]
    return _batch(argv, steps)


def _after(word: str, text: str) -> str:
    """The word that follows ``word``."""
    words = text.split()
    return words[words.index(word) + 1] if word in words[:-1] else ""


def _batch(argv: list[str], steps: Steps) -> str:
    """Run a process that reads lines for ``ip -batch``; its output.

    Args:
        argv: the process.
        steps: what to say when a line fails, and the line.

    Raises:
        StepError: one failed; none of those after it was tried.
    """
    lines = "".join(f"{line}\n" for _, line in steps)
    status, output = spawn(argv, lines, {**os.environ}, join=True)
    if status == 0:
        return output
    *words, last = output.splitlines() or [f"exit status {status}"]
    number = last.rpartition(":")[2]
    if last.startswith("Command failed") and number.isdigit():
        why = (words or [last])[-1].removeprefix("RTNETLINK answers: ").lower()
        raise StepError(*steps[int(number) - 1], why)
    raise StepError(f"{argv[0]} failed", "", last)


def remove_pod_link(netns: str, ifname: str) -> None:
    """Delete the pod's end, and with it the node's; its being gone is no error.

    Raises:
        CniPluginError: the kernel refused.
    """
    argv = ["nsenter", f"--net={netns}", "ip", "link", "delete", "dev", ifname]
    _remove(argv, "failed to clean up workload's pod interface inside netns")


def remove_host_link(host: str) -> None:
    """Delete the node's end, and with it the pod's; the same."""
    _remove(["ip", "link", "delete", "dev", host], f"failed to delete {host}")


def _remove(argv: list[str], what: str) -> None:
    status, output = spawn(argv, "", {**os.environ}, join=True)
    why = output.strip()
    if status and "Cannot find device" not in why and "does not exist" not in why:
        raise CniPluginError(f"{what}: {why}")


def check_host(host: str, addresses: list[str]) -> None:
    """Whether the node's end and its routes are as :func:`connect` left them.

    Raises:
        CniPluginError: they are not; the message says what is missing.
    """
    missing = f"interface {host} is missing"
    steps = [(missing, f"route show dev {host}"), (missing, f"link show dev {host}")]
    shown = _batch(["ip", "-oneline", "-batch", "-"], steps)
    if _after("link/ether", shown) != HOST_MAC:
        raise CniPluginError(f"MAC address of {host} is not {HOST_MAC}")
    for address in addresses:  # `ip route` shows IPv4 unless asked
        if _family(address) == 4 and f"{address.removesuffix('/32')} scope link" not in shown:
            raise CniPluginError(f"route to {address} by {host} is missing")


def check_pod(netns: str, ifname: str, addresses: list[str]) -> None:
    """Whether the pod's end is as :func:`configure_pod` left it.

    Raises:
        CniPluginError: it is not; the message says what is missing.
    """
    missing = f"interface {ifname} is missing in the container"
    # `link` is last: what it sets in `ip` lasts for the batch.
    lines = (f"address show dev {ifname}", f"route show dev {ifname}", f"link show up dev {ifname}")
    shown = _in_pod(netns, [(missing, line) for line in lines], [])
    if "link/ether" not in shown:
        raise CniPluginError(f"interface {ifname} is down in the container")
    for address in addresses:
        if f" {address} " not in shown:
            raise CniPluginError(f"address {address} is missing on {ifname} in the container")
        if _family(address) == 4 and f"default via {GATEWAYS[4]} " not in shown:
            raise CniPluginError(f"default route by {ifname} is missing in the container")
        if _family(address) == 4 and f"{GATEWAYS[4]} scope link" not in shown:
            raise CniPluginError(f"route to {GATEWAYS[4]} is missing in the container")
