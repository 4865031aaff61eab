"""OCI runtime configurations of the pause and application containers. Pure.

What containerd's CRI plugin asks of an OCI runtime (``internal/cri/server/podsandbox``,
``container_create_linux.go``) with Kubernetes' defaults: who shares which namespace, Docker's
default capabilities, masked and read-only paths of ``/proc``, pod sysctls written by the runtime in
the sandbox's network namespace. Not reproduced: cgroups (the node's engine has them) and seccomp.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["DEFAULT_CAPABILITIES", "Shared", "application", "pause"]

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOBODY = 65535
DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""containerd's (and Docker's) default set; NET_RAW is what ping and tcpdump need."""

CAPABILITY_BITS = dict(
    zip(DEFAULT_CAPABILITIES, (29, 0, 1, 3, 4, 5, 27, 10, 13, 31, 6, 8, 7, 18), strict=True)
)
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

POD_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}
"""containerd's enable_unprivileged_ports and enable_unprivileged_icmp; never with hostNetwork."""


class Shared(NamedTuple):
    """What the containers of a pod have in common."""

    directory: str
    """Holds ``hosts``, ``hostname``, ``resolv.conf`` and ``shm``."""
    hostname: str
    host_network: bool
    share_process_namespace: bool
    netns: str
    """Path; empty with ``host_network``."""
    cgroup_namespace: bool
    """Only with cgroup v2, as Kubernetes does."""


def capabilities(bounding: int) -> list[str]:
    """The default capabilities that ``bounding`` (CapBnd of the agent) allows to give."""
    return [name for name in DEFAULT_CAPABILITIES if bounding >> CAPABILITY_BITS[name] & 1]


def pause(shared: Shared, rootfs: str) -> dict[str, Any]:
    """The sandbox container: makes the namespaces that the pod shares, as user 65535."""
    namespaces = [_namespace("pid"), _namespace("ipc"), _namespace("mount")]
    if not shared.host_network:
        namespaces += [_namespace("network", shared.netns), _namespace("uts")]
    if shared.cgroup_namespace:
        namespaces.append(_namespace("cgroup"))
    config = _config(namespaces, ["/pause"], [PATH], (NOBODY, NOBODY), [])
    config["root"] = {"path": rootfs, "readonly": True}
    config["mounts"] = [
        _mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
        _mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ]
    if not shared.host_network:
        config["hostname"] = shared.hostname
        config["linux"]["sysctl"] = dict(POD_SYSCTLS)
    return config


def application(
    shared: Shared,
    pause_pid: int,
    container: Mapping[str, Any],
    rootfs: str,
    granted: Sequence[str],
) -> dict[str, Any]:
    """A container of the pod: joins the sandbox's namespaces, has its own mount and PID ones."""
    joined = ["ipc"] if shared.host_network else ["network", "ipc", "uts"]
    if shared.share_process_namespace:
        joined.append("pid")
    files = {"network": "net"}
    namespaces = [_namespace("mount")]
    namespaces += [
        _namespace(kind, f"/proc/{pause_pid}/ns/{files.get(kind, kind)}") for kind in joined
    ]
    if not shared.share_process_namespace:
        namespaces.append(_namespace("pid"))
    if shared.cgroup_namespace:
        namespaces.append(_namespace("cgroup"))
    environment = [PATH, f"HOSTNAME={shared.hostname}"]
    environment += [f"{key}={value}" for key, value in container.get("env", {}).items()]
    config = _config(namespaces, container["argv"], environment, (0, 0), granted)
    config["process"]["cwd"] = container.get("working_dir") or "/"
    config["root"] = {"path": rootfs, "readonly": False}
    config["mounts"] = list(_mounts(shared))
    config["linux"]["maskedPaths"] = list(MASKED)
    config["linux"]["readonlyPaths"] = list(READ_ONLY)
    return config


def _namespace(kind: str, path: str = "") -> dict[str, str]:
    return {"type": kind, "path": path} if path else {"type": kind}


def _config(
    namespaces: list[dict[str, str]],
    argv: Sequence[str],
    environment: Sequence[str],
    user: tuple[int, int],
    granted: Sequence[str],
) -> dict[str, Any]:
    sets = ("bounding", "effective", "permitted")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": user[0], "gid": user[1]},
            "args": list(argv),
            "env": list(environment),
            "cwd": "/",
            "capabilities": {name: list(granted) for name in sets},
        },
        "linux": {"namespaces": namespaces},
    }


def _mount(destination: str, kind: str, source: str, options: Iterable[str]) -> dict[str, Any]:
    return {
        "destination": destination,
        "type": kind,
        "source": source,
        "options": list(options),
    }


def _mounts(shared: Shared) -> Iterable[dict[str, Any]]:
    private = ("nosuid", "noexec", "nodev")
    yield _mount("/proc", "proc", "proc", private)
    yield _mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k"))
    devpts = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
    yield _mount("/dev/pts", "devpts", "devpts", devpts)
    yield _mount("/dev/mqueue", "mqueue", "mqueue", private)
    yield _mount("/sys", "sysfs", "sysfs", (*private, "ro"))
    # The root file system is the node's own: hide the names and sockets of the node's runtime.
    yield _mount("/run", "tmpfs", "tmpfs", ("nosuid", "nodev", "mode=755", "size=65536k"))
    yield _mount("/dev/shm", "bind", f"{shared.directory}/shm", ("rbind", "rw", *private))  # noqa: S108
    for name in ("hosts", "hostname", "resolv.conf"):
        yield _mount(f"/etc/{name}", "bind", f"{shared.directory}/{name}", ("rbind", "rw"))
