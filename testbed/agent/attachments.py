"""What Kubernetes' runtimes tell CNI about a pod. Pure.

``CNI_ARGS`` as containerd sends them (``internal/cri/server/sandbox_run.go``,
``cniNamespaceOpts``), host ports and bandwidth as the capabilities of CNI's CONVENTIONS.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .cni_cache import Attachment
from .desired import pod_key

__all__ = ["attachment"]


def attachment(
    pod: Mapping[str, Any], sandbox_id: str, netns: str, ifname: str, requested_ip: str = ""
) -> Attachment:
    """The arguments of ADD for one interface of a pod.

    Args:
        pod: a PodSpec as JSON.
        sandbox_id: 64 hexadecimal digits.
        netns: path of the pinned network namespace.
        ifname: ``lo`` or ``eth0``; capabilities are ``eth0``'s.
        requested_ip: an address for IPAM (``IP=``, which host-local reads), or empty.
    """
    args = [
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", pod["namespace"]),
        ("K8S_POD_NAME", pod["name"]),
        ("K8S_POD_INFRA_CONTAINER_ID", sandbox_id),
        ("K8S_POD_UID", pod["uid"]),
    ]
    if requested_ip:
        args.append(("IP", requested_ip))
    capabilities: dict[str, Any] = {}
    if ifname != "lo" and pod["port_mappings"]:
        capabilities["portMappings"] = [_port_mapping(port) for port in pod["port_mappings"]]
    if ifname != "lo" and pod["bandwidth"]:
        capabilities["bandwidth"] = dict(pod["bandwidth"])
    return Attachment(sandbox_id, netns, ifname, tuple(args), capabilities, pod_key(pod))


def _port_mapping(port: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hostPort": port["host_port"],
        "containerPort": port["container_port"],
        "protocol": port["protocol"],
        "hostIP": port.get("host_ip", ""),
    }
