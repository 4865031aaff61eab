"""libcni's result cache: what DEL and CHECK must know of an ADD, also after a restart.

``/var/lib/cni/results/<network>-<container id>-<interface>``, directory 0700, files 0600, JSON of
kind ``cniCacheV1`` with libcni's own keys (``libcni/api.go``, ``cachedInfo``), so that libcni and
``cnitool`` could read it.
"""

from __future__ import annotations

import binascii
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["Attachment", "Cache", "Cached"]


class Attachment(NamedTuple):
    """One interface of one sandbox: the arguments of ADD, CHECK and DEL."""

    container_id: str
    netns: str
    """Path; empty when the namespace is gone (DEL only)."""
    ifname: str
    args: tuple[tuple[str, str], ...] = ()
    """``CNI_ARGS``, in order."""
    capabilities: Mapping[str, Any] = MappingProxyType({})
    pod: str = ""
    """``namespace/name`` for log lines."""


class Cached(NamedTuple):
    """One entry of the cache."""

    attachment: Attachment
    network: str
    config: str
    """The configuration list that ADD was run with."""
    result: dict[str, Any] | None


class Cache:
    """The cache in one directory."""

    def __init__(self, directory: str = "/var/lib/cni/results") -> None:
        self.directory = directory

    def _path(self, network: str, attachment: Attachment) -> Path:
        name = f"{network}-{attachment.container_id}-{attachment.ifname}"
        return Path(self.directory, name)

    def store(
        self, network: str, config: str, attachment: Attachment, result: dict[str, Any]
    ) -> None:
        """Keep the final result of an ADD."""
        entry: dict[str, Any] = {
            "kind": "cniCacheV1",
            "containerId": attachment.container_id,
            "config": binascii.b2a_base64(config.encode(), newline=False).decode(),
            "ifName": attachment.ifname,
            "networkName": network,
            "netns": attachment.netns,
        }
        if attachment.args:
            entry["cniArgs"] = [list(pair) for pair in attachment.args]
        if attachment.capabilities:
            entry["capabilityArgs"] = dict(attachment.capabilities)
        entry["result"] = result
        Path(self.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(network, attachment)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(entry, file, separators=(",", ":"))

    def read(self, network: str, attachment: Attachment) -> Cached | None:
        """The entry of an attachment; ``None`` when there is none (that is not an error)."""
        return self._read(self._path(network, attachment))

    def _read(self, path: Path) -> Cached | None:
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            attachment = Attachment(
                container_id=entry["containerId"],
                netns=entry.get("netns", ""),
                ifname=entry["ifName"],
                args=tuple((str(key), str(value)) for key, value in entry.get("cniArgs", [])),
                capabilities=entry.get("capabilityArgs", {}),
            )
            config = binascii.a2b_base64(entry["config"]).decode()
            return Cached(attachment, entry["networkName"], config, entry.get("result"))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def forget(self, network: str, attachment: Attachment) -> None:
        """Remove an entry, if there is one."""
        self._path(network, attachment).unlink(missing_ok=True)

    def entries(self, container_id: str = "") -> Iterator[Cached]:
        """Every readable entry, or those of one container, ordered by file name."""
        if not Path(self.directory).is_dir():
            return
        for path in sorted(Path(self.directory).glob(f"*-{container_id}*")):
            entry = self._read(path)
            if entry is not None:
                yield entry
