"""The ``calico-ipam`` CNI plugin: addresses from the node's IPAM blocks.

Reproduces ``cni-plugin/pkg/ipamplugin/ipam_plugin.go`` of projectcalico/calico on the skeleton of
containernetworking/cni, texts included. In place of Calico's datastore there are files: what the
cluster decided about this node (:data:`DATASTORE`), and its blocks (:data:`STATE`), each in the
shape of an IPAMBlock resource's specification.

Deviations, on purpose: a requested address (``IP=``) that cannot be given is replaced by another
one; and the result's prefix length is 32, not the block's. Only IPv4.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

from .calico_blocks import Allocations
from .calico_workload import VERSIONS, Log, Workload, print_result, read
from .cni_skeleton import CniPluginError, dumps, loads, plugin_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["main"]

VERSION = "v3.32.0-testbed"
DATASTORE = "/etc/calico/ipam.json"
"""``node``, ``strict_affinity``, ``blocks``, ``lent``, ``borrowed``, ``reserved`` (handle →
address); optionally ``pools``, for messages."""
STATE = "/var/lib/calico/ipam"
BORROWED = "borrowed.json"
LOCK = "/var/run/calico/ipam.lock"


def _add(config: dict[str, Any]) -> None:
    _refuse_unsupported(config)
    workload = Workload(config)
    log = _log(config, workload)
    if workload.requested_ip:
        log.info(f"Calico CNI IPAM request IP: {workload.requested_ip}")
    with _Locked(config):
        datastore = _datastore()
        if datastore is None:
            raise CniPluginError(
                f"error getting IPAM blocks: open {DATASTORE}: no such file or directory"
            )
        store = _Store(datastore)
        for own, handle in store.allocations.conflicts.items():
            who = f"assigned to {handle}" if handle else f"in no block of {workload.node}"
            raise CniPluginError(f"the node's own address {own} is {who}")
        owner = _owner(workload)
        address = store.allocations.assign(workload.handle, owner, workload.requested_ip)
        store.save()
    if not address:
        raise CniPluginError(f"failed to request IPv4 addresses: {_exhausted(datastore)}")
    log.info(f"Calico CNI IPAM assigned addresses IPv4=[{address}/32] IPv6=[]")
    print_result(config, [f"{address}/32"])


def _owner(workload: Workload) -> dict[str, str]:
    """What is kept with an address, the time as Go prints it."""
    now = time.time_ns()
    seconds = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now // 10**9))
    pod = {"namespace": workload.namespace, "node": workload.node, "pod": workload.pod}
    owner = pod if workload.pod else {"node": workload.node}
    return {**owner, "timestamp": f"{seconds}.{now % 10**9:09} +0000 UTC"}


def _refuse_unsupported(config: dict[str, Any]) -> None:
    ipam = config.get("ipam") or {}
    for key in ("ipv4_pools", "ipv6_pools"):
        if ipam.get(key):
            raise CniPluginError(f"unsupported field ipam.{key}", 2)
    for key, default in (("assign_ipv4", "true"), ("assign_ipv6", "false")):
        if ipam.get(key, default) != default:
            raise CniPluginError(f"unsupported value of ipam.{key}: {ipam[key]}", 2)


def _exhausted(datastore: dict[str, Any]) -> str:
    """What upstream says when it has no address (``PartialFulfillmentError``)."""
    words = "Assigned 0 out of 1 requested IPv4 addresses; "
    if datastore.get("strict_affinity"):
        return f"{words}No more free affine blocks and strict affinity enabled"
    pools = datastore.get("pools") or datastore.get("blocks") or []
    return f"{words}No IPs available in pools: [{' '.join(pools)}]"


def _delete(config: dict[str, Any]) -> None:
    workload = Workload(config)
    log = _log(config, workload)
    with _Locked(config):
        store = _Store(_datastore())
        released = store.allocations.release(workload.handle)
        store.save()
    if released:
        log.info(f"Released address using handleID: {' '.join(released)}")
    else:
        log.warning("Asked to release address but it doesn't exist. Ignoring")


def _check(config: dict[str, Any]) -> None:
    """Upstream has none; what host-local's asks: is there an address of this workload?"""
    workload = Workload(config)
    with _Locked(config):
        if not _Store(None).allocations.held(workload.handle):
            raise CniPluginError(f"no address assigned to handle {workload.handle}")


def _log(config: dict[str, Any], workload: Workload) -> Log:
    fields = {
        "ContainerID": workload.container,
        "HandleID": workload.handle,
        "Workload": workload.name,
    }
    return Log("ipam", config, fields)


class _Locked:
    """The host-wide IPAM lock, as ``acquireIPAMLockBestEffort`` takes it; the block holds it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._path = str(config.get("ipam_lock_file") or LOCK)
        self._descriptor = -1

    def __enter__(self) -> None:
        os.makedirs(os.path.dirname(self._path), exist_ok=True)  # noqa: PTH103, PTH120
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _datastore() -> dict[str, Any] | None:
    """What the cluster decided about this node; ``None`` when the file is not there.

    Raises:
        CniPluginError: it is malformed.
    """
    text = read(DATASTORE)
    return _decoded(DATASTORE, text) if text else None


def _decoded(path: str, text: str) -> dict[str, Any]:
    try:
        value = loads(text)
        if isinstance(value, dict):
            return value
        raise ValueError("not a JSON object")
    except ValueError as error:
        raise CniPluginError(f"error unmarshalling {path}: {error}", 6) from None


class _Store:
    """The allocations and the files that keep them."""

    def __init__(self, datastore: dict[str, Any] | None) -> None:
        os.makedirs(STATE, mode=0o755, exist_ok=True)  # noqa: PTH103
        self._kept = {
            name: read(f"{STATE}/{name}")
            for name in sorted(os.listdir(STATE))  # noqa: PTH208
            if name.endswith(".json")
        }
        decoded = {
            name: _decoded(f"{STATE}/{name}", text) for name, text in self._kept.items() if text
        }
        borrowed = decoded.pop(BORROWED, {})
        try:
            blocks = {str(block["cidr"]): block for block in decoded.values()}
            self.allocations = Allocations(datastore, blocks, borrowed)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CniPluginError(f"invalid IPAM data: {error!r}", 6) from None

    def save(self) -> None:
        """Write what changed, each file at once; remove blocks that nobody needs any more."""
        unused = {_file_name(cidr) for cidr in self.allocations.unused()}
        wanted = {_file_name(cidr): dumps(block) for cidr, block in self.allocations.blocks.items()}
        if self.allocations.borrowed or BORROWED in self._kept:
            wanted[BORROWED] = dumps(self.allocations.borrowed)
        for name, text in wanted.items():
            path = f"{STATE}/{name}"
            if name in unused:
                os.unlink(path)  # noqa: PTH108
            elif text != self._kept.get(name):
                with open(f"{path}.new", "w", encoding="utf-8") as file:  # noqa: PTH123
                    file.write(text)
                os.rename(f"{path}.new", path)  # noqa: PTH104


def _file_name(cidr: str) -> str:
    """The name of the IPAMBlock resource, and ``.json``."""
    return cidr.replace(".", "-").replace("/", "-") + ".json"


COMMANDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "ADD": _add,
    "DEL": _delete,
    "CHECK": _check,
}


def main() -> int:
    """Run the command in the environment; the exit status."""
    if sys.argv[1:] == ["-v"]:
        sys.stdout.write(f"{VERSION}\n")
        return 0
    return plugin_main(f"Calico CNI IPAM {VERSION}", COMMANDS, VERSIONS)
