"""What both Calico plugins know of the workload that they are called for, and their log.

Reproduces ``cni-plugin/internal/pkg/utils/utils.go`` and ``libcalico-go/lib/names``.
"""

from __future__ import annotations

import os
import sys
import time

from .cni_skeleton import arguments, dumps, indented

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["VERSIONS", "Log", "Workload", "addresses_of", "node_name", "print_result", "read"]

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0")
"""Of the CNI specification: Calico's plugins do not support 1.1.0."""
NODENAME = "/var/lib/calico/nodename"


class Workload:
    """The identifiers of the attachment in the environment.

    Args:
        config: the plugin's configuration.

    Attributes:
        handle: by which IPAM keeps the workload's addresses.
        name: of its WorkloadEndpoint.
        requested_ip: an address that the runtime asks for, or empty.

    Raises:
        CniPluginError: ``CNI_ARGS`` is malformed.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        known = arguments("IP")
        self.node = node_name(config)
        self.container = os.environ["CNI_CONTAINERID"]
        self.ifname = os.environ["CNI_IFNAME"]
        self.handle = f"{config['name']}.{self.container}"
        self.requested_ip = known.get("IP", "")
        self.pod, self.namespace = known.get("K8S_POD_NAME", ""), known.get("K8S_POD_NAMESPACE", "")
        if not (self.pod and self.namespace):
            self.pod, self.namespace = "", "default"
        kind = ("k8s", self.pod) if self.pod else ("cni", self.container)
        parts = (self.node, *kind, self.ifname)
        self.name = "-".join(part.replace("-", "--") for part in parts)


def node_name(config: dict[str, Any]) -> str:
    """The name of this node, from the configuration or the file that calico/node writes."""
    name = config.get("nodename") or read(config.get("nodename_file") or NODENAME)
    return str(name or os.uname().nodename.lower()).strip()


def read(path: str) -> str:
    """The text of a file; empty when there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs 5 ms
            return file.read()
    except FileNotFoundError:
        return ""


class Log:
    """Lines as Calico writes them (``lib/logrusr``), to ``log_file_path`` or standard error.

    Args:
        component: begins the name of the source file.
        config: the plugin's configuration.
        fields: end every line.
    """

    def __init__(self, component: str, config: dict[str, Any], fields: dict[str, str]) -> None:
        self._component = component
        self._path = str(config.get("log_file_path") or "")
        self._errors_only = str(config.get("log_level", "")).lower() == "error"
        self._fields = fields

    def info(self, message: str) -> None:
        """Something happened as it should."""
        if not self._errors_only:
            self._write("INFO", message, {})

    def warning(self, message: str) -> None:
        """Something is odd, and nothing fails."""
        if not self._errors_only:
            self._write("WARNING", message, {})

    def error(self, message: str, error: str) -> None:
        """The command fails."""
        self._write("ERROR", message, {"error": error})

    def _write(self, level: str, message: str, more: dict[str, str]) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        caller = sys._getframe(2)
        where = f"{caller.f_code.co_filename.rpartition('/')[2]} {caller.f_lineno}"
        fields = sorted({**self._fields, **more}.items())
        line = (
            f"{stamp}.{int(now % 1 * 1000):03} [{level}][{os.getpid()}] {self._component}/{where}: "
            f"{message}{''.join(f' {key}={dumps(value)}' for key, value in fields)}\n"
        )
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)  # noqa: PTH103, PTH120
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o644)
        except OSError:  # not configured, or no place for it: upstream goes on, too
            sys.stderr.write(line)
            return
        os.write(descriptor, line.encode())
        os.close(descriptor)


def addresses_of(result: dict[str, Any]) -> list[str]:
    """The addresses with prefix length of a result of any version."""
    if "ips" in result:
        return [str(each["address"]) for each in result["ips"] or []]
    return [str(result[key]["ip"]) for key in ("ip4", "ip6") if result.get(key)]


def print_result(
    config: dict[str, Any], addresses: list[str], interfaces: list[dict[str, str]] | None = None
) -> None:
    """Print the result of ADD in the configuration's version.

    Args:
        config: the plugin's configuration.
        addresses: with prefix length.
        interfaces: if any, the addresses are the second one's.
    """
    version = config.get("cniVersion") or "0.2.0"
    result: dict[str, Any] = {"cniVersion": version}
    if version < "0.3.0":
        for address in addresses:
            result["ip6" if ":" in address else "ip4"] = {"ip": address}
        sys.stdout.write(indented(result))
        return
    if interfaces:
        result["interfaces"] = interfaces
    result["ips"] = []
    for address in addresses:
        entry: dict[str, Any] = {}
        if version < "1.0.0":
            entry["version"] = "6" if ":" in address else "4"
        if interfaces:
            entry["interface"] = 1
        result["ips"].append({**entry, "address": address})
    sys.stdout.write(indented(result))
