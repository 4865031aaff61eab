"""The container runtime's side of CNI: ADD, CHECK and DEL of a network configuration list.

CNI specification 1.1.0, sections 2 and 3, as libcni (``AddNetworkList``, ``CheckNetworkList``,
``DelNetworkList``, ``pkg/invoke``) implements them. One deviation on purpose: libcni leaves it to
its caller to undo a failed ADD; here a failed ADD is followed by DEL of the whole list.

Everything blocks: call it from a worker thread.
"""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

from . import journal
from .cni_cache import Attachment, Cache
from .command import Completed, execute
from .conflist import Network, at_least, execution_config
from .errors import AgentError, CniError
from .layout import CNI_BIN

__all__ = ["CniRuntime", "first_ipv4", "host_interface", "pod_ips"]

STDERR_KEPT = 2000
"""Characters of a plugin's standard error that its error keeps; the log has all of it."""
BUSY_RETRIES = 5
BUSY_DELAY = 1.0
"""Seconds between attempts to execute a plugin that is being written (pkg/invoke/raw_exec.go)."""
_SHAPER = "bwp"
"""What names of ``bandwidth``'s ifb devices begin with (plugins/meta/bandwidth/main.go)."""


class CniRuntime:
    """Executes plugins found in ``path`` and keeps results in ``cache``."""

    def __init__(self, path: str = CNI_BIN, cache: Cache | None = None) -> None:
        self.path = path
        self.cache = cache or Cache()

    def add(self, network: Network, attachment: Attachment) -> dict[str, Any]:
        """Attach; return the last plugin's result, which is also cached.

        Raises:
            CniError: a plugin failed; what was done before is undone.
        """
        result: dict[str, Any] | None = None
        try:
            for plugin in network.plugins:
                config = execution_config(network, plugin, attachment.capabilities, result)
                result = self._call("ADD", plugin["type"], attachment, config)
            if result is None:
                raise CniError(network.plugins[-1]["type"], "ADD", 6, "no result on stdout")
            self.cache.store(network.name, network.source, attachment, result)
        except Exception:
            self._roll_back(network, attachment, result)
            raise
        return result

    def _roll_back(
        self, network: Network, attachment: Attachment, result: dict[str, Any] | None
    ) -> None:
        for plugin in reversed(network.plugins):
            config = execution_config(network, plugin, attachment.capabilities, result)
            try:
                self._call("DEL", plugin["type"], attachment, config)
            except (AgentError, OSError) as error:
                journal.emit("cni", f"roll back: {error}", level="warn", pod=attachment.pod or None)
        self.cache.forget(network.name, attachment)

    def check(self, network: Network, attachment: Attachment) -> None:
        """Ask every plugin, in order, whether the attachment is as ADD left it.

        Raises:
            CniError: a plugin objects; or (code 1) the configuration is older than CHECK.
        """
        if not at_least(network.version, "0.4.0"):
            msg = f"configuration version {network.version!r} does not support CHECK command"
            raise CniError(network.name, "CHECK", 1, msg)
        if network.disable_check:
            return
        cached = self.cache.read(network.name, attachment)
        if cached is None or cached.result is None:
            msg = f"no cached result of {attachment.container_id} {attachment.ifname}"
            raise CniError(network.name, "CHECK", 3, msg)
        for plugin in network.plugins:
            config = execution_config(network, plugin, attachment.capabilities, cached.result)
            self._call("CHECK", plugin["type"], attachment, config)

    def delete(self, network: Network, attachment: Attachment) -> None:
        """Detach: plugins in reverse order, each with the final result; may be repeated.

        A missing cache entry or network namespace is no error. From version 0.4.0 on plugins get
        the result as ``prevResult``, as libcni does.

        Raises:
            CniError: a plugin failed; the entry stays, so that the next attempt knows the result.
        """
        cached = self.cache.read(network.name, attachment)
        known = cached is not None and at_least(network.version, "0.4.0")
        result = cached.result if cached is not None and known else None
        for plugin in reversed(network.plugins):
            config = execution_config(network, plugin, attachment.capabilities, result)
            self._call("DEL", plugin["type"], attachment, config)
        self.cache.forget(network.name, attachment)

    def _find(self, plugin: str, command: str) -> str:
        directories = self.path.split(":")
        for directory in directories:
            candidate = f"{directory}/{plugin}"
            if Path(candidate).is_file():
                return candidate
        msg = f'failed to find plugin "{plugin}" in path [{" ".join(directories)}]'
        raise CniError(plugin, command, 999, msg)

    def _call(
        self, command: str, plugin: str, attachment: Attachment, config: dict[str, Any]
    ) -> dict[str, Any] | None:
        executable = self._find(plugin, command)
        done = self._execute(executable, command, attachment, json.dumps(config).encode())
        stderr = done.stderr.decode(errors="replace").strip()
        if stderr:
            journal.emit("cni", stderr, pod=attachment.pod or None, plugin=plugin, command=command)
        if done.status:
            raise _plugin_error(plugin, command, done, stderr)
        if command != "ADD":
            return None
        try:
            result = json.loads(done.stdout)
        except ValueError as error:
            raise CniError(plugin, command, 6, f"result is not JSON: {error}") from None
        if not isinstance(result, dict):
            raise CniError(plugin, command, 6, "result is not a JSON object")
        return result

    def _execute(
        self, executable: str, command: str, attachment: Attachment, config: bytes
    ) -> Completed:
        environment = {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": attachment.container_id,
            "CNI_NETNS": attachment.netns,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in attachment.args),
            "CNI_IFNAME": attachment.ifname,
            "CNI_PATH": self.path,
        }
        for attempt in range(BUSY_RETRIES + 1):
            try:
                return execute([executable], stdin=config, env=environment)
            except OSError as error:
                if error.errno != errno.ETXTBSY or attempt == BUSY_RETRIES:
                    raise CniError(Path(executable).name, command, 5, str(error)) from None
                time.sleep(BUSY_DELAY)
        raise AssertionError


def _plugin_error(plugin: str, command: str, done: Completed, stderr: str) -> CniError:
    """As ``pkg/invoke`` reads a failed plugin: error JSON on stdout, else what it printed."""
    text = done.stdout.decode(errors="replace").strip()
    if not text:
        said = stderr.splitlines()[0] if stderr else "no error message"
        msg = f"netplugin failed with exit status {done.status}: {said}"
        return CniError(plugin, command, 999, msg, stderr=stderr[-STDERR_KEPT:])
    try:
        error = json.loads(text)
        code, msg, details = error["code"], error["msg"], error.get("details", "")
        kept = stderr[-STDERR_KEPT:]
        return CniError(plugin, command, int(code), str(msg), str(details), kept)
    except (ValueError, KeyError, TypeError, AttributeError):
        msg = f"netplugin failed but error parsing its diagnostic message {text!r}"
        return CniError(plugin, command, 999, msg, stderr=stderr[-STDERR_KEPT:])


def pod_ips(result: dict[str, Any]) -> tuple[str, ...]:
    """The addresses of a result without prefix length, in the plugins' order; any version."""
    if "ips" in result:
        addresses = [entry["address"] for entry in result["ips"] or []]
    else:  # before 0.3.0
        addresses = [result[key]["ip"] for key in ("ip4", "ip6") if result.get(key)]
    return tuple(address.partition("/")[0] for address in addresses)


def first_ipv4(addresses: tuple[str, ...]) -> str:
    """The pod's address as containerd chooses it by default; empty when there is none."""
    return next((address for address in addresses if ":" not in address), "")


def host_interface(result: dict[str, Any]) -> str:
    """The name of the node's end of the pod's link.

    That is the last interface of the result that is in no sandbox: ``bridge`` lists the bridge
    before the veth, ``ptp`` and ``calico`` list the veth alone. Behind them ``bandwidth`` lists the
    device that shapes what the pod sends.
    """
    names = [
        interface["name"]
        for interface in result.get("interfaces") or []
        if not interface.get("sandbox") and not interface["name"].startswith(_SHAPER)
    ]
    return str(names[-1]) if names else ""
