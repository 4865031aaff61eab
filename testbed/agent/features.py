"""What this kernel can do for a node, found out by doing it: one probe per feature.

Each probe runs in a process with network and mount namespaces of its own; the kernel removes what
it made when the process ends. Nothing is sent. Creating a device also makes the kernel load the
module for it on the host, if there is one. Runs alone: ``python3 -IS -c "$(cat features.py)"``.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["PROBES", "main"]

_PROBE_SECONDS = 30
_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_TUNSETIFF = 0x400454CA
_MOUNT = ["mount", "--make-rprivate", "/"], ["mount", "-t", "tmpfs", "tmpfs", "/mnt"]

_RULES = """*nat
-A POSTROUTING -s 192.0.2.0/24 -m comment --comment probe -j MASQUERADE
-A PREROUTING -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to-destination 192.0.2.1
COMMIT
*filter
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -m mark --mark 0x4000/0x4000 -j ACCEPT
-A FORWARD -m addrtype --dst-type LOCAL -j ACCEPT
COMMIT
"""
_NFT = """table ip probe {
 chain nat {
  type nat hook postrouting priority 100;
  fib saddr type local masquerade
  ip protocol tcp numgen random mod 2 vmap { 0 : accept, 1 : accept }
 }
}
"""
_NFT_QUEUE = "table ip probe {\n chain c {\n  queue num 101\n }\n}\n"


def _run(*commands: Sequence[str], given: str = "") -> None:
    for argv in commands:
        done = subprocess.run(list(argv), input=given, capture_output=True, text=True, check=False)
        if done.returncode:
            words = (done.stderr + done.stdout).strip().splitlines()
            raise OSError(words[0] if words else f"{argv[0]} failed with code {done.returncode}")


def _link(kind: str, *options: str) -> Callable[[], None]:
    return lambda: _run(["ip", "link", "add", "probe0", "type", kind, *options])


def _child_link(kind: str, *options: str) -> Callable[[], None]:
    return lambda: _run(
        ["ip", "link", "add", "parent0", "type", "veth", "peer", "name", "parent1"],
        ["ip", "link", "add", "probe0", "link", "parent0", "type", kind, *options],
    )


def _qdisc(*words: str) -> Callable[[], None]:
    return lambda: _run(["tc", "qdisc", "add", "dev", "lo", *words])


def _mirred() -> None:
    match = ["protocol", "all", "u32", "match", "u32", "0", "0"]
    redirect = ["action", "mirred", "egress", "redirect", "dev", "lo"]
    _run(
        ["tc", "qdisc", "add", "dev", "lo", "ingress"],
        ["tc", "filter", "add", "dev", "lo", "parent", "ffff:", *match, *redirect],
    )


def _given(text: str, *argv: str) -> Callable[[], None]:
    return lambda: _run(argv, given=text)


def _tun() -> None:
    tun_without_header = 0x1001
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"probe0", tun_without_header))


def _br_netfilter() -> None:
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables").stat()


def _ask(protocol: int, kind: int, payload: bytes) -> None:
    """Send one netlink request; raise the kernel's error, if that is its answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as netlink:
        request_and_acknowledge = 0x5
        header = struct.pack("=IHHII", 16 + len(payload), kind, request_and_acknowledge, 1, 0)
        netlink.send(header + payload)
        answer = netlink.recv(4096)
    is_error = struct.unpack_from("=H", answer, 4)[0] == 2
    code = struct.unpack_from("=i", answer, 16)[0] if is_error else 0
    if code:
        raise OSError(os.strerror(-code))


def _ip_vs() -> None:
    generic, controller, get_family, family_name = 16, 16, 3, 2
    name = struct.pack("=HH8s", 4 + 5, family_name, b"IPVS\0")
    _ask(generic, controller, struct.pack("=BBH", get_family, 1, 0) + name)


def _ipset() -> None:
    netfilter, ipset_protocol, version_attribute, version = 12, 6 << 8 | 1, 1, 6
    attribute = struct.pack("=HHB3x", 5, version_attribute, version)
    _ask(netfilter, ipset_protocol, struct.pack("=BBH", socket.AF_INET, 0, 0) + attribute)


def _bpf_call(command: int, attributes: bytes) -> tuple[int, bytes]:
    """The result, and the attributes as the kernel left them."""
    buffer = ctypes.create_string_buffer(attributes, 128)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(_BPF_SYSCALL[platform.machine()], command, buffer, 128)
    if result < 0:
        raise OSError(os.strerror(ctypes.get_errno()))
    return result, buffer.raw


def _bpf() -> None:
    """Load the tc program ``return 0``."""
    load, traffic_control = 5, 3
    program = ctypes.create_string_buffer(struct.pack("=QQ", 0xB7, 0x95))
    licence = ctypes.create_string_buffer(b"GPL")
    where = ctypes.addressof(program), ctypes.addressof(licence)
    _bpf_call(load, struct.pack("=IIQQ", traffic_control, 2, *where))


def _ipip_ebpf() -> None:
    """Make the device, attach both programs and give one a packet to decapsulate.

    It does so only if the kernel says the source address of a route (``BPF_FIB_LOOKUP_SRC``).
    """
    tun_set_link, tun_set_index, tunnel = 0x400454CD, 0x400454DA, 768
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, tun_set_index, struct.pack("i", 0x6970))
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"probe0", 0x5001))
    fcntl.ioctl(device, tun_set_link, tunnel)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    attach = ["tc", "filter", "add", "dev", "probe0"]
    program = ["bpf", "direct-action", "object-file", "/usr/lib/testbed/bpf/ipip.bpf.o", "section"]
    _run(
        _MOUNT[0],  # tc mounts a bpffs
        ["ip", "address", "add", "192.0.2.1/24", "dev", "probe0"],
        ["ip", "link", "set", "probe0", "up"],
        ["tc", "qdisc", "add", "dev", "probe0", "clsact"],
        [*attach, "egress", *program, "tc/encapsulate"],
        [*attach, "ingress", *program, "tc/decapsulate"],
    )
    shown = ["tc", "-json", "filter", "show", "dev", "probe0", "ingress"]
    rows = json.loads(subprocess.run(shown, capture_output=True, check=True).stdout)
    [number] = [row["options"]["prog"]["id"] for row in rows if "options" in row]
    if _answer(number, _ipip_packet()) != 7:  # TC_ACT_REDIRECT
        raise OSError("bpf_fib_lookup() does not say source addresses: it does since Linux 6.7")


def _ipip_packet() -> bytes:
    """A frame with the loopback device's address, from 192.0.2.2 to 192.0.2.1, in IP-in-IP."""
    words = 0x4500, 40, 0, 0, 64 << 8 | socket.IPPROTO_IPIP, 0, 0xC000, 0x0202, 0xC000, 0x0201
    total = sum(words)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    outer = struct.pack("!10H", *words[:5], checksum, *words[6:])
    return bytes(12) + b"\x08\x00" + outer + b"\x45" + bytes(19)


def _answer(program: int, packet: bytes) -> int:
    """What a loaded tc program returns for a packet (``BPF_PROG_TEST_RUN``)."""
    get_program, test_run, answer_at = 13, 10, 4
    descriptor, _ = _bpf_call(get_program, struct.pack("=I", program))
    data = ctypes.create_string_buffer(packet, len(packet))
    request = struct.pack("=IIIIQ", descriptor, 0, len(packet), 0, ctypes.addressof(data))
    answer: int = struct.unpack_from("=i", _bpf_call(test_run, request)[1], answer_at)[0]
    return answer


def _bpffs() -> None:
    _run(*_MOUNT, ["mount", "-t", "bpf", "bpf", "/mnt"])


def _overlay() -> None:
    _run(*_MOUNT, ["mkdir", "/mnt/lower", "/mnt/upper", "/mnt/work", "/mnt/merged"])
    layers = "lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work"
    _run(["mount", "-t", "overlay", "overlay", "-o", layers, "/mnt/merged"])


def _sctp() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()


_ENDS = "local", "192.0.2.1", "remote", "192.0.2.2"
PROBES: dict[str, Callable[[], None]] = {
    "bridge": _link("bridge"),
    "veth": _link("veth", "peer", "name", "probe1"),
    "vxlan": _link("vxlan", "id", "1", "local", "192.0.2.1", "dstport", "8472", "nolearning"),
    "ipip": _link("ipip", *_ENDS),
    "ipip_ebpf": _ipip_ebpf,
    "gre": _link("gre", *_ENDS),
    "wireguard": _link("wireguard"),
    "dummy": _link("dummy"),
    "ifb": _link("ifb"),
    "macvlan": _child_link("macvlan", "mode", "bridge"),
    "ipvlan": _child_link("ipvlan", "mode", "l2"),
    "tun": _tun,
    "ip_vs": _ip_vs,
    "ipset": _ipset,
    "iptables_nft": _given(_RULES, "iptables-nft-restore"),
    "iptables_legacy": _given(_RULES, "iptables-legacy-restore"),
    "nft": _given(_NFT, "nft", "-f", "-"),
    "nfqueue": _given(_NFT_QUEUE, "nft", "-f", "-"),
    "br_netfilter": _br_netfilter,
    "netem": _qdisc("root", "netem", "delay", "1ms"),
    "tbf": _qdisc("root", "tbf", "rate", "1mbit", "burst", "32kbit", "latency", "400ms"),
    "htb": _qdisc("root", "handle", "1:", "htb", "default", "1"),
    "clsact": _qdisc("clsact"),
    "mirred": _mirred,
    "bpf": _bpf,
    "bpffs": _bpffs,
    "sctp": _sctp,
    "overlay_in_container": _overlay,
    "namespaces": lambda: _run(["unshare", "-mpinu", "--fork", "--mount-proc", "true"]),
}
"""By the names of testbed.dataplane.features.Features."""


def _start(probe: Callable[[], None]) -> tuple[int, int]:
    """Run ``probe`` in namespaces of its own; return its PID and where its error will be read."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:
        signal.alarm(_PROBE_SECONDS)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS):
            raise OSError(f"unshare: {os.strerror(ctypes.get_errno())}")
        probe()
        os._exit(0)
    except BaseException as error:  # the child's only way to tell
        words = getattr(error, "strerror", None) or str(error)
        os.write(write, words.removeprefix("Error: ").encode()[:300])
        os._exit(1)


def _finish(pid: int, read: int) -> str:
    """The probe's error; empty if it worked."""
    with os.fdopen(read, "rb") as words:
        error = words.read().decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 0:
        return ""
    return error or f"no answer within {_PROBE_SECONDS} s (status {status})"


def main() -> int:
    """Print ``{"flags": {NAME: bool}, "reasons": {NAME: why not}}``."""
    running = {name: _start(probe) for name, probe in PROBES.items()}
    errors = {name: _finish(*started) for name, started in running.items()}
    reasons = {name: error for name, error in errors.items() if error}
    flags = {name: not error for name, error in errors.items()}
    print(json.dumps({"flags": flags, "reasons": reasons}, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
