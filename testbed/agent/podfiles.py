"""The files that all containers of a pod share, as kubelet writes them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["host_network_hosts", "hosts"]

HEADER = "# Kubernetes-managed hosts file.\n"
HEADER_HOST_NETWORK = "# Kubernetes-managed hosts file (host network).\n"


def hosts(ips: Sequence[str], hostname: str) -> str:
    """``/etc/hosts`` of a pod (kubelet_pods.go, ``managedHostsFileContent``)."""
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
        *(f"{ip}\t{hostname}" for ip in ips),
    ]
    return HEADER + "".join(f"{line}\n" for line in lines)


def host_network_hosts(node_hosts: str) -> str:
    """``/etc/hosts`` of a hostNetwork pod: the node's own below kubelet's header."""
    return HEADER_HOST_NETWORK + node_hosts
