"""The ``calico`` CNI plugin: address by IPAM, a veth, and a WorkloadEndpoint that says so.

Reproduces ``cni-plugin/pkg/{plugin,k8s}`` of projectcalico/calico on the skeleton of
containernetworking/cni, texts included; the result is that of 3.31 and 3.32. In place of Calico's
datastore there are files: WorkloadEndpoints in :data:`ENDPOINTS`. Nobody can be asked for a pod's
annotations. CHECK, which upstream only answers, checks.
"""

from __future__ import annotations

import os
import sys

from . import calico_dataplane as dataplane
from .calico_workload import VERSIONS, Log, Workload, addresses_of, print_result, read
from .cni_skeleton import CniPluginError, dumps, execute_delegate, loads, plugin_main

try:  # hashlib loads OpenSSL: 3 MiB of memory for one hash
    from _sha1 import sha1  # type: ignore[import-not-found]
except ImportError:  # Python 3.12 and newer
    from hashlib import sha1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["host_veth", "main"]

VERSION = "v3.32.0-testbed"
NODENAME = "/var/lib/calico/nodename"
MTU = "/var/lib/calico/mtu"
ENDPOINTS = "/var/lib/calico/endpoints"
"""A file for each workload, named after the node's end of its veth."""


def host_veth(namespace: str, pod: str) -> str:
    """The name of the node's end of a pod's veth."""
    digest = sha1(f"{namespace}.{pod}".encode()).hexdigest()  # noqa: S324 - Calico's choice
    return f"cali{digest[:11]}"


def _add(config: dict[str, Any]) -> None:
    workload, log = _begin(config)
    mtu = _mtu(config)
    ipam = _ipam_type(config)
    netns = _netns()
    answer = execute_delegate(ipam, "ADD", dumps(config), failed="")
    try:
        addresses = _addresses(_decoded(answer))
        log.info(f"Calico CNI using IPs: [{' '.join(addresses)}]")
        host = _host_veth(workload)
        mac = _connect(config, workload, netns, mtu, addresses)
        _write_endpoint(workload, host, mac, addresses)
    except (CniPluginError, OSError):
        log.info("Cleaning up IP allocations for failed ADD")
        try:
            execute_delegate(ipam, "DEL", dumps(config))
        except (CniPluginError, OSError):
            log.warning("Failed to clean up IP allocations for failed ADD")
        raise
    log.info(f"Wrote updated endpoint to datastore: {host} {mac}")
    inside = {"name": workload.ifname, "mac": mac, "sandbox": os.environ["CNI_NETNS"]}
    print_result(config, addresses, [{"name": host}, inside])


def _connect(
    config: dict[str, Any], workload: Workload, netns: str, mtu: int, addresses: list[str]
) -> str:
    """Make both ends of the veth, or, unlike upstream, none; the MAC address of the pod's."""
    host = _host_veth(workload)
    forwarding = bool((config.get("container_settings") or {}).get("allow_ip_forwarding"))
    try:
        mac = dataplane.connect(host, netns, workload.ifname, mtu, addresses)
        dataplane.configure_pod(netns, workload.ifname, addresses, forwarding)
    except (CniPluginError, OSError):
        dataplane.remove_host_link(host)
        raise
    return mac


def _begin(config: dict[str, Any]) -> tuple[Workload, Log]:
    """What upstream looks at first: is calico/node there, and who is the workload?"""
    path = config.get("nodename_file") or NODENAME
    if not config.get("nodename_file_optional") and not os.path.exists(path):  # noqa: PTH110
        raise CniPluginError(
            f"stat {path}: no such file or directory: check that the calico/node container is "
            "running and has mounted /var/lib/calico/"
        )
    # For the IPAM plugin, too: runtimes send more than it knows.
    os.environ["CNI_ARGS"] = f"IgnoreUnknown=1;{os.environ.get('CNI_ARGS', '')}".rstrip(";")
    workload = Workload(config)
    fields = {"ContainerID": workload.container}
    if workload.pod:
        fields["Namespace"], fields["Pod"] = workload.namespace, workload.pod
        fields["WorkloadEndpoint"] = workload.name
    return workload, Log("cni-plugin", config, fields)


def _host_veth(workload: Workload) -> str:
    if workload.pod:
        return host_veth(workload.namespace, workload.pod)
    return f"cali{workload.container[:11]}"


def _mtu(config: dict[str, Any]) -> int:
    """The configuration's, else what Felix found; 0 when nobody says."""
    text = read(MTU).strip()
    if text and not (text.isascii() and text.isdigit()):
        raise CniPluginError(
            f'failed to read MTU file: strconv.Atoi: parsing "{text}": invalid syntax'
        )
    return int(config.get("mtu") or text or 0)


def _netns() -> str:
    path = os.environ["CNI_NETNS"]
    netns = dataplane.open_netns(path)
    if not netns and os.path.exists(path):  # noqa: PTH110
        raise CniPluginError(f'failed to open netns "{path}": unknown FS magic on "{path}"')
    if not netns:
        raise CniPluginError(f'failed to Statfs "{path}": no such file or directory')
    return netns


def _ipam_type(config: dict[str, Any]) -> str:
    ipam = config.get("ipam")
    kind = ipam.get("type") if isinstance(ipam, dict) else None
    if not isinstance(kind, str):
        raise CniPluginError("ipam.type is missing or no text", 7)
    return kind


def _decoded(answer: str) -> dict[str, Any]:
    try:
        result = loads(answer)
    except ValueError as error:
        raise CniPluginError(f"IPAM plugin returned no JSON: {error}", 6) from None
    return result if isinstance(result, dict) else {}


def _addresses(result: dict[str, Any]) -> list[str]:
    """A result's addresses, each for itself, whatever prefix length IPAM says."""
    found = [address.partition("/")[0] for address in addresses_of(result)]
    if not found:
        raise CniPluginError("IPAM plugin returned missing IP config")
    return [f"{address}/{128 if ':' in address else 32}" for address in found]


def _write_endpoint(workload: Workload, host: str, mac: str, addresses: list[str]) -> None:
    endpoint = {
        "name": workload.name,
        "namespace": workload.namespace,
        "spec": {
            "containerID": workload.container,
            "endpoint": workload.ifname,
            "interfaceName": host,
            "ipNetworks": addresses,
            "mac": mac,
            "node": workload.node,
            "orchestrator": "k8s" if workload.pod else "cni",
            "pod": workload.pod,
        },
    }
    os.makedirs(ENDPOINTS, exist_ok=True)  # noqa: PTH103 - pathlib costs 5 ms
    with open(f"{ENDPOINTS}/{host}.json", "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(dumps(endpoint))


def _delete(config: dict[str, Any]) -> None:
    workload, log = _begin(config)
    host = _host_veth(workload)
    mine = _owns_endpoint(workload, host, log)
    netns = dataplane.open_netns(os.environ.get("CNI_NETNS", ""))
    if netns:
        dataplane.remove_pod_link(netns, workload.ifname)
    elif mine and dataplane.exists(host):
        dataplane.remove_host_link(host)
    execute_delegate(_ipam_type(config), "DEL", dumps(config))
    if mine:
        os.unlink(f"{ENDPOINTS}/{host}.json")  # noqa: PTH108
    log.info("Teardown processing complete.")


def _owns_endpoint(workload: Workload, host: str, log: Log) -> bool:
    """Whether the endpoint is this container's: a pod's name may already have a new sandbox."""
    text = read(f"{ENDPOINTS}/{host}.json")
    if not text:
        log.warning(
            "WorkloadEndpoint does not exist in the datastore, moving forward with the clean up"
        )
        return False
    try:
        owner = loads(text)["spec"]["containerID"]
    except (ValueError, KeyError, TypeError):  # half written: nobody else will remove it
        return True
    if owner != workload.container:
        log.warning(
            "CNI_CONTAINERID does not match WorkloadEndpoint ContainerID, don't delete WEP."
        )
    return bool(owner == workload.container)


def _check(config: dict[str, Any]) -> None:
    workload, _ = _begin(config)
    previous = config.get("prevResult")
    if not isinstance(previous, dict):
        raise CniPluginError("required prevResult missing", 7)
    netns = _netns()
    execute_delegate(_ipam_type(config), "CHECK", dumps(config))
    addresses = _addresses(previous)
    dataplane.check_host(_host_veth(workload), addresses)
    dataplane.check_pod(netns, workload.ifname, addresses)


def _reporting(name: str, action: Callable[[dict[str, Any]], None]) -> Any:
    """The command, with an error in the log, too."""

    def command(config: dict[str, Any]) -> None:
        try:
            action(config)
        except (CniPluginError, OSError) as error:
            words = error.answer.get("msg") if isinstance(error, CniPluginError) else str(error)
            log = Log("cni-plugin", config, {"ContainerID": os.environ["CNI_CONTAINERID"]})
            log.error(f"Final result of CNI {name} was an error.", str(words))
            raise

    return command


COMMANDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "ADD": _reporting("ADD", _add),
    "DEL": _reporting("DEL", _delete),
    "CHECK": _reporting("CHECK", _check),
}


def main() -> int:
    """Run the command in the environment; the exit status."""
    if sys.argv[1:] == ["-v"]:
        sys.stdout.write(f"{VERSION}\n")
        return 0
    return plugin_main(f"Calico CNI plugin {VERSION}", COMMANDS, VERSIONS)
