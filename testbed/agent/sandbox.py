"""A pod's sandbox: network namespace, CNI attachments, shared files, pause.

The order is containerd's RunPodSandbox: pin the namespace, CNI ADD (``lo``, then ``eth0``), start
pause. So a pod has its address before any of its processes runs, and keeps it while containers come
and go. Everything here blocks and runs in worker threads; nothing keeps state but the file system.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import conflist, crun, journal, oci, podfiles, podlogs, rootfs, syscalls
from .attachments import attachment
from .cni import CniRuntime, first_ipv4, host_interface, pod_ips
from .desired import pod_key
from .errors import AgentError
from .layout import CNI_CONF, NETNS

__all__ = ["Sandbox", "Sandboxes", "node_ip"]

LOOPBACK = conflist.parse(
    '{"cniVersion":"0.3.1","name":"cni-loopback","plugins":[{"type":"loopback"}]}'
)
"""containerd runs it before the configured network (go-cni, ``WithLoNetwork``)."""

INHERITED = {
    "ip_forward": "0",
    "conf/all/rp_filter": "0",
    "conf/default/rp_filter": "0",
    "conf/all/arp_ignore": "0",
    "conf/default/arp_ignore": "0",
    "conf/all/accept_local": "0",
    "conf/all/route_localnet": "0",
}
"""IPv4 settings written in each new namespace *before* CNI ADD, to the kernel's own defaults.

With ``net.core.devconf_inherit_init_net`` 0 a new namespace copies the IPv4 conf of the machine's
initial one, where Docker sets ``ip_forward`` and systemd ``rp_filter``: a pod must not behave
differently from one machine to the next. Plugins (``tuning``) have the last word.
"""


class Sandbox(NamedTuple):
    """What identifies a running sandbox."""

    id: str
    """64 hexadecimal digits, also ``CNI_CONTAINERID``."""
    netns: str
    """Path of the pinned namespace; empty with hostNetwork."""
    ip: str
    ips: tuple[str, ...]
    host_interface: str


class Sandboxes:
    """Makes and removes sandboxes and their containers on this node."""

    def __init__(self, cni: CniRuntime, network_directory: str = CNI_CONF) -> None:
        self._cni = cni
        self._network_directory = network_directory
        self._granted = oci.capabilities(_bounding_set())
        self._cgroup_namespace = Path("/sys/fs/cgroup/cgroup.controllers").exists()

    def attach(self, pod: Mapping[str, Any], requested_ip: str) -> Sandbox:
        """Pin a namespace and run CNI ADD; what fails is undone.

        Args:
            pod: a PodSpec as JSON.
            requested_ip: ask IPAM for this address. A deviation from Kubernetes on purpose, for
                pods that had the address before ``docker restart``. When IPAM refuses, the pod
                gets another one.

        Raises:
            AgentError: the namespace could not be made or the network failed.
        """
        identity = os.urandom(32).hex()
        if pod["host_network"]:
            ip = node_ip()
            return Sandbox(identity, "", ip, (ip,) if ip else (), "")
        if requested_ip:
            try:
                return self._attach(pod, identity, requested_ip)
            except AgentError as error:
                message = f"address {requested_ip} not given again: {error}"
                journal.emit("pod", message, level="warn", pod=pod_key(pod))
        return self._attach(pod, identity, "")

    def _attach(self, pod: Mapping[str, Any], identity: str, requested_ip: str) -> Sandbox:
        started = time.monotonic()
        netns = f"{NETNS}/cni-{_uuid()}"
        sandbox = Sandbox(identity, netns, "", (), "")
        try:
            with syscalls.new_netns(netns):
                for name, value in INHERITED.items():
                    Path("/proc/sys/net/ipv4", name).write_text(value)
            network = conflist.load(self._network_directory)
            self._cni.add(LOOPBACK, attachment(pod, sandbox.id, netns, "lo"))
            result = self._cni.add(
                network, attachment(pod, sandbox.id, netns, "eth0", requested_ip)
            )
        except Exception:
            self.detach(pod, sandbox)
            raise
        ips = pod_ips(result)
        if not first_ipv4(ips):
            self.detach(pod, sandbox)
            raise AgentError("CNI gave no IPv4 address", network.path, f"ips: {list(ips)}")
        journal.emit("pod", f"attached with {first_ipv4(ips)}", pod=pod_key(pod), since=started)
        return Sandbox(identity, netns, first_ipv4(ips), ips, host_interface(result))

    def detach(self, pod: Mapping[str, Any], sandbox: Sandbox) -> None:
        """CNI DEL of what the cache knows of the sandbox, and the namespace; may be repeated.

        Errors are logged; the namespace goes in any case, and links with it.
        """
        if not sandbox.netns:
            return
        self.delete_attachments(sandbox.id, pod_key(pod))
        syscalls.unmount(sandbox.netns)
        Path(sandbox.netns).unlink(missing_ok=True)

    def delete_attachments(self, container_id: str, pod: str = "") -> int:
        """CNI DEL of cached attachments, ``eth0`` before ``lo``; the configuration is ADD's own.

        Args:
            container_id: of one sandbox; empty: of all.
            pod: for log lines.

        Returns:
            How many attachments were deleted.
        """
        entries = list(self._cni.cache.entries(container_id))
        for entry in sorted(entries, key=lambda entry: entry.attachment.ifname == "lo"):
            netns = entry.attachment.netns
            gone = not Path(netns).exists()
            known = entry.attachment._replace(netns="" if gone else netns, pod=pod)
            try:
                self._cni.delete(conflist.parse(entry.config), known)
            except AgentError as error:
                journal.emit("cni", str(error), level="warn", pod=pod or None)
        return len(entries)

    def check(self, pod: Mapping[str, Any], sandbox: Sandbox) -> dict[str, Any]:
        """CNI CHECK of ``eth0``: ``pod`` and ``error``, which is ``None`` when all is as it was."""
        key = pod_key(pod)
        try:
            if sandbox.netns:
                network = conflist.load(self._network_directory)
                self._cni.check(network, attachment(pod, sandbox.id, sandbox.netns, "eth0"))
        except AgentError as error:
            return {"pod": key, "error": error.as_dict()}
        return {"pod": key, "error": None}

    def start_pause(self, pod: Mapping[str, Any], sandbox: Sandbox) -> int:
        """Write the pod's shared files and start pause; return its process ID."""
        shared = self._shared(pod, sandbox)
        place = Path(shared.directory)
        place.mkdir(parents=True, exist_ok=True)
        if shared.host_network:
            hosts = podfiles.host_network_hosts(_read("/etc/hosts"))
        else:
            hosts = podfiles.hosts(sandbox.ips, shared.hostname)
        (place / "hosts").write_text(hosts)
        (place / "hostname").write_text(f"{shared.hostname}\n")
        (place / "resolv.conf").write_text(_read("/etc/resolv.conf"))
        rootfs.make_shm(f"{shared.directory}/shm")
        return crun.start(sandbox.id, oci.pause(shared, rootfs.PAUSE), os.devnull)

    def start_container(
        self,
        pod: Mapping[str, Any],
        sandbox: Sandbox,
        pause_pid: int,
        container: Mapping[str, Any],
        identity: str,
        restarts: int,
    ) -> int:
        """Start one application container in the sandbox; return its process ID."""
        shared = self._shared(pod, sandbox)
        directory = rootfs.make_overlay(identity)
        config = oci.application(shared, pause_pid, container, directory, self._granted)
        return crun.start(identity, config, podlogs.open_run(pod, container["name"], restarts))

    def forget(self, pod: Mapping[str, Any]) -> None:
        """Remove the logs of a pod that is no longer wanted, as kubelet does."""
        rootfs.remove_tree(str(podlogs.pod_directory(pod)))

    def remove_containers(self, identities: list[str]) -> None:
        """Forget containers that have ended: runtime state and writable layer."""
        for identity in identities:
            crun.delete(identity)
            rootfs.remove(identity)

    def _shared(self, pod: Mapping[str, Any], sandbox: Sandbox) -> oci.Shared:
        return oci.Shared(
            directory=rootfs.directory(sandbox.id),
            hostname=socket.gethostname() if pod["host_network"] else pod["hostname"],
            host_network=pod["host_network"],
            share_process_namespace=pod["share_process_namespace"],
            netns=sandbox.netns,
            cgroup_namespace=self._cgroup_namespace,
        )


def node_ip(interface: str = "eth0") -> str:
    """The node's own IPv4 address, which hostNetwork pods have; empty when it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            siocgifaddr = 0x8915
            answer = fcntl.ioctl(probe, siocgifaddr, struct.pack("256s", interface.encode()))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])


def _uuid() -> str:
    """A random UUID (version 4); the module ``uuid`` costs 5 ms and 1 MiB."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _bounding_set() -> int:
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    return 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
