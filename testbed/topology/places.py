"""What a topology has that can be meant by a name, in words for whoever named something else."""

from __future__ import annotations

from testbed.topology.model import Cluster

__all__ = ["there_is"]


def there_is(cluster: Cluster) -> str:
    """Nodes, routers, clients and pods, a line each."""
    clients = ", ".join(client.name for client in cluster.clients)
    routers = ", ".join(router.name for router in cluster.routers)
    pods = ", ".join(pod.key.removeprefix("default/") for pod in cluster.pods)
    lines = [
        f"nodes: {', '.join(node.name for node in cluster.nodes)}",
        *([f"routers: {routers}"] if routers else []),
        *([f"clients: {clients}"] if clients else []),
        f"pods: {pods or 'none'}",
    ]
    return "\n".join(lines)
