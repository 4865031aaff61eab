"""One look at a node's live rules, with the native tools of its kube-proxy's mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from testbed.errors import NodeError
from testbed.node import container
from testbed.verify.service import iptables, ipvs, nftables
from testbed.verify.service.facts import Facts
from testbed.verify.service.tree import View

if TYPE_CHECKING:
    import docker

__all__ = ["MODES", "read"]

MODES: Mapping[str, tuple[tuple[str, ...], Callable[[str, Facts, str], View]]] = MappingProxyType(
    {
        "iptables": (iptables.COMMAND, iptables.view),
        "ipvs": (ipvs.COMMAND, ipvs.view),
        "nftables": (nftables.COMMAND, nftables.view),
    }
)
"""kube-proxy's mode → what to run on the node, and what makes a view of its output."""


def read(client: docker.DockerClient, testbed: str, node: str, mode: str, service: Facts) -> View:
    """The chains for one Service on one node, as they are now.

    Raises:
        NodeError: the node does not run, or its tools refused.
    """
    command, view = MODES[mode]
    name = f"{testbed}-{node}"
    code, out, err = container.run(client, name, list(command))
    if code != 0:
        said = err.decode(errors="replace").strip() or f"exit code {code}"
        raise NodeError(f"the rules of node {node} cannot be read: `{command[0]}`: {said}")
    return view(out.decode(errors="replace"), service, node)
