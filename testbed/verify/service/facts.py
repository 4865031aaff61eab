"""What a Service's addresses, ports and endpoints are, to recognise them in rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from testbed.verify.service.tree import Endpoint

__all__ = ["Facts", "facts"]

_KINDS = {
    "cluster": "the cluster IP",
    "external": "an external IP",
    "balancer": "the load balancer's IP",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """One Service, as far as rules show it; protocols are in lower case."""

    key: str
    """``namespace/name``."""
    kinds: Mapping[str, str]
    """Address → what it is."""
    ports: frozenset[tuple[str, int]]
    """Protocols and ports at those addresses."""
    node_ports: frozenset[tuple[str, int]]
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    """``10.244.0.5:8080`` → who that is."""

    @staticmethod
    def nobody() -> Facts:
        """No Service: for rules that all have in common."""
        return Facts("", {}, frozenset(), frozenset())

    def portal(self, address: str, protocol: str, port: int) -> str:
        """What ``address`` is, if the Service is served there; else empty."""
        return self.kinds.get(address, "") if (protocol, port) in self.ports else ""

    def node_port(self, protocol: str, port: int) -> str:
        """Words for one of its node ports; else empty."""
        return "its node port" if (protocol, port) in self.node_ports else ""

    def named(self, comment: str) -> bool:
        """Whether a comment of kube-proxy's is about the Service: ``ns1/svc1:p80 cluster IP``."""
        return any(word.partition(":")[0] == self.key for word in comment.replace("(", " ").split())

    def endpoint(self, address: str) -> Endpoint:
        """Whoever has ``address``, also where the Service does not know it (any more)."""
        return self.endpoints.get(address) or Endpoint(address)


def facts(entry: Mapping[str, Any]) -> Facts:
    """From an entry of the status's ``services``."""
    return Facts(
        f"{entry['namespace']}/{entry['name']}",
        dict(_addresses(entry)),
        frozenset((each["protocol"].lower(), int(each["port"])) for each in entry["ports"]),
        frozenset(
            (each["protocol"].lower(), int(each["node_port"]))
            for each in entry["ports"]
            if each.get("node_port")
        ),
        dict(_endpoints(entry["endpoints"])),
    )


def _addresses(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if entry.get("cluster_ip") not in (None, "", "None"):
        yield entry["cluster_ip"], _KINDS["cluster"]
    for address in entry.get("external_ips") or ():
        yield address, _KINDS["external"]
    if entry.get("load_balancer_ip"):
        yield entry["load_balancer_ip"], _KINDS["balancer"]


def _endpoints(entries: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Endpoint]]:
    for each in entries:
        text = f"{each['address']}:{each['port']}"
        yield text, Endpoint(text, each.get("pod") or "", each.get("node") or "")
